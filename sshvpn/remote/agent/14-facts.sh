# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# What there is: the facts, from hello to ready.

say_device() {
  [ -n "$device" ] || return 0
  look_at_device
  owner=-
  [ ! -r "/sys/class/net/$device/owner" ] || read -r owner <"/sys/class/net/$device/owner"
  case $owner in -1) owner=- ;; esac
  if [ -n "$is_up" ]; then device_state=up; else device_state=down; fi
  say "device $device $device_index $device_state $mtu $owner"
}

say_addresses() {
  ip -o address show | while read -r number name kind cidr rest; do
    case $kind in
    inet | inet6)
      case $rest in peer\ *)
        rest=${rest#peer }
        cidr="$cidr ${rest%% *}"
        ;;
      esac
      say "address ${name%%@*} $cidr"
      ;;
    esac
  done
}

say_routes() { # FAMILY: where packets go; not what is the machine's own, and not without end
  {
    # On one line with all its next hops.
    ip -o "-$1" route show table all || ip -o "-$1" route show
  } | {
    count=0
    while read -r route_line; do
      # shellcheck disable=SC2086 # split on purpose
      set -- "$1" $route_line
      family=$1
      kind=unicast
      case $2 in
      local | broadcast | multicast | anycast) set -- "$family" && continue ;;
      unicast | unreachable | blackhole | prohibit | throw)
        kind=$2
        shift 2
        set -- "$family" "$@"
        ;;
      esac
      prefix=$2
      via=- out= table=main
      shift 2
      while [ $# -gt 1 ]; do
        case $1 in
        via) via=$2 ;;
        dev) out="$out ${2%%@*}" ;;
        table) table=$2 ;;
        esac
        shift
      done
      set -- "$family"
      [ "$table" != local ] || continue
      count=$((count + 1))
      [ "$count" -le 2000 ] || {
        say "routes-cut $family"
        break
      }
      say "route $family $kind $prefix $via $table$out"
    done
  }
}

say_adapters() { # which forward, how strict they are
  set +f
  set -- /proc/sys/net/ipv4/conf/*
  set -f
  for conf; do
    adapter=${conf##*/}
    value_of "net/ipv4/conf/$adapter/forwarding"
    adapter_words=$value
    value_of "net/ipv4/conf/$adapter/rp_filter"
    adapter_words="$adapter_words $value"
    value_of "net/ipv6/conf/$adapter/forwarding"
    adapter_words="$adapter_words ${value:--}"
    value_of "net/ipv6/conf/$adapter/force_forwarding"
    adapter_words="$adapter_words ${value:--}"
    value_of "net/ipv6/conf/$adapter/disable_ipv6"
    adapter_words="$adapter_words ${value:--}"
    value_of "net/ipv6/conf/$adapter/accept_ra"
    say "adapter $adapter $adapter_words ${value:--}"
  done
}

say_before() { # settings that tunnels have changed, and what they were
  set +f
  set -- "$base"/settings/*/old
  set -f
  for old; do
    [ -e "$old" ] || continue
    entry=${old%/old}
    slashed "${entry##*/}"
    is_ours "$path" && read -r value <"$old" && say "before $path $value"
  done
}

slashed() { # ENTRY of the register: sets path
  IFS=:
  # shellcheck disable=SC2086 # split on purpose
  set -- $1
  IFS=/
  path="$*"
  unset IFS
}

# FUNCTION, which is told: whose chains drop what is forwarded, or published, and so what
# accept-chains opens; opened is how a rule of ours in there looks.
each_closed() {
  case $rights in none) return ;; esac
  for rules_family in 4 6; do
    find_tables "$rules_family"
    for program in $programs; do
      closed_chains "$("$program-save")"
      for chain in $forward_chain $input_chain; do
        opened="-A $chain .*sshvpn_$label"
        "$1" "closed $rules_family $program $chain"
      done
    done
  done
  foreign_chains
  IFS=$nl
  for rule in $closed; do
    unset IFS
    opened="^${rule% *} "
    "$1" "closed 46 nft $rule"
    IFS=$nl
  done
  unset IFS
}

say_surroundings() {
  say_addresses
  say_routes 4
  say_routes 6
  say_adapters
  say_before
  each_closed say
}

hello() {
  say "hello $protocol"
  say "user $user $user_id"
  case $rights in
  none) say "rights none $rights_code $rights_reason" ;;
  *) say "rights $rights" ;;
  esac
  read -r system_type </proc/sys/kernel/ostype && read -r system_release </proc/sys/kernel/osrelease
  say "system $system_type $system_release"
  case $(ip -V 2>&1) in *iproute2*) ip_kind=iproute2 ;; *) ip_kind=busybox ;; esac
  say "tools ip=$ip_kind firewall=$firewall"
  say_device
  [ "$mode" = adopt ] || say_surroundings # who prepared the device has told them
  say ready
}
