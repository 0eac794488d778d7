# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# A tun of the administrator's, lent to the pump of the stream transport, which gives it back as it
# was. One that is killed cannot: the kernel goes on to leave segments whole and checksums open, and
# a plain `ssh -w` on that device would get them so. The agent is another process, and looks.

# TUNSETIFF, TUNSETOFFLOAD (linux/if_tun.h)
clear_program='import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), int(sys.argv[2])))
fcntl.ioctl(tun, 0x400454D0, 0)'

is_left_over() { # nobody has it open, and who had was given virtio headers
  carrier= # which only a device tells that is up
  IFS= read -r carrier <"/sys/class/net/$device/carrier"
  IFS= read -r tun_flags <"/sys/class/net/$device/tun_flags" &&
    [ "$carrier" != 1 ] && [ "$((tun_flags & 0x4000))" != 0 ]
}

give_back() { # as IFF_TUN, IFF_NO_PI, and IFF_MULTI_QUEUE where it has that
  [ -n "$lent" ] && is_left_over && find_python || return 0
  "$python" -I -S -c "$clear_program" "$device" "$((tun_flags & 0x1101))" </dev/null
}
