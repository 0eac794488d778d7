# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Changes: whether what the last commit made still stands, as far as others may take it away.
#
# Looked at is what is ours, and whose chains must let us in; not the rules of others. The whole
# of a packet filter takes half a second to list where a container platform keeps thousands of
# rules, and changes with each ban, each container and each commit of another tunnel.

tell_change() { # the client says what it wants again, once for each change
  [ -n "$standing_made" ] || return 0
  note_standing
  [ "$standing" != "$standing_made" ] || return 0
  standing_made=$standing
  say changed
}

note_shut() { # a closed chain: the next look shall take it for a change if no rule of ours opens it
  printf '%s\n' "$filter$nl$ours" | grep -qe "$opened" || standing_made=shut
}

note_standing() { # sets standing
  standing=$(
    list_addresses
    list_own_rules
    list_tables
    list_settings
    list_absent
  )
}

list_addresses() { # and where routes lead; without flags that the kernel changes, and its own fe80::
  {
    ip -o address show dev "$device"
    ip -4 route show dev "$device"
    ip -6 route show dev "$device"
  } | sed -e '/^fe80:/d' -e '/ fe80:/d' -e 's/^[0-9]*: .* \(inet6* [^ ]*\( peer [^ ]*\)*\) .*/\1/' \
    -e t -e 's/ .*//'
}

list_own_rules() { # of nft: our table, the chains that are closed, and our rules in these
  has nft || return 0
  nft -s list table inet "sshvpn_$label"
  find_closed "$(nft list chains)"
  printf '%s' "$closed$closed_tables"
  # A rule that iptables made shows no comment here, but the device, which nobody else has. The
  # others close a chain.
  list_closed | grep -E "\"$device\"|policy drop;|^[[:space:]]*counter (drop|reject)"
}

list_closed() { # the rules of these chains; asked for together, nft 1.0.6 finds none
  IFS=$nl
  for closed_chain in $closed$closed_tables$built_in; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $closed_chain
    nft -s list chain "$1" "$2" "$3"
    IFS=$nl
  done
  unset IFS
}

list_tables() { # of iptables, where its rules are not nft's
  for save in iptables ip6tables; do
    if ! has nft; then
      "$save-save"
    elif read -r save_line <"/proc/net/${save%tables}_tables_names"; then
      ! has "$save-legacy-save" || save=$save-legacy
      "$save-save"
    fi
  done | sed -n -E -e "/sshvpn_$label/p" -e '/^:(FORWARD|INPUT|DOCKER-USER) /s/\[.*//p' \
    -e "/^-A (FORWARD|INPUT)$closing/p"
}

list_settings() { # and whether others let all adapters forward, which plan_forward goes by
  for family in ${forwards:+4 6}; do
    value_of "net/ipv$family/conf/all/forwarding"
    printf '%s\n' "$value"
  done
  IFS=$nl
  for journal_line in $journal; do
    case $journal_line in setting\ *)
      value_of "${journal_line#setting }"
      printf '%s\n' "$journal_line $value"
      ;;
    esac
  done
  unset IFS
}

list_absent() { # the adapters that forward when they come again
  for adapter in $absent; do
    index_of "$adapter"
    printf '%s\n' "$adapter $index"
  done
}
