# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Undoing, from the journal backwards.

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
    renamed) undo ip link delete dev "$2" ;;
    esac
    ;;
  esac
}

undo_label() { # everything of the label, also what only its name tells
  undo_made
  undo_filters
  undo_state
}

undo_made() { # all but the rules of packet filters
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
}

undo_filters() {
  undo_table
  undo_rules
}

undo_state() {
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
    unit* | renamed*) journal=$nl$journal_line$journal ;;
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
