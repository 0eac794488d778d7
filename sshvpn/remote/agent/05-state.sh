# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC2015 # fail does not return: "a && b || fail" is what it says
# shellcheck disable=SC2013 # names of files in /proc have no spaces
# State: who holds a label, what was done.

lock() { # between labels; a lock whose owner is gone is broken
  lock_tries=200
  until ln -s "pid:$$" "$base/lock"; do
    lock_owner=$(readlink "$base/lock")
    if [ -n "$lock_owner" ] && ! [ -e "/proc/${lock_owner#pid:}" ]; then
      mv "$base/lock" "$base/lock.$$"
      # Somebody else may have been as quick: what is not stale goes back.
      [ "$(readlink "$base/lock.$$")" = "$lock_owner" ] || mv "$base/lock.$$" "$base/lock"
      rm -f "$base/lock.$$"
    fi
    lock_tries=$((lock_tries - 1))
    [ "$lock_tries" -gt 0 ] || break
    nap
    mkdir -p "$base"
  done
}

unlock() { rm -f "$base/lock"; }

is_holder() {
  [ -n "$held" ] && read -r holder_pid holder_rest <"$state/holder" && [ "$holder_pid" = "$$" ]
}

hold() { # the label is ours from here on
  mkdir -p "$state" || fail no_state "cannot make $state"
  session_of "$$"
  session_start=0
  [ -z "$session" ] || { start_of "$session" && session_start=$start; }
  start_of "$$"
  printf '%s\n' "$$ $start ${session:-0} $session_start $mode" >"$state/holder.new" &&
    mv "$state/holder.new" "$state/holder" || fail no_state "cannot write below $state"
  held=yes
  load_journal
}

load_journal() {
  journal=$nl
  [ ! -e "$state/journal" ] || while read -r journal_line; do
    journal=$journal$journal_line$nl
  done <"$state/journal"
}

in_journal() { case $journal in *"$nl$1$nl"*) ;; *) return 1 ;; esac }

note() { # LINE: before the change that it tells of, so that it is undone whatever happens
  kept=$kept$1$nl
  in_journal "$1" && return
  printf '%s\n' "$1" >>"$state/journal" || fail no_state "cannot write below $state"
  journal=$journal$1$nl
}

keep() { # LINE: is still wanted, if it is ours at all
  kept=$kept$1$nl
}

take_over() { # ends the session that holds the label, if there is one, and undoes what it did
  old_mode=
  [ ! -e "$state/holder" ] || read -r old old_start old_session old_session_start old_mode <"$state/holder"
  if [ "$old_mode" = prepare ] && [ "$mode" = adopt ] &&
    { in_state "unit ${SSH_TUNNEL:-/}" || in_state "renamed ${SSH_TUNNEL:-/}"; }; then
    # It made this very device for us: it leaves, and what it did is ours. It has nothing left to
    # do, so nobody waits for it.
    hold
    (
      exec </dev/null >/dev/null
      end_process "$old" "$old_start"
    ) &
    return
  fi
  if [ -n "$old_mode" ]; then
    # First it is ours, so that the old one leaves the undoing to us.
    hold
    end_process "$old" "$old_start"
    if [ "$old_session" != 0 ] && [ "$old_session" != "$session" ]; then
      end_process "$old_session" "$old_session_start"
    fi
  fi
  [ -e "$state" ] || [ "$mode" = sweep ] || return 0
  undo_made
  # Who only sweeps leaves nothing. Else the rules stand until the commit puts others in their
  # place, in one transaction: an answer of an open connection that is not translated just then
  # would reach a port of the server itself, which resets the connection.
  [ "$mode" != sweep ] || undo_filters
  undo_state
}

in_state() { # WORDS: the journal that stands has a line that begins so
  load_journal
  case $journal in *"$nl$1$space"*) ;; *) return 1 ;; esac
}

end_own_stale() { # without rights there is no state: processes of this user and label
  case $0 in sshvpn-agent:*) ;; *) return ;; esac
  stale_files=
  set +f
  for stale_file in /proc/[0-9]*/cmdline; do
    [ ! -O "$stale_file" ] || stale_files="$stale_files $stale_file"
  done
  set -f
  session_of "$$"
  stale_mine=$session
  # shellcheck disable=SC2086 # a list
  for stale_file in $(grep -lF "$0" $stale_files); do
    stale=${stale_file#/proc/}
    session_of "${stale%/cmdline}"
    if [ -n "$session" ] && [ "$session" != "$stale_mine" ] && start_of "$session"; then
      end_process "$session" "$start"
    fi
  done
  session=$stale_mine
}
