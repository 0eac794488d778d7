# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC2015 # usage does not return: "a || usage" is what it says
# shellcheck disable=SC1007 # x= empties x
# The configuration: taken word by word, made at the commit.

usage() { fail usage "$*"; }

want() { wanted="$wanted$*$nl"; }

take_word() { # a line of the configuration, split; checked here whoever sent it
  case $1/$# in
  address/2) is_prefix "$2" || usage "$*" ;;
  address/3)
    is_prefix "$2" && is_prefix "$3" || usage "$*"
    ;;
  mtu/2) is_number "$2" 576 "$largest_mtu" || usage "$*" ;;
  up/1 | guard/1 | accept-chains/1) ;;
  route/2 | masquerade/2) is_prefix "$2" || usage "$*" ;;
  forward/2 | loose/2) is_adapter "$2" || usage "$*" ;;
  publish/5)
    is_address "$2" && is_number "$3" 1 65535 && is_address "$4" && is_number "$5" 1 65535 ||
      usage "$*"
    family_of "$2"
    publish_family=$family
    family_of "$4"
    [ "$family" = "$publish_family" ] || usage "$*: two families"
    # There is no route_localnet for IPv6.
    [ "$4" != ::1 ] || usage "$*: ::1 cannot be published, 127.0.0.1 can"
    ;;
  *) usage "$*" ;;
  esac
  want "$*"
}

for_each_wanted() { # VERB FUNCTION
  IFS=$nl
  for wanted_line in $wanted; do
    unset IFS
    case $wanted_line in
    "$1" | "$1 "*)
      # shellcheck disable=SC2086 # split on purpose
      set -- "$1" "$2" $wanted_line
      each=$2
      verb=$1
      shift 3
      "$each" "$@"
      set -- "$verb" "$each"
      ;;
    esac
    IFS=$nl
  done
  unset IFS
}

collect_forward() {
  index_of "$1"
  if [ "$index" != - ]; then
    forwards="$forwards $1"
  elif [ -n "$standing_made" ]; then
    # It was there when the client chose it, and may come again: a container's, another tunnel's.
    absent="$absent $1"
  else
    fail no_adapter "there is no adapter $1"
  fi
}

need_accepts() { needs_accepts=yes; }

check_commit() { # everything that can be known before the first change
  [ "$rights" != none ] || fail "$rights_code" "$rights_reason"
  [ -n "$device" ] || fail no_tun "this session has no tun: ssh -w was not given"
  has_index "$device" "$device_index" || fail no_device "$device is gone"
}

commit() {
  check_commit
  kept=
  forwards= absent=
  needs_localnet=
  needs_accepts=
  nft_raw= nft_forward= nft_nat_in= nft_nat_out= nft_guard= tables_4= tables_6=
  for_each_wanted forward collect_forward
  for_each_wanted accept-chains need_accepts
  for_each_wanted guard plan_guard
  for_each_wanted masquerade plan_masquerade
  for_each_wanted publish plan_publish
  [ -z "$needs_localnet" ] || plan_localnet
  plan_forward
  # The packet filter first: nothing is let through that it would not allow.
  ensure_group
  case $firewall in
  nft) install_table ;;
  none) case $wanted in *guard* | *masquerade* | *publish* | *forward*)
    fail no_firewall "neither nft nor iptables on this server: install nftables"
    ;;
  esac ;;
  esac
  install_tables
  install_foreign
  [ -z "$needs_localnet" ] || ensure_setting "net/ipv4/conf/$device/route_localnet" 1
  for adapter in ${forwards:+$device} $forwards; do
    ensure_forwarding "$adapter"
  done
  for_each_wanted loose ensure_loose
  for_each_wanted mtu ensure_mtu
  for_each_wanted address ensure_address
  for_each_wanted up ensure_up
  for_each_wanted route ensure_route
  undo_unwanted
  wanted=
  note_standing
  standing_made=$standing
  arm
  say ok
  # Whoever loads rules at the same time may have shut us out again before that was noted.
  [ -z "$needs_accepts" ] || each_closed note_shut
}
