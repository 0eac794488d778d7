# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Processes: which live, which session they are of, the lease.

start_of() { # PID: sets start (clock ticks since boot); false if it does not run
  start=
  IFS= read -r start_line <"/proc/$1/stat" || return 1
  # shellcheck disable=SC2086 # split on purpose; the name before ")" may hold anything
  set -- ${start_line##*) }
  [ "$1" != Z ] || return 1
  start=${20}
}

is_alive() { # PID START
  start_of "$1" && [ "$start" = "$2" ]
}

session_of() { # PID: sets session, the process of sshd that PID belongs to, or nothing
  session=
  session_up=$1
  while [ "${session_up:-0}" -gt 1 ]; do
    session_name=
    session_parent=
    while read -r session_key session_value session_rest; do
      case $session_key in
      Name:) session_name=$session_value ;;
      PPid:)
        session_parent=$session_value
        break
        ;;
      esac
    done <"/proc/$session_up/status"
    case $session_name in sshd | sshd-session | dropbear)
      session=$session_up
      return
      ;;
    esac
    session_up=$session_parent
  done
}

nap() { sleep 0.05 || sleep 1; }

look_at_clock() { # sets clock to the hundredths of a second since boot
  read -r clock clock_rest </proc/uptime
  clock=${clock%.*}${clock#*.}
}

end_process() { # PID START: lets it end by itself for five seconds
  is_alive "$1" "$2" || return 0
  kill "$1"
  kill -CONT "$1" # one that was stopped would not hear it
  end_tries=100
  while is_alive "$1" "$2" && [ "$end_tries" -gt 0 ]; do
    nap
    end_tries=$((end_tries - 1))
  done
  ! is_alive "$1" "$2" || kill -KILL "$1"
}

# The lease: a process that sleeps, and then ends this one; `read -t` is not in every sh. It is
# stopped by a signal that nobody here traps: one that comes right after the fork would get lost.
# Its sleeps are short, as the last one outlives it.
disarm() {
  [ -n "$watch" ] || return 0
  kill -USR1 "$watch"
  wait "$watch"
  watch=
}

arm() {
  disarm
  (
    # It must not hold the session's channel open.
    exec </dev/null >/dev/null
    while [ "$lease" -gt 0 ] && is_alive "$$" "$main_start"; do
      step=$((lease < 2 ? lease : 2))
      sleep "$step"
      lease=$((lease - step))
    done
    ! is_alive "$$" "$main_start" || kill -ALRM "$$"
  ) &
  watch=$!
}
