# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Starting it so that it outlives the login, and waiting until it listens.

launch() { # WORD...: with the options that are ours
  named="$*"
  kind=home
  classic= # Notebook 6 has the options by other names
  for word; do
    case ${word##*/} in notebook | jupyter-notebook) classic=yes ;; esac
  done
  set -- "$@" --no-browser --ip=127.0.0.1
  if [ -n "$directory" ]; then
    kind=directory
    set -- "$@" "--notebook-dir=$here"
  fi
  if [ "$shared" = yes ]; then
    set -- "$@" --ServerApp.allow_remote_access=True
    [ -z "$classic" ] || set -- "$@" --NotebookApp.allow_remote_access=True
  fi
  [ "$user" != 0 ] || set -- "$@" --allow-root
  if own_session=$(command -v setsid); then set -- setsid "$@"; fi
  choose_runtime
  choose_scope
  [ -z "$scope" ] || set -- systemd-run --user --scope --quiet --collect -- "$@"
  log=$state/$$.log
  (umask 077 && : >"$log") || fail "no_state $log"
  (
    trap '' HUP
    cd "$here" && export JUPYTER_TOKEN_FILE="$work/token" && exec "$@" </dev/null >>"$log" 2>&1
  ) &
  server=$!
  say "launched $log"
  ticks=0
  limit=$within
  see_time
  began=$now
  while ! find_started; do
    ticks=$((ticks + 1))
    if ! is_alive "$server"; then
      nap
      find_started && break
      last_words died
      exit 1
    fi
    if is_overdue; then
      end_started
      last_words silent
      exit 1
    fi
    nap
  done
  start_of "$pid"
  (umask 077 && printf '%s %s %s\n' "$start" "$kind" "$log" >"$state/$pid")
  tidy
  hide "$found"
  tell "$found"
}

see_time() { # sets now, in seconds; where the system does not tell, by the naps
  IFS='. ' read -r now rest </proc/uptime || now=$((ticks / 20))
} 2>/dev/null

# Who asked waits no longer than that, and others not while this goes on. A Jupyter that is slow (a
# network file system, packages that come first) goes on, and is found the next time.
is_overdue() {
  see_time
  [ "$((now - began))" -ge "$limit" ] || return 1
  [ "$limit" -lt 600 ] && is_jupyter || return 0
  limit=600
  return 1
}

is_jupyter() { # whether what was started is called so, or what that has started
  case $named in *jupyter* | *notebook*) return 0 ;; esac
  for file in $(grep -ls jupyter /proc/[0-9]*/cmdline); do
    file=${file%/cmdline}
    ! start_of "${file#/proc/}" || [ "$sid" != "$server" ] || return 0
  done
  return 1
}

end_started() { # with all that it has started itself
  for signal in TERM KILL; do
    kill "-$signal" ${own_session:+"-$server"} || kill "-$signal" "$server"
    tries=100
    while is_alive "$server" && [ "$tries" -gt 0 ]; do
      nap
      tries=$((tries - 1))
    done
    is_alive "$server" || return 0
  done
} 2>/dev/null

# Jupyter writes a page with the token for a browser there, whether it opens one or not, right
# after the other file; only the directory keeps others from it, and from Notebook 6's both.
hide() { # FILE
  tries=10
  while [ ! -e "${1%.json}-open.html" ] && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    nap
  done
  chmod 600 "$1" "${1%.json}-open.html"
} 2>/dev/null

# It makes that directory for its user alone; one that is there already it takes as it is. Where that
# is open it has another: until hide() is done, everybody could read the page.
choose_runtime() {
  if [ -n "${JUPYTER_RUNTIME_DIR:-}" ]; then dir=$JUPYTER_RUNTIME_DIR
  elif [ -n "${JUPYTER_DATA_DIR:-}" ]; then dir=$JUPYTER_DATA_DIR/runtime
  else
    dir=$HOME/Library/Jupyter/runtime
    [ -d "$dir" ] || dir=${XDG_DATA_HOME:-$HOME/.local/share}/jupyter/runtime
  fi
  case $(LC_ALL=C ls -ld "$dir/." 2>/dev/null) in '' | drwx------*) return ;; esac
  own=$state/jupyter
  (umask 077 && mkdir -p "$own") && chmod 700 "$own" || fail "no_state $own"
  export JUPYTER_RUNTIME_DIR="$own"
}

# systemd-logind may end all that a login has started when that ends. What is in a scope of the
# user's own systemd it leaves alone; that one lives while the user is logged in, and with
# lingering for ever.
choose_scope() { # sets scope, and says for how long Jupyter will live, where that is not for long
  scope=
  lingers=
  [ ! -e "/var/lib/systemd/linger/$(id -un)" ] || lingers=yes
  kills=
  ! logind_kills || kills=yes
  [ -n "$lingers$kills" ] || return 0
  ! has_scopes || scope=yes
  case $kills:$scope:$lingers in
  yes:yes:) say "ends last_logout" ;;
  yes::*) say "ends logout" ;;
  esac
}

has_scopes() {
  command -v systemd-run >/dev/null &&
    : "${XDG_RUNTIME_DIR:=/run/user/$user}" && export XDG_RUNTIME_DIR &&
    [ -S "$XDG_RUNTIME_DIR/systemd/private" ] &&
    systemd-run --user --scope --quiet --collect -- true
} >/dev/null 2>&1

logind_kills() { # logind.conf(5): KillUserProcesses, KillOnlyUsers, KillExcludeUsers
  grep -q '/session-[^/]*[.]scope' /proc/self/cgroup && command -v loginctl >/dev/null &&
    settings=$(loginctl show-session -p KillUserProcesses -p KillOnlyUsers -p KillExcludeUsers) ||
    return 1
  name=$(id -un)
  but=$(printf '%s\n' "$settings" | sed -n 's/^KillExcludeUsers=//p')
  case " ${but:-root} " in *" $name "*) return 1 ;; esac
  only=$(printf '%s\n' "$settings" | sed -n 's/^KillOnlyUsers=//p')
  case $nl$settings$nl in *"${nl}KillUserProcesses=yes$nl"*) ;; *) [ -n "$only" ] || return 1 ;; esac
  case " ${only:-$name} " in *" $name "*) ;; *) return 1 ;; esac
} 2>/dev/null

find_started() { # sets pid and found; by its number, now and then by its session
  if [ -z "$own_dirs" ]; then
    own_dirs=$(runtime_dirs)
  fi
  found=
  while IFS= read -r dir; do
    for file in "$dir/jpserver-$server.json" "$dir/nbserver-$server.json"; do
      ! [ -e "$file" ] || ! examine "$file" || found=$file
    done
    [ -z "$found" ] && [ $((ticks % 10)) -eq 9 ] || continue
    for file in "$dir"/jpserver-*.json "$dir"/nbserver-*.json; do
      ! examine "$file" || [ "$sid" != "$server" ] || found=$file
    done
  done <<END
$own_dirs
END
  [ -n "$found" ] && examine "$found" && note_runtime "${found%/*}"
}

note_runtime() { # DIR: where a login that is none would not look
  [ "$1" = "$HOME/.local/share/jupyter/runtime" ] ||
    grep -qsxF "$1" "$state/runtime" || printf '%s\n' "$1" >>"$state/runtime"
}

last_words() { # CODE
  tail -n 40 "$log" | while IFS= read -r line || [ -n "$line" ]; do say "log $line"; done
  say "error $1 $log"
}

tidy() { # what is left of servers that are gone
  for file in "$state"/*; do
    number=${file##*/}
    number=${number%.log}
    case $number in '' | *[!0-9]*) continue ;; esac
    is_alive "$number" || grep -qsF " $state/$number.log" "$state"/[0-9]* || rm -f "$file"
  done
}
