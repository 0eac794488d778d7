# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# The rules that a configuration means, for nft and for iptables. What is printed for people to
# type is made in rules.py; tests/contract/test_agent_twin.py compares.

# What the table is made of: lines for nft, and for iptables "FAMILY TABLE RULE".
nft_rule() { # CHAIN RULE
  case $1 in
  raw) nft_raw="$nft_raw$2$nl" ;;
  forward) nft_forward="$nft_forward$2$nl" ;;
  nat_in) nft_nat_in="$nft_nat_in$2$nl" ;;
  nat_out) nft_nat_out="$nft_nat_out$2$nl" ;;
  guard) nft_guard="$nft_guard$2$nl" ;;
  esac
}

tables_rule() { # FAMILIES TABLE RULE
  case $1 in *4*) tables_4="$tables_4$2 $3$nl" ;; esac
  case $1 in *6*) tables_6="$tables_6$2 $3$nl" ;; esac
}

plan_guard() { # OpenSSH's tun dies of an IPv4 packet without payload; longer than the MTU none comes
  nft_rule guard "oifname \"$device\" meta nfproto ipv4 meta length <= 20 drop"
  tables_rule 4 mangle "-A POSTROUTING -o $device -m length --length 0:20 -j DROP"
}

plan_masquerade() { # PREFIX: what comes from it looks, beyond this machine, as if it came from here
  family_of "$1"
  case $family in 4) kind=ip ;; *) kind=ip6 ;; esac
  nft_rule nat_out "$kind saddr $1 oifname != { \"lo\", \"$device\" } masquerade"
  tables_rule "$family" nat "-A POSTROUTING -s $1 -o lo -j ACCEPT"
  tables_rule "$family" nat "-A POSTROUTING -s $1 ! -o $device -j MASQUERADE"
}

plan_publish() { # ADDRESS PORT TARGET PORT
  family_of "$1"
  case $family in 4) kind=ip target=$3:$4 ;; *) kind=ip6 target="[$3]:$4" ;; esac
  nft_rule nat_in "iifname \"$device\" $kind daddr $1 tcp dport $2 dnat $kind to $target"
  tables_rule "$family" nat \
    "-A PREROUTING -i $device -d $1 -p tcp --dport $2 -j DNAT --to-destination $target"
  case $3 in 127.*) needs_localnet=yes ;; esac
}

plan_localnet() { # what is let through to 127.0.0.1 is what was published, and nothing else of it
  nft_rule raw "iifname \"$device\" ip daddr 127.0.0.0/8 drop"
  nft_rule raw "iifname \"$device\" ip saddr 127.0.0.0/8 drop"
  tables_rule 4 raw "-A PREROUTING -i $device -d 127.0.0.0/8 -j DROP"
  tables_rule 4 raw "-A PREROUTING -i $device -s 127.0.0.0/8 -j DROP"
}

plan_forward() { # from the device to the adapters named, and nowhere else
  for adapter in $forwards; do
    nft_rule forward "iifname \"$device\" oifname \"$adapter\" accept"
    tables_rule 46 mangle "-A FORWARD -i $device -o $adapter -j ACCEPT"
  done
  nft_rule forward "iifname \"$device\" drop"
  tables_rule 46 mangle "-A FORWARD -i $device -j DROP"
  # An adapter that only we made forward does so for tunnels, and not between others. What stays on
  # it may be a bridge's own, seen here by br_netfilter.
  for adapter in $forwards; do
    for forward_family in 4 6; do
      forwards_before "$forward_family" "$adapter" && continue
      nft_rule forward \
        "meta nfproto ipv$forward_family iifname \"$adapter\" oifname != \"$adapter\" oifgroup != $group drop"
      tables_rule "$forward_family" mangle \
        "-A FORWARD -i $adapter ! -o $adapter -m devgroup ! --dst-group $group -j DROP"
    done
  done
}
