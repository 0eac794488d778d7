# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Packet filters: which there are, what in them is ours, whose chains are closed.

has() { command -v "$1" >/dev/null; }

choose_firewall() { # sets firewall; an nft that cannot do NAT in an inet table is none (Linux < 5.2)
  firewall=none
  probe="table inet sshvpn_probe {$nl chain c {$nl type nat hook prerouting priority -100;$nl }$nl}"
  if has nft && printf '%s\n' "$probe" | nft -c -f -; then
    firewall=nft
  elif has iptables; then
    firewall=iptables
  fi
}

# Every iptables that is there, by family: both of its backends can hold rules at once. Their
# -save shows only tables in use, and brings none into use.
find_tables() { # FAMILY: sets programs, and own, the one that the plain name means
  case $1 in 4) plain=iptables ;; *) plain=ip6tables ;; esac
  programs=
  own=
  has "$plain-save" || return 0
  for kind in nft legacy; do
    ! has "$plain-$kind-save" || programs="$programs $plain-$kind"
  done
  case $("$plain" --version) in *nf_tables*) own=$plain-nft ;; *) own=$plain-legacy ;; esac
  case "$programs " in *" $own "*) ;; *)
    programs="$programs $plain"
    own=$plain
    ;;
  esac
}

restore() { # PROGRAM RULES: each table in one transaction
  [ -z "$2" ] || printf '%s\n' "$2" | "$1-restore" --noflush
}

deletions_of() { # SAVED: sets deletions, what takes every rule away that bears our label
  deletions=
  case $1 in *"sshvpn_$label"*) ;; *) return ;; esac
  deletions=$(printf '%s\n' "$1" | sed -n -e '/^\*/p' -e '/^COMMIT/p' \
    -e "/--comment \"\{0,1\}sshvpn_$label\"\{0,1\} /s/^-A /-D /p")
  case $deletions in *-D\ *) ;; *) deletions= ;; esac
}

closed_chains() { # SAVED: sets forward_chain and input_chain, where its filter table must let us in
  forward_chain=
  input_chain=
  filter=${1#*"*filter$nl"}
  [ "$filter" != "$1" ] || return 0
  filter=${filter%%COMMIT*}
  case $filter in *:FORWARD\ DROP*) forward_chain=FORWARD ;; esac
  case $filter in *:DOCKER-USER\ *) forward_chain=DOCKER-USER ;; esac
  case $filter in *:INPUT\ DROP*) input_chain=INPUT ;; esac
}

foreign_chains() { # as find_closed, for what nft has now
  find_closed "$(nft -t -a list ruleset | grep -e '^table ' -e '^[[:space:]]*chain ' \
    -e '^[[:space:]]*type filter hook ' -e "comment \"sshvpn_$label\"")"
}

# Sets ours ("FAMILY TABLE CHAIN HANDLE", our rules in them), closed ("FAMILY TABLE CHAIN HOOK"), and
# closed_tables, the same of what iptables calls its own: it is opened by iptables.
find_closed() { # LISTED
  ours=
  closed=
  closed_tables=
  has nft || return 0
  IFS=$nl
  for foreign_line in $1; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $foreign_line
    case $foreign_line in
    table*) foreign_table="$2 $3" ;;
    *"comment \"sshvpn_$label\""*) ours="$ours$foreign_table $foreign_chain ${foreign_line##* }$nl" ;;
    *type\ filter*)
      case $4-$foreign_line in
      input-*"policy drop;" | forward-*"policy drop;") note_closed "$foreign_table $foreign_chain $4" ;;
      esac
      ;;
    *chain*)
      foreign_chain=$2
      # firewalld accepts by policy, and rejects at the chain's end.
      case "$foreign_table $2" in
      ip*\ filter\ DOCKER-USER) closed_tables="$closed_tables$foreign_table $2 forward$nl" ;;
      "inet firewalld filter_FORWARD") note_closed "$foreign_table $2 forward" ;;
      "inet firewalld filter_INPUT") note_closed "$foreign_table $2 input" ;;
      esac
      ;;
    esac
    IFS=$nl
  done
  unset IFS
}

note_closed() { # "FAMILY TABLE CHAIN HOOK"
  case $1 in ip\ filter\ [FI]* | ip6\ filter\ [FI]*)
    if has iptables-save; then
      closed_tables=$closed_tables$1$nl
      return
    fi
    ;;
  esac
  closed=$closed$1$nl
}

undo_table() {
  ! has nft || ! nft list table inet "sshvpn_$label" >/dev/null ||
    undo nft delete table inet "sshvpn_$label"
}

undo_rules() { # wherever they are: they bear the label as their comment
  for rules_family in 4 6; do
    find_tables "$rules_family"
    for program in $programs; do
      deletions_of "$("$program-save")"
      undo restore "$program" "$deletions"
    done
  done
  foreign_chains
  IFS=$nl
  for rule in $ours; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $rule
    undo nft delete rule "$1" "$2" "$3" handle "$4"
    IFS=$nl
  done
  unset IFS
}
