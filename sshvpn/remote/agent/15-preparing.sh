# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# A device made by us: for a login that is not root, or for the stream transport. Where the ip
# knows no tuntap (busybox), remote/lasting_tun.py makes it.

tun_program='@lasting_tun.py@'

make_device() {
  [ "$rights" != none ] || fail "$rights_code" "$rights_reason"
  [ -c /dev/net/tun ] || fail no_tun "no /dev/net/tun on this server: modprobe tun"
  unit=5600
  until claim_unit; do
    unit=$((unit + 1))
    [ "$unit" -lt 5800 ] || fail no_unit "all units from 5600 to 5799 are taken"
  done
  case $mode in streams) queues=multi_queue ;; *) queues= ;; esac
  ip tuntap add dev "$device" mode tun user "$user_id" $queues >/dev/null && return
  if ip tuntap show >/dev/null; then
    run no_tuntap ip tuntap add dev "$device" mode tun user "$user_id" $queues # for what it says
  elif find_python; then
    tun_said=$("$python" -I -S -c "$tun_program" "$device" "$user_id" $queues 2>&1 </dev/null) ||
      fail no_tuntap "no tun can be made: $tun_said"
  else
    fail no_ip_tuntap "ip makes no tun there (busybox), and there is no python3"
  fi
}

prepare() {
  make_device
  # -w wants a device called tunN: a second name is enough, where there are such.
  ip link property add dev "$device" altname "tun$unit" >/dev/null || rename_device "tun$unit"
  say "unit $unit"
}

rename_device() { # NAME; its index tells it from another one that gets that name
  index_of "$device"
  note "renamed $1 $index"
  run no_tuntap ip link set dev "$device" name "$1"
  device=$1
}

claim_unit() { # the file is the claim: two agents at once get two units
  mkdir -p "$base/units" || fail no_state "cannot make $base/units"
  (
    set -C
    printf '%s\n' "$label" >"$base/units/$unit"
  ) || return 1
  device=sshvpnr$unit
  note "unit $device $unit"
  ! ip link show dev "$device" >/dev/null && ! ip link show dev "tun$unit" >/dev/null
}
