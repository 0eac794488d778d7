# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC1007 # x= empties x
# The start, and the loop over what the client says.

main() { # LENGTH NONCE MODE LABEL LEASE [DEVICE, or TUNNEL USER UID CONNECTION from our other half]
  nonce=$2 mode=$3 label=$4 lease=$5
  shift 5
  state=$base/labels/$label
  watch= held= session= end_session= problems= wanted= journal=$nl kept= rights_code= rights_reason=
  firewall=none standing_made= absent= lent= own_4= own_6=
  set -f
  umask 077
  # What a tool has to say is in our own lines, not between those of ssh.
  exec 2>/dev/null
  trap '' PIPE
  case $label in '' | *[!a-z0-9_]*) usage "label" ;; esac
  is_number "$lease" 1 86400 || usage "lease"
  by_sudo=
  own_id=$(id -u)
  user_id=$own_id
  ssh_connection=${SSH_CONNECTION:-}
  if [ $# -eq 4 ]; then
    by_sudo=yes SSH_TUNNEL=$1 user=$2 user_id=$3 ssh_connection=$4
  else
    [ $# -eq 0 ] || SSH_TUNNEL=$1
    user=$(id -un) || user=$user_id
  fi
  device=${SSH_TUNNEL:-}
  [ -z "$device" ] || is_adapter "$device" || usage "SSH_TUNNEL"
  has ip || PATH=$PATH:/usr/sbin:/sbin
  find_rights
  [ "$rights" = none ] || case :$PATH: in *:/usr/sbin:*) ;; *) PATH=$PATH:/usr/sbin:/sbin ;; esac
  trap 'finish 0 "bye replaced"' TERM HUP INT
  trap 'end_session=yes; finish 1 "error lease no heartbeat for $lease s"' ALRM
  start_of "$$"
  main_start=$start
  arm
  serve
}

look() { # says what serve would; makes nothing, ends nobody, and waits for no word
  device=
  [ "$rights" = none ] || choose_firewall
  hello
  finish 0 "bye looked"
}

serve() {
  [ "$mode" != tcp ] || tend_tcp
  has ip || fail no_ip "no ip on this server: install iproute2 (or busybox)"
  [ "$mode" != look ] || look
  if [ "$rights" = none ]; then end_own_stale; else
    session_of "$$"
    choose_firewall
    take_over
    [ "$mode" != sweep ] || finish 0 "bye swept${problems:+ except $problems}"
    [ -n "$held" ] || hold
  fi
  case $mode in
  prepare) prepare ;;
  stream | streams) if [ -n "$device" ]; then lent=yes; else make_device; fi ;;
  esac
  if [ -n "$device" ]; then
    index_of "$device"
    device_index=$index
    [ "$index" != - ] || fail no_device "there is no $device"
    real_name
  fi
  hello
  while IFS= read -r input; do
    # shellcheck disable=SC2086 # split on purpose; set -f stands
    set -- $input
    case ${1:-}/$# in
    /0) ;;
    beat/2)
      is_number "$2" 0 999999999 || usage "$*"
      arm
      say "beat $2"
      tell_change
      ;;
    tcp/3)
      is_tcp "$@" || usage "$*"
      # Beside the rest: nothing here waits for it.
      tune_tcp "$2" "$3" &
      ;;
    end/1) finish 0 "bye end" ;;
    commit/1) commit ;;
    *) take_word "$@" ;;
    esac
  done
  linger
  finish 0 "bye input ended"
}

# The connection was lost, and a client that lives is back in a moment, a few tries later at
# most. All goes at once but the rules, which stand for three seconds: see take_over.
linger() {
  give_back
  is_holder || return 0
  trap 'exit 0' TERM HUP INT
  disarm
  undo_made
  : >"$state/journal"
  look_at_clock
  linger_end=$((clock + 300))
  while is_holder && [ "$clock" -lt "$linger_end" ]; do
    nap
    look_at_clock
  done
}

main "$@"
