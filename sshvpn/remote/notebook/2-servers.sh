# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# What runs.

runtime_dirs() { # a line each: where Jupyter writes what runs (jupyter --paths)
  {
    printf '%s\n' "${JUPYTER_RUNTIME_DIR:-}" "${JUPYTER_DATA_DIR:+$JUPYTER_DATA_DIR/runtime}" \
      "${XDG_DATA_HOME:-$HOME/.local/share}/jupyter/runtime" "$HOME/Library/Jupyter/runtime" "$state/jupyter"
    cat "$state/runtime" 2>/dev/null
  } | sort -u
}

listens() { # PID PORT: whether that process holds that port; a number may be another's by now
  if [ ! -r /proc/net/tcp ]; then
    ps -o command= -p "$1" | grep -q -e jupyter -e notebook
    return
  fi
  hex=$(printf '%04X' "$2")
  sockets=$(grep -hs ":$hex [0-9A-F]*:[0-9A-F]* 0A " /proc/net/tcp /proc/net/tcp6)
  held=$(ls -l "/proc/$1/fd" 2>/dev/null)
  while IFS= read -r socket; do
    # shellcheck disable=SC2086 # split on purpose
    set -- $socket
    case $held in *"socket:[${10:-none}]"*) return 0 ;; esac
  done <<END
$sockets
END
  return 1
}

examine() { # FILE: sets pid; whether it is about a server of ours that runs
  [ -f "$1" ] && [ -O "$1" ] || return 1
  pid=${1##*server-}
  pid=${pid%.json}
  case $pid in '' | *[!0-9]*) return 1 ;; esac
  is_alive "$pid" && grep -q '^}' "$1" || return 1
  port=$(sed -n 's/^ *"port": *\([0-9]\{1,5\}\),*$/\1/p' "$1")
  socket_path=$(sed -n 's/^ *"sock": *"\(..*\)",*$/\1/p' "$1")
  [ -n "$socket_path" ] || { [ -n "$port" ] && listens "$pid" "$port"; }
}

tell() { # FILE: of the server that was examined
  origin=other
  log=
  if IFS=' ' read -r noted kind log 2>/dev/null <"$state/$pid" && is_alive "$pid" && [ "$noted" = "$start" ]
  then
    origin=$kind
  fi
  say "server $pid $origin $log"
  while IFS= read -r line || [ -n "$line" ]; do say "json $line"; done <"$1"
  # It tells its directory as it was typed, which may lead over a symbolic link.
  root=$(sed -n -e 's/^ *"root_dir": *"\(.*\)",*$/\1/p' -e 's/^ *"notebook_dir": *"\(.*\)",*$/\1/p' "$1")
  case $root in
  /*) ! real=$(cd "$root" && pwd -P) || [ "$real" = "$root" ] || say "real $real" ;;
  esac 2>/dev/null
  say "end"
}

each_server() { # COMMAND...: called with the file of each server that runs
  dirs=$(runtime_dirs)
  while IFS= read -r dir; do
    [ -n "$dir" ] && [ -d "$dir" ] || continue
    for file in "$dir"/jpserver-*.json "$dir"/nbserver-*.json; do
      ! examine "$file" || "$@" "$file"
    done
  done <<END
$dirs
END
}

look() {
  if [ -n "$directory" ]; then
    expanded "$directory"
    wanted=$path
  else
    wanted=$HOME
  fi
  [ -d "$wanted" ] || fail "no_directory $wanted"
  here=$(cd "$wanted" 2>/dev/null && pwd -P && echo .) || fail "no_entry $wanted"
  here=${here%"$nl".}
  say "directory $here"
  each_server tell
  [ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot </proc/sys/kernel/random/boot_id
  say "ready $boot"
}
