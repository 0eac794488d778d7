# shellcheck shell=sh
# shellcheck disable=SC2016 # boot is expanded by another shell
# shellcheck disable=SC2154 # s is set by boot
# shellcheck disable=SC2317 # many functions are called by their names
# shellcheck disable=SC1007 # x= empties x
# shellcheck disable=SC2015 # fail does not return: "a && b || fail" is what it says
# shellcheck disable=SC2034 # read needs names for what is not used
# shellcheck disable=SC2013 # names of files in /proc have no spaces
# shellcheck disable=SC2030,SC2031 # the watch counts its own lease down
#
# The server's side of a tunnel: a lease on what it sets up here. POSIX sh; dash, bash, busybox.
#
#   sh -c "$boot" sshvpn-agent:LABEL LENGTH NONCE MODE LABEL LEASE        (docs/agent-protocol.md)
#
# It finds its device in $SSH_TUNNEL, says what it finds, takes a configuration line by line from
# its standard input, applies it at "commit", and stays. When its input ends, when no heartbeat
# comes for LEASE seconds, when anything fails or another connection of LABEL takes over, it undoes all
# it did and ends. No word that comes in is ever evaluated, and each is checked by a pattern.
#
# What it has done is in a journal below /run/sshvpn-agent (0700), written before each change, so
# that the next one can undo it after a kill -9. Settings of the kernel are counted over labels.
#
# Words: say prints a line of ours; the ensure_* may be called twice; undo_* never stop half way.

# Reads exactly LENGTH bytes: a shell that took its script from its input would eat what follows,
# as busybox's head does. It stands in single quotes on the login shell's command line: no quote,
# backslash or exclamation mark, which fish and csh would take for theirs.
boot='LC_ALL=C; export LC_ALL; s=$(dd bs=$1 count=1 iflag=fullblock 2>/dev/null || dd bs=1 count=$1 2>/dev/null); if [ ${#s} -eq $1 ]; then eval "$s"; else echo "$2 error delivery the script arrived in part"; exit 1; fi'

protocol=1
# The largest packet that OpenSSH's tun carries.
largest_mtu=16380
# All our devices are in this group, so that the tables of several labels know each other's.
group=21587
base=/run/sshvpn-agent
nl='
'
space=' '

# -- saying, ending ----------------------------------------------------------------------------

say() { printf '%s %s\n' "$nonce" "$*"; }

# Makes one line of what a program printed.
one_line() {
  # shellcheck disable=SC2086 # split on purpose
  set -- $1
  line=$*
}

fail() { # CODE TEXT: undoes all, says why, ends
  fail_code=$1
  shift
  one_line "$*"
  finish 1 "error $fail_code $line"
}

run() { # CODE COMMAND...: fails with what it said
  run_code=$1
  shift
  run_text=$("$@" 2>&1 </dev/null) || fail "$run_code" "$*: $run_text"
}

finish() { # STATUS WORDS: undoes all that is ours, says WORDS, ends
  trap '' TERM HUP INT
  disarm
  finish_status=$1
  shift
  if is_holder; then
    undo_label
    [ -z "$problems" ] || say "left $problems"
  fi
  say "$*"
  if [ -n "$end_session" ] && [ -n "$session" ]; then
    nap # what was said is on its way
    kill "$session"
  fi
  exit "$finish_status"
}

# -- what words may look like ------------------------------------------------------------------

is_number() { # WORD LOWEST HIGHEST
  case $1 in '' | *[!0-9]* | 0?* | ??????????*) return 1 ;; esac
  [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

is_adapter() {
  case $1 in '' | . | .. | -* | *[!A-Za-z0-9_.-]* | ????????????????*) return 1 ;; esac
}

is_address4() {
  case $1 in *[!0-9.]* | .* | *. | *..*) return 1 ;; esac
  IFS=.
  # shellcheck disable=SC2086 # split on purpose
  set -- $1
  unset IFS
  [ $# -eq 4 ] && is_number "$1" 0 255 && is_number "$2" 0 255 &&
    is_number "$3" 0 255 && is_number "$4" 0 255
}

is_address6() { # as the kernel and RFC 5952 write it: the text is compared with theirs
  case $1 in
  *[!0-9a-f:.]* | *:::* | ????????????????????????????????????????*) return 1 ;;
  *:*:*) ;;
  *) return 1 ;;
  esac
}

is_address() { is_address4 "$1" || is_address6 "$1"; }

family_of() { # ADDRESS or PREFIX
  case $1 in *:*) family=6 ;; *) family=4 ;; esac
}

is_prefix() {
  case $1 in */*/*) return 1 ;; */*) ;; *) return 1 ;; esac
  if is_address4 "${1%/*}"; then is_number "${1#*/}" 0 32; else
    is_address6 "${1%/*}" && is_number "${1#*/}" 0 128
  fi
}

# -- processes ---------------------------------------------------------------------------------

start_of() { # PID: sets start (clock ticks since boot); false if it does not run
  start=
  IFS= read -r start_line <"/proc/$1/stat" || return 1
  # shellcheck disable=SC2086 # split on purpose; the name before ")" may hold anything
  set -- ${start_line##*) }
  [ "$1" != Z ] || return 1
  start=${20}
}

is_alive() { # PID START
  start_of "$1" && [ "$start" = "$2" ]
}

session_of() { # PID: sets session, the process of sshd that PID belongs to, or nothing
  session=
  session_up=$1
  while [ "${session_up:-0}" -gt 1 ]; do
    session_name=
    session_parent=
    while read -r session_key session_value session_rest; do
      case $session_key in
      Name:) session_name=$session_value ;;
      PPid:)
        session_parent=$session_value
        break
        ;;
      esac
    done <"/proc/$session_up/status"
    case $session_name in sshd | sshd-session | dropbear)
      session=$session_up
      return
      ;;
    esac
    session_up=$session_parent
  done
}

nap() { sleep 0.05 || sleep 1; }

end_process() { # PID START: lets it end by itself for five seconds
  is_alive "$1" "$2" || return 0
  kill "$1"
  end_tries=100
  while is_alive "$1" "$2" && [ "$end_tries" -gt 0 ]; do
    nap
    end_tries=$((end_tries - 1))
  done
  ! is_alive "$1" "$2" || kill -KILL "$1"
}

# The lease: a process that sleeps, and then ends this one; `read -t` is not in every sh. It is
# stopped by a signal that nobody here traps: one that comes right after the fork would get lost.
# Its sleeps are short, as the last one outlives it.
disarm() {
  [ -n "$watch" ] || return 0
  kill -USR1 "$watch"
  wait "$watch"
  watch=
}

arm() {
  disarm
  (
    # It must not hold the session's channel open.
    exec </dev/null >/dev/null
    while [ "$lease" -gt 0 ] && is_alive "$$" "$main_start"; do
      step=$((lease < 2 ? lease : 2))
      sleep "$step"
      lease=$((lease - step))
    done
    ! is_alive "$$" "$main_start" || kill -ALRM "$$"
  ) &
  watch=$!
}

# -- state: who holds a label, what was done ---------------------------------------------------

lock() { # between labels; a lock whose owner is gone is broken
  lock_tries=200
  until ln -s "pid:$$" "$base/lock"; do
    lock_owner=$(readlink "$base/lock")
    if [ -n "$lock_owner" ] && ! [ -e "/proc/${lock_owner#pid:}" ]; then
      mv "$base/lock" "$base/lock.$$"
      # Somebody else may have been as quick: what is not stale goes back.
      [ "$(readlink "$base/lock.$$")" = "$lock_owner" ] || mv "$base/lock.$$" "$base/lock"
      rm -f "$base/lock.$$"
    fi
    lock_tries=$((lock_tries - 1))
    [ "$lock_tries" -gt 0 ] || break
    nap
    mkdir -p "$base"
  done
}

unlock() { rm -f "$base/lock"; }

is_holder() {
  [ -n "$held" ] && read -r holder_pid holder_rest <"$state/holder" && [ "$holder_pid" = "$$" ]
}

hold() { # the label is ours from here on
  mkdir -p "$state" || fail no_state "cannot make $state"
  session_of "$$"
  session_start=0
  [ -z "$session" ] || { start_of "$session" && session_start=$start; }
  start_of "$$"
  printf '%s\n' "$$ $start ${session:-0} $session_start $mode" >"$state/holder.new" &&
    mv "$state/holder.new" "$state/holder" || fail no_state "cannot write below $state"
  held=yes
  load_journal
}

load_journal() {
  journal=$nl
  [ ! -e "$state/journal" ] || while read -r journal_line; do
    journal=$journal$journal_line$nl
  done <"$state/journal"
}

in_journal() { case $journal in *"$nl$1$nl"*) ;; *) return 1 ;; esac }

note() { # LINE: before the change that it tells of, so that it is undone whatever happens
  kept=$kept$1$nl
  in_journal "$1" && return
  printf '%s\n' "$1" >>"$state/journal" || fail no_state "cannot write below $state"
  journal=$journal$1$nl
}

keep() { # LINE: is still wanted, if it is ours at all
  kept=$kept$1$nl
}

take_over() { # ends the session that holds the label, if there is one, and undoes what it did
  old_mode=
  [ ! -e "$state/holder" ] || read -r old old_start old_session old_session_start old_mode <"$state/holder"
  if [ "$old_mode" = prepare ] && [ "$mode" = serve ] && in_state "unit ${SSH_TUNNEL:-/}"; then
    # It made this very device for us: it leaves, and what it did is ours.
    hold
    end_process "$old" "$old_start"
    return
  fi
  if [ -n "$old_mode" ]; then
    end_process "$old" "$old_start"
    if [ "$old_session" != 0 ] && [ "$old_session" != "$session" ]; then
      end_process "$old_session" "$old_session_start"
    fi
  fi
  undo_label
}

in_state() { # WORDS: the journal that stands has a line that begins so
  load_journal
  case $journal in *"$nl$1$space"*) ;; *) return 1 ;; esac
}

end_own_stale() { # without rights there is no state: processes of this user and label
  case $0 in sshvpn-agent:*) ;; *) return ;; esac
  stale_files=
  set +f
  for stale_file in /proc/[0-9]*/cmdline; do
    [ ! -O "$stale_file" ] || stale_files="$stale_files $stale_file"
  done
  set -f
  session_of "$$"
  stale_mine=$session
  # shellcheck disable=SC2086 # a list
  for stale_file in $(grep -lF "$0" $stale_files); do
    stale=${stale_file#/proc/}
    session_of "${stale%/cmdline}"
    if [ -n "$session" ] && [ "$session" != "$stale_mine" ] && start_of "$session"; then
      end_process "$session" "$start"
    fi
  done
  session=$stale_mine
}

# -- settings of the kernel, counted over labels -----------------------------------------------

index_of() { # ADAPTER: sets index, "-" if there is none of that name
  index=-
  index_line=$(ip -o link show dev "$1") && index=${index_line%%:*}
}

setting_index() { # PATH: sets index to that of the adapter it belongs to
  case $1 in
  net/ipv?/conf/all/*) index=- ;;
  *)
    setting_rest=${1#net/ipv?/conf/}
    index_of "${setting_rest%/*}"
    ;;
  esac
}

setting_entry() { # PATH: sets entry, where the register has it
  entry=$base/settings/
  setting_rest=$1
  while :; do
    case $setting_rest in
    */*)
      entry=$entry${setting_rest%%/*}:
      setting_rest=${setting_rest#*/}
      ;;
    *) break ;;
    esac
  done
  entry=$entry$setting_rest
}

value_of() { # PATH: sets value, empty if there is no such setting
  value=
  [ ! -r "/proc/sys/$1" ] || read -r value <"/proc/sys/$1"
}

ensure_setting() { # PATH VALUE
  setting_entry "$1"
  lock
  value_of "$1"
  if [ ! -e "$entry/old" ]; then
    if [ "$value" = "$2" ]; then
      unlock
      return
    fi
    setting_index "$1"
    mkdir -p "$entry" && printf '%s\n' "$value" >"$entry/old" &&
      printf '%s\n' "$2 $index" >"$entry/ours" || {
      unlock
      fail no_state "cannot write below $base"
    }
  fi
  note "setting $1"
  : >"$entry/by.$label"
  if [ "$value" != "$2" ] && ! printf '%s\n' "$2" >"/proc/sys/$1"; then
    unlock
    fail setting_failed "cannot write $2 to /proc/sys/$1"
  fi
  unlock
}

undo_setting() { # PATH: the last label puts back the old value, if the value is still ours
  setting_entry "$1"
  lock
  rm -f "$entry/by.$label"
  set +f
  set -- "$1" "$entry"/by.*
  set -f
  if [ ! -e "$2" ] && [ -e "$entry/ours" ]; then
    read -r ours ours_index <"$entry/ours"
    read -r old_value <"$entry/old"
    setting_index "$1"
    value_of "$1"
    if [ "$index" = "$ours_index" ] && [ "$value" = "$ours" ]; then
      printf '%s\n' "$old_value" >"/proc/sys/$1" || problem "/proc/sys/$1"
    fi
    rm -rf "$entry"
  fi
  unlock
}

was_off() { # PATH: it is 0, or only we made it something else
  setting_entry "$1"
  if [ -e "$entry/old" ]; then read -r value <"$entry/old"; else value_of "$1"; fi
  [ "$value" = 0 ]
}

# -- undoing -----------------------------------------------------------------------------------

problem() {
  one_line "$*"
  problems="$problems${problems:+, }$line"
}

undo() { # COMMAND...: goes on, and remembers what failed
  undo_text=$("$@" 2>&1 </dev/null) || problem "$*: $undo_text"
}

has_index() { # ADAPTER INDEX: not another one that has got its name
  index_of "$1"
  [ "$index" = "$2" ]
}

undo_line() { # a line of the journal
  # shellcheck disable=SC2086 # split on purpose
  set -- $1
  case $1 in
  setting) undo_setting "$2" ;;
  unit)
    # The device first: who finds the claim gone may make one of that name.
    ! ip link show dev "$2" >/dev/null || undo ip link delete dev "$2"
    rm -f "$base/units/$3"
    ;;
  *)
    has_index "$2" "$3" || return 0
    case $1 in
    address) ! has_address "$4" "$2" || undo ip address delete "$4" ${5:+peer "$5"} dev "$2" ;;
    route)
      family_of "$4"
      ! has_route "$4" "$2" || undo ip "-$family" route delete "$4" dev "$2"
      ;;
    mtu) undo ip link set dev "$2" mtu "$4" ;;
    up) undo ip link set dev "$2" down ;;
    group) undo set_group "$2" "$4" ;;
    esac
    ;;
  esac
}

undo_label() { # everything of the label, also what only its name tells
  problems=
  load_journal
  backwards=
  IFS=$nl
  for journal_line in $journal; do
    backwards=$journal_line$nl$backwards
  done
  for journal_line in $backwards; do
    unset IFS
    undo_line "$journal_line"
    IFS=$nl
  done
  unset IFS
  undo_table
  undo_rules
  rm -rf "$state"
  held=
  # The last label leaves nothing. Who comes meanwhile makes what it needs again.
  rmdir "$base/labels" "$base/settings" "$base/units" "$base"
}

undo_unwanted() { # what an earlier commit made and this one does not want
  backwards=
  IFS=$nl
  for journal_line in $journal; do
    backwards=$journal_line$nl$backwards
  done
  kept=$nl$kept
  journal=$nl
  for journal_line in $backwards; do
    unset IFS
    case $journal_line in
    unit*) journal=$nl$journal_line$journal ;;
    *) case $kept in
      *"$nl$journal_line$nl"*) journal=$nl$journal_line$journal ;;
      *) undo_line "$journal_line" ;;
      esac ;;
    esac
    IFS=$nl
  done
  unset IFS
  printf '%s' "${journal#"$nl"}" >"$state/journal.new" && mv "$state/journal.new" "$state/journal"
}

# -- the device --------------------------------------------------------------------------------

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

# -- forwarding and reverse path filter --------------------------------------------------------

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

# -- packet filter -----------------------------------------------------------------------------

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
  deletions=$(printf '%s\n' "$1" | sed -n -e '/^\*/p' -e '/^COMMIT/p' \
    -e "/--comment \"\{0,1\}sshvpn_$label\"\{0,1\} /s/^-A /-D /p")
  case $deletions in *-D\ *) ;; *) deletions= ;; esac
}

foreign_chains() { # sets ours ("FAMILY TABLE CHAIN HANDLE", our rules in them) and closed ("then HOOK")
  ours=
  closed=
  has nft || return 0
  foreign_text=$(nft -t -a list ruleset | grep -e '^table ' -e '^[[:space:]]*chain ' \
    -e '^[[:space:]]*type filter hook ' -e "comment \"sshvpn_$label\"")
  IFS=$nl
  for foreign_line in $foreign_text; do
    unset IFS
    # shellcheck disable=SC2086 # split on purpose
    set -- $foreign_line
    case $foreign_line in
    table*) foreign_table="$2 $3" ;;
    *"comment \"sshvpn_$label\""*) ours="$ours$foreign_table $foreign_chain ${foreign_line##* }$nl" ;;
    *type\ filter*)
      case $4-$foreign_line in input-*"policy drop;" | forward-*"policy drop;")
        closed="$closed$foreign_table $foreign_chain $4$nl"
        ;;
      esac
      ;;
    *)
      foreign_chain=$2
      # firewalld accepts by policy, and rejects at the chain's end.
      case "$foreign_table $2" in
      "inet firewalld filter_FORWARD") closed="$closed$foreign_table $2 forward$nl" ;;
      "inet firewalld filter_INPUT") closed="$closed$foreign_table $2 input$nl" ;;
      esac
      ;;
    esac
    IFS=$nl
  done
  unset IFS
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
  # An adapter that only we made forward does so for tunnels, and not between others.
  for adapter in $forwards; do
    for forward_family in 4 6; do
      forwards_before "$forward_family" "$adapter" && continue
      nft_rule forward \
        "meta nfproto ipv$forward_family iifname \"$adapter\" oifgroup != $group drop"
      tables_rule "$forward_family" mangle \
        "-A FORWARD -i $adapter -m devgroup ! --dst-group $group -j DROP"
    done
  done
}

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
      if [ "$program" = "$own" ]; then new=$(sections "$own_rules"); fi
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
  filter=${saved#*"*filter$nl"}
  [ "$filter" != "$saved" ] || return 0
  filter=${filter%%COMMIT*}
  mark="-m comment --comment sshvpn_$label"
  accept_chain=
  case $filter in *:FORWARD\ DROP*) accept_chain=FORWARD ;; esac
  case $filter in *:DOCKER-USER\ *) accept_chain=DOCKER-USER ;; esac
  if [ -n "$accept_chain" ]; then
    accepts="-I $accept_chain -i $device $mark -j ACCEPT$nl"
    accepts="$accepts-I $accept_chain -o $device -m conntrack --ctstate RELATED,ESTABLISHED $mark -j ACCEPT$nl"
  fi
  case $filter in *:INPUT\ DROP*)
    accepts="$accepts-I INPUT -i $device -m conntrack --ctstate DNAT $mark -j ACCEPT$nl"
    ;;
  esac
  [ -z "$accepts" ] || new="$new${new:+$nl}*filter$nl${accepts}COMMIT"
}

install_foreign() { # the same for chains of nft, those aside that iptables calls its own
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
    case "$1 $2" in "ip filter" | "ip6 filter") ! has iptables-save || continue ;; esac
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

# -- the configuration -------------------------------------------------------------------------

usage() { fail usage "$*"; }

want() { wanted="$wanted$*$nl"; }

take_word() { # a line of the configuration, split; checked here whoever sent it
  case $1/$# in
  address/2) is_prefix "$2" || usage "$*" ;;
  address/3)
    is_prefix "$2" && is_prefix "$3" || usage "$*"
    ;;
  mtu/2) is_number "$2" 576 "$largest_mtu" || usage "$*" ;;
  up/1 | guard/1 | accept-chains/1) ;;
  route/2 | masquerade/2) is_prefix "$2" || usage "$*" ;;
  forward/2 | loose/2) is_adapter "$2" || usage "$*" ;;
  publish/5)
    is_address "$2" && is_number "$3" 1 65535 && is_address "$4" && is_number "$5" 1 65535 ||
      usage "$*"
    family_of "$2"
    publish_family=$family
    family_of "$4"
    [ "$family" = "$publish_family" ] || usage "$*: two families"
    # There is no route_localnet for IPv6.
    [ "$4" != ::1 ] || usage "$*: ::1 cannot be published, 127.0.0.1 can"
    ;;
  *) usage "$*" ;;
  esac
  want "$*"
}

for_each_wanted() { # VERB FUNCTION
  IFS=$nl
  for wanted_line in $wanted; do
    unset IFS
    case $wanted_line in
    "$1" | "$1 "*)
      # shellcheck disable=SC2086 # split on purpose
      set -- "$1" "$2" $wanted_line
      each=$2
      verb=$1
      shift 3
      "$each" "$@"
      set -- "$verb" "$each"
      ;;
    esac
    IFS=$nl
  done
  unset IFS
}

collect_forward() {
  index_of "$1"
  [ "$index" != - ] || fail no_adapter "there is no adapter $1"
  forwards="$forwards $1"
}

need_accepts() { needs_accepts=yes; }

check_commit() { # everything that can be known before the first change
  [ "$rights" != none ] || fail "$rights_code" "$rights_reason"
  [ -n "$device" ] || fail no_tun "this session has no tun: ssh -w was not given"
  has_index "$device" "$device_index" || fail no_device "$device is gone"
}

commit() {
  check_commit
  kept=
  forwards=
  needs_localnet=
  needs_accepts=
  nft_raw= nft_forward= nft_nat_in= nft_nat_out= nft_guard= tables_4= tables_6=
  for_each_wanted forward collect_forward
  for_each_wanted accept-chains need_accepts
  for_each_wanted guard plan_guard
  for_each_wanted masquerade plan_masquerade
  for_each_wanted publish plan_publish
  [ -z "$needs_localnet" ] || plan_localnet
  plan_forward
  # The packet filter first: nothing is let through that it would not allow.
  ensure_group
  case $firewall in
  nft) install_table ;;
  none) case $wanted in *guard* | *masquerade* | *publish* | *forward*)
    fail no_firewall "neither nft nor iptables on this server: install nftables"
    ;;
  esac ;;
  esac
  install_tables
  install_foreign
  [ -z "$needs_localnet" ] || ensure_setting "net/ipv4/conf/$device/route_localnet" 1
  for adapter in ${forwards:+$device} $forwards; do
    ensure_forwarding "$adapter"
  done
  for_each_wanted loose ensure_loose
  for_each_wanted mtu ensure_mtu
  for_each_wanted address ensure_address
  for_each_wanted up ensure_up
  for_each_wanted route ensure_route
  undo_unwanted
  wanted=
  arm
  say ok
}

# -- what there is -----------------------------------------------------------------------------

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
    ip "-$1" route show table all || ip "-$1" route show
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
      via=- out=- table=main
      shift 2
      while [ $# -gt 1 ]; do
        case $1 in
        via) via=$2 ;;
        dev) out=$2 ;;
        table) table=$2 ;;
        esac
        shift
      done
      set -- "$family"
      # A line without a prefix is a next hop of the one above.
      case $prefix in nexthop) continue ;; esac
      [ "$table" != local ] || continue
      count=$((count + 1))
      [ "$count" -le 2000 ] || {
        say "routes-cut $family"
        break
      }
      say "route $family $kind $prefix $via ${out%%@*} $table"
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
    say "adapter $adapter $adapter_words ${value:--}"
  done
}

say_closed() { # whose chains drop what is forwarded
  case $rights in none) return ;; esac
  for rules_family in 4 6; do
    find_tables "$rules_family"
    for program in $programs; do
      saved=$("$program-save")
      case $saved in *:FORWARD\ DROP*) say "closed $rules_family $program FORWARD" ;; esac
      case $saved in *:DOCKER-USER\ *) say "closed $rules_family $program DOCKER-USER" ;; esac
    done
  done
  foreign_chains
  IFS=$nl
  for rule in $closed; do
    unset IFS
    say "closed 46 nft $rule"
    IFS=$nl
  done
  unset IFS
}

hello() {
  say "hello $protocol"
  say "user $user $user_id"
  case $rights in
  none) say "rights none $rights_code $rights_reason" ;;
  *) say "rights $rights" ;;
  esac
  say "system $(uname -s) $(uname -r)"
  case $(ip -V 2>&1) in *iproute2*) ip_kind=iproute2 ;; *) ip_kind=busybox ;; esac
  say "tools ip=$ip_kind firewall=$firewall"
  say_device
  say_addresses
  say_routes 4
  say_routes 6
  say_adapters
  say_closed
  say ready
}

# -- a device made beforehand, for a login that is not root ------------------------------------

prepare() {
  [ "$rights" != none ] || fail "$rights_code" "$rights_reason"
  [ -c /dev/net/tun ] || fail no_tun "no /dev/net/tun on this server: modprobe tun"
  unit=5600
  until claim_unit; do
    unit=$((unit + 1))
    [ "$unit" -lt 5800 ] || fail no_unit "all units from 5600 to 5799 are taken"
  done
  run no_tuntap ip tuntap add dev "$device" mode tun user "$user_id"
  # -w wants a device called tunN: a second name is enough, where there are such.
  ip link property add dev "$device" altname "tun$unit" >/dev/null ||
    run no_tuntap ip link set dev "$device" name "tun$unit"
  say "unit $unit"
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

# -- rights ------------------------------------------------------------------------------------

find_rights() { # sets rights: uid, sudo or none
  rights=none
  if [ "$(id -u)" = 0 ]; then
    rights=uid
    [ -z "$by_sudo" ] || rights=sudo
  elif ! has sudo; then
    rights_code=no_root
    rights_reason="$user is not root and there is no sudo: log in as root, or have the administrator make a tun for $user"
  elif ! sudo -n true </dev/null >/dev/null; then
    rights_code=no_sudo
    rights_reason="sudo wants a password: allow $user with NOPASSWD in /etc/sudoers.d, or log in as root"
  else
    escalate
  fi
}

# The same script for the same input, by root; cat goes on with the lines behind it. What is left
# here is a parent that does nothing.
escalate() {
  session_of "$$"
  { printf %s "$s" && exec cat; } | exec sudo -n /bin/sh -c "$boot" "$0" \
    "${#s}" "$nonce" "$mode" "$label" "$lease" "${SSH_TUNNEL:-}" "$user" "$user_id"
  exit
}

main() { # LENGTH NONCE MODE LABEL LEASE [TUNNEL USER UID, from our own other half]
  nonce=$2 mode=$3 label=$4 lease=$5
  shift 5
  state=$base/labels/$label
  watch= held= session= end_session= problems= wanted= journal=$nl kept= rights_code= rights_reason=
  set -f
  umask 077
  # What a tool has to say is in our own lines, not between those of ssh.
  exec 2>/dev/null
  trap '' PIPE
  case $label in '' | *[!a-z0-9_]*) usage "label" ;; esac
  is_number "$lease" 1 86400 || usage "lease"
  by_sudo=
  user_id=$(id -u)
  user=$(id -un) || user=$user_id
  if [ $# -eq 3 ]; then
    by_sudo=yes SSH_TUNNEL=$1 user=$2 user_id=$3
  fi
  device=${SSH_TUNNEL:-}
  [ -z "$device" ] || is_adapter "$device" || usage "SSH_TUNNEL"
  has ip || PATH=$PATH:/usr/sbin:/sbin
  find_rights
  [ "$rights" = none ] || case :$PATH: in *:/usr/sbin:*) ;; *) PATH=$PATH:/usr/sbin:/sbin ;; esac
  trap 'finish 0 "bye replaced"' TERM HUP INT
  trap 'end_session=yes; finish 1 "error lease no heartbeat for $lease s"' ALRM
  start_of "$$"
  main_start=$start
  arm
  serve
}

serve() {
  has ip || fail no_ip "no ip on this server: install iproute2 (or busybox)"
  if [ "$rights" = none ]; then end_own_stale; else
    session_of "$$"
    choose_firewall
    take_over
    [ "$mode" != sweep ] || finish 0 "bye swept${problems:+ except $problems}"
    [ -n "$held" ] || hold
  fi
  [ "$mode" != prepare ] || prepare
  if [ -n "$device" ]; then
    index_of "$device"
    device_index=$index
    [ "$index" != - ] || fail no_device "there is no $device"
  fi
  hello
  while IFS= read -r input; do
    # shellcheck disable=SC2086 # split on purpose; set -f stands
    set -- $input
    case ${1:-}/$# in
    /0) ;;
    beat/2)
      is_number "$2" 0 999999999 || usage "$*"
      arm
      say "beat $2"
      ;;
    end/1) finish 0 "bye end" ;;
    commit/1) commit ;;
    *) take_word "$@" ;;
    esac
  done
  finish 0 "bye input ended"
}

main "$@"
