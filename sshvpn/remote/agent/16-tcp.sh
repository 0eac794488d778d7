# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# The TCP connection of this session, made fit for long and lossy paths: remote/tcp_socket.py,
# as root, since the socket is sshd's. What it sets goes with the connection.

tcp_program='@tcp_socket.py@'

is_tcp() { # WORDS of the line `tcp`
  [ $# -eq 3 ] && is_number "$2" 1 86400 && is_number "$3" 1 999999999
}

find_python() { # sets python; the second is what RHEL 8 has for itself
  for python in python3 /usr/libexec/platform-python; do
    ! has "$python" || return 0
  done
  return 1
}

tune_tcp() { # USER_TIMEOUT_S NOTSENT_LOWAT
  if [ "$rights" = none ]; then
    say "tcp - $rights_code $rights_reason"
    return
  fi
  find_python || {
    say "tcp - no_python the server has no python3"
    return
  }
  tcp_timeout=$1 tcp_lowat=$2
  # shellcheck disable=SC2086 # CLIENT PORT SERVER PORT (sshd(8)), split on purpose
  set -- $ssh_connection
  if [ $# -ne 4 ] || ! is_number "$2" 1 65535 || ! is_number "$4" 1 65535; then
    say "tcp - no_socket the server does not tell which connection this is"
    return
  fi
  tcp_said=$("$python" -I -S -c "$tcp_program" "$$" "$2" "$4" "$tcp_timeout" "$tcp_lowat" </dev/null)
  say "tcp ${tcp_said:-- tcp_failed $python ended without a word}"
}

tend_tcp() { # the mode `tcp`: nothing else is done, nobody is ended, nothing is kept
  IFS= read -r input || finish 0 "bye input ended"
  # shellcheck disable=SC2086 # split on purpose; set -f stands
  set -- $input
  [ "${1:-}" = tcp ] && is_tcp "$@" || usage "$input"
  tune_tcp "$2" "$3"
  finish 0 "bye tuned"
}
