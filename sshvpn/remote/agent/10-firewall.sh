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
  case $plain in iptables) own=$own_4 ;; *) own=$own_6 ;; esac
  [ -n "$own" ] ||
    case $("$plain" --version) in *nf_tables*) own=$plain-nft ;; *) own=$plain-legacy ;; esac
  case $plain in iptables) own_4=$own ;; *) own_6=$own ;; esac
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

# The end of a rule of -save that closes its chain: for all that comes so far, whatever it comments.
closing='( -m comment --comment ("[^"]*"|[^ ]*))? -j (DROP|REJECT .*)$'

drops() { # CHAIN of filter: by its policy, as Docker and ufw have it, or by a rule, as Red Hat's
  printf '%s\n' "$filter" | grep -qE "^:$1 DROP|^-A $1$closing"
}

closed_chains() { # SAVED: sets forward_chain and input_chain, where its filter table must let us in
  forward_chain=
  input_chain=
  filter=${1#*"*filter$nl"}
  [ "$filter" != "$1" ] || return 0
  filter=${filter%%COMMIT*}
  ! drops FORWARD || forward_chain=FORWARD
  case $filter in *:DOCKER-USER\ *) forward_chain=DOCKER-USER ;; esac
  ! drops INPUT || input_chain=INPUT
}

foreign_chains() { # as find_closed, for what nft has now
  find_closed "$(nft -t -a list ruleset | grep -e '^table ' -e '^[[:space:]]*chain ' \
    -e '^[[:space:]]*type filter hook ' -e "comment \"sshvpn_$label\"")"
}

# Sets ours ("FAMILY TABLE CHAIN HANDLE", our rules in them), closed ("FAMILY TABLE CHAIN HOOK"), and
# of what iptables calls its own, and opens: closed_tables, the same of Docker's, and built_in, the
# chains that a policy or a rule may close.
find_closed() { # LISTED
  ours=
  closed=
  closed_tables=
  built_in=
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
      ip*\ filter\ FORWARD | ip*\ filter\ INPUT) built_in="$built_in$foreign_table $2$nl" ;;
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
  case $1 in ip*\ filter\ [FI]*) ! has iptables-save || return 0 ;; esac
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
