# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Loading the rules, and our accepts in chains of others.

nft_chain() { # NAME HOOK PRIORITY RULES
  [ -z "$4" ] || printf 'chain %s {\ntype %s priority %s; policy accept;\n%s}\n' "$@"
}

install_table() {
  table="table inet sshvpn_$label"
  table_text=$(printf '%s\ndelete %s\n%s {\n' "$table" "$table" "$table"
    nft_chain raw "filter hook prerouting" -300 "$nft_raw"
    nft_chain nat_in "nat hook prerouting" -105 "$nft_nat_in"
    nft_chain forward "filter hook forward" -5 "$nft_forward"
    nft_chain nat_out "nat hook postrouting" 95 "$nft_nat_out"
    nft_chain guard "filter hook postrouting" 300 "$nft_guard"
    printf '}\n')
  run firewall_failed load_table "$table_text"
}

load_table() { printf '%s\n' "$1" | nft -f -; }

install_tables() { # by iptables, and the accepts in chains of others
  for rules_family in 4 6; do
    find_tables "$rules_family"
    case $rules_family in 4) own_rules=$tables_4 ;; *) own_rules=$tables_6 ;; esac
    [ "$firewall" = iptables ] || own_rules=
    if [ -n "$own_rules" ] && [ -z "$own" ]; then
      # Without ip6tables nothing of IPv6 is needed, unless the server has it.
      [ ! -e "/proc/sys/net/ipv$rules_family" ] ||
        fail no_firewall "no iptables for IPv$rules_family: install nftables"
    fi
    for program in $programs; do
      saved=$("$program-save")
      deletions_of "$saved"
      new=
      [ "$program" != "$own" ] || [ -z "$own_rules" ] || new=$(sections "$own_rules")
      [ -z "$needs_accepts" ] || add_accepts
      run firewall_failed restore "$program" "$deletions${deletions:+$nl}$new"
    done
  done
}

sections() { # RULES ("TABLE RULE" a line): the same as iptables-restore takes it
  for section in raw mangle nat; do
    section_rules=$(printf '%s' "$1" |
      sed -n "s/^$section \\(.*\\)/\\1 -m comment --comment sshvpn_$label/p")
    [ -z "$section_rules" ] || printf '*%s\n%s\nCOMMIT\n' "$section" "$section_rules"
  done
}

add_accepts() { # adds to new what lets us through where the filter table of SAVED would drop us
  accepts=
  mark="-m comment --comment sshvpn_$label"
  closed_chains "$saved"
  if [ -n "$forward_chain" ]; then
    accepts="-I $forward_chain -i $device $mark -j ACCEPT$nl"
    accepts="$accepts-I $forward_chain -o $device -m conntrack --ctstate RELATED,ESTABLISHED $mark -j ACCEPT$nl"
  fi
  [ -z "$input_chain" ] ||
    accepts="$accepts-I $input_chain -i $device -m conntrack --ctstate DNAT $mark -j ACCEPT$nl"
  [ -z "$accepts" ] || new="$new${new:+$nl}*filter$nl${accepts}COMMIT"
}

install_foreign() { # the same for chains of nft
  foreign_chains
  [ -n "$needs_accepts" ] || closed=
  foreign_batch=
  IFS=$nl
  for rule in $ours; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $rule
    case "$1 $2" in
    "inet sshvpn_$label") ;;
    *) foreign_batch="${foreign_batch}delete rule $1 $2 $3 handle $4$nl" ;;
    esac
    IFS=$nl
  done
  for rule in $closed; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $rule
    foreign_batch="$foreign_batch$(foreign_accepts "$@")$nl"
    IFS=$nl
  done
  unset IFS
  [ -z "$foreign_batch" ] || run firewall_failed load_table "$foreign_batch"
}

foreign_accepts() { # FAMILY TABLE CHAIN HOOK
  foreign_rule="insert rule $1 $2 $3"
  foreign_mark="comment \"sshvpn_$label\""
  if [ "$4" = input ]; then
    printf '%s\n' "$foreign_rule iifname \"$device\" ct status dnat accept $foreign_mark"
  else
    printf '%s\n' "$foreign_rule iifname \"$device\" accept $foreign_mark" \
      "$foreign_rule oifname \"$device\" ct state established,related accept $foreign_mark"
  fi
}
