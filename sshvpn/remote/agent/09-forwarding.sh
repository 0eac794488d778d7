# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Forwarding and reverse path filter. What is printed for people to type is made in settings.py;
# tests/contract/test_agent_twin.py compares.

# Where an adapter's IPv6 forwarding is switched: by itself on Linux 6.17 and newer.
has_force() { [ -w "/proc/sys/net/ipv6/conf/$1/force_forwarding" ]; }

forwards_before() { # FAMILY ADAPTER: it forwarded before any of us
  if [ "$1" = 4 ]; then
    ! was_off "net/ipv4/conf/$2/forwarding"
  elif has_force "$2"; then
    ! was_off "net/ipv6/conf/$2/force_forwarding" || ! was_off net/ipv6/conf/all/forwarding
  else
    ! was_off net/ipv6/conf/all/forwarding
  fi
}

ensure_forwarding() { # ADAPTER; ip_forward is never written: it resets all adapters
  ensure_setting "net/ipv4/conf/$1/forwarding" 1
  [ -e "/proc/sys/net/ipv6/conf/$1" ] || return 0
  if has_force "$1"; then
    ensure_setting "net/ipv6/conf/$1/force_forwarding" 1
  else
    ensure_forwarding_of_all
  fi
}

ensure_forwarding_of_all() {
  # A machine that forwards takes router advertisements only with 2, and at the switch it forgets
  # the routes that it has from them: so this goes first.
  set +f
  set -- /proc/sys/net/ipv6/conf/*
  set -f
  for conf; do
    conf=${conf#/proc/sys/}
    value_of "$conf/accept_ra"
    if [ "$value" = 1 ]; then
      case ${conf##*/} in all | default) continue ;; esac
      ensure_setting "$conf/accept_ra" 2
    else
      in_journal "setting $conf/accept_ra" && ensure_setting "$conf/accept_ra" 2
    fi
    # The switch of all moves every other one, there and back: one that stood is put right again.
    [ "${conf##*/}" = all ] || ensure_setting "$conf/forwarding" 1
  done
  ensure_setting net/ipv6/conf/all/forwarding 1
}

ensure_loose() { # ADAPTER: only where strict counts, which is the higher of all and its own
  value_of net/ipv4/conf/all/rp_filter
  loose_all=$value
  value_of "net/ipv4/conf/$1/rp_filter"
  if [ "$value" != 2 ] && [ "$loose_all" != 2 ] && [ "$value$loose_all" != 00 ]; then
    ensure_setting "net/ipv4/conf/$1/rp_filter" 2
  elif in_journal "setting net/ipv4/conf/$1/rp_filter"; then
    ensure_setting "net/ipv4/conf/$1/rp_filter" 2
  fi
}
