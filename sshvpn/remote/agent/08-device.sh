# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# The device: addresses, routes, MTU, group.

real_name() { # the device may have been named by another name of it
  index_line=${index_line#*: }
  device=${index_line%%[:@]*}
}

has_address() { # CIDR DEVICE
  family_of "$1"
  case "$(ip -o "-$family" address show dev "$2") " in
  *" inet $1 "* | *" inet6 $1 "* | *" inet ${1%/*} peer "* | *" inet6 ${1%/*} peer "*) ;;
  *) return 1 ;;
  esac
}

ensure_address() { # CIDR [PEER]: with a peer, the prefix is the peer's
  address_line="address $device $device_index $1${2:+ $2}"
  if in_journal "$address_line"; then keep "$address_line"; fi
  ! has_address "$1" "$device" || return 0
  note "$address_line"
  if [ -n "$2" ]; then
    run address_failed ip address add "${1%/*}" peer "$2" dev "$device"
  else
    run address_failed ip address add "$1" dev "$device"
  fi
}

has_route() { # PREFIX DEVICE
  family_of "$1"
  [ -n "$(ip "-$family" route show "$1" dev "$2")" ]
}

ensure_route() { # PREFIX
  route_line="route $device $device_index $1"
  if in_journal "$route_line"; then keep "$route_line"; fi
  ! has_route "$1" "$device" || return 0
  note "$route_line"
  run route_failed ip "-$family" route add "$1" dev "$device"
}

look_at_device() { # sets mtu and is_up
  link_line=$(ip -o link show dev "$device") || fail no_device "$device is gone"
  mtu=${link_line#* mtu }
  mtu=${mtu%% *}
  case $link_line in *[\<,]UP[,\>]*) is_up=yes ;; *) is_up= ;; esac
}

noted_of_device() { # KIND: the line of that kind, which holds the old value, is still wanted
  case $journal in *"$nl$1 $device $device_index"*)
    noted=${journal#*"$nl$1 $device $device_index"}
    keep "$1 $device $device_index${noted%%"$nl"*}"
    ;;
  *) return 1 ;;
  esac
}

ensure_mtu() {
  look_at_device
  if ! noted_of_device mtu && [ "$mtu" != "$1" ]; then
    note "mtu $device $device_index $mtu"
  fi
  [ "$mtu" = "$1" ] || run mtu_failed ip link set dev "$device" mtu "$1"
}

ensure_up() {
  look_at_device
  if ! noted_of_device up && [ -z "$is_up" ]; then
    note "up $device $device_index"
  fi
  [ -n "$is_up" ] || run up_failed ip link set dev "$device" up
}

group_of() { # DEVICE: sets device_group
  device_group=0
  [ ! -r "/sys/class/net/$1/netdev_group" ] || read -r device_group <"/sys/class/net/$1/netdev_group"
}

set_group() { # DEVICE NUMBER; busybox's ip does not know groups
  ip link set dev "$1" group "$2" || printf '%s\n' "$2" >"/sys/class/net/$1/netdev_group"
}

ensure_group() {
  group_of "$device"
  noted_of_device group || [ "$device_group" = "$group" ] ||
    note "group $device $device_index $device_group"
  [ "$device_group" = "$group" ] || run group_failed set_group "$device" "$group"
}
