# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC2015 # fail does not return: "a && b || fail" is what it says
# Settings of the kernel, counted over labels.

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

of_all() { # PATH: sets value to what its switch of all adapters has, "-" if it has none
  # To write ip_forward writes every adapter's; we never do.
  case $1 in
  net/ipv4/conf/all/*) value=- ;;
  net/ipv4/conf/*/forwarding) value_of net/ipv4/conf/all/forwarding ;;
  *) value=- ;;
  esac
}

ensure_setting() { # PATH VALUE
  setting_entry "$1"
  lock
  value_of "$1"
  if [ -e "$entry/ours" ]; then
    setting_index "$1"
    read -r ours ours_index ours_all <"$entry/ours"
    # Another adapter by that name has a past of its own.
    [ "$index" = "$ours_index" ] || rm -f "$entry/old" "$entry/ours"
  fi
  if [ ! -e "$entry/old" ]; then
    if [ "$value" = "$2" ]; then
      rm -rf "$entry"
      unlock
      return
    fi
    before=$value
    setting_index "$1"
    of_all "$1"
    mkdir -p "$entry" && printf '%s\n' "$before" >"$entry/old" &&
      printf '%s\n' "$2 $index $value" >"$entry/ours" || {
      unlock
      fail no_state "cannot write below $base"
    }
    value=$before
  fi
  note "setting $1"
  : >"$entry/by.$label"
  if [ "$value" != "$2" ] && ! printf '%s\n' "$2" >"/proc/sys/$1"; then
    unlock
    fail setting_failed "cannot write $2 to /proc/sys/$1"
  fi
  unlock
}

is_ours() { # PATH, whose entry is set: nobody has changed it since, nor all adapters' at once
  read -r ours ours_index ours_all <"$entry/ours" || return 1
  setting_index "$1"
  of_all "$1"
  [ "$index" = "$ours_index" ] || return 1
  [ "$value" = "$ours_all" ] || [ "$value" != "$ours" ] || return 1
  value_of "$1"
  [ "$value" = "$ours" ]
}

undo_setting() { # PATH: the last label puts back the old value, if the value is still ours
  setting_entry "$1"
  lock
  rm -f "$entry/by.$label"
  set +f
  set -- "$1" "$entry"/by.*
  set -f
  if [ ! -e "$2" ] && [ -e "$entry/ours" ]; then
    read -r old_value <"$entry/old"
    if is_ours "$1"; then
      printf '%s\n' "$old_value" >"/proc/sys/$1" || problem "/proc/sys/$1"
    fi
    rm -rf "$entry"
  fi
  unlock
}

was_off() { # PATH: it is 0, or only we made it something else
  setting_entry "$1"
  value_of "$1"
  if [ -e "$entry/old" ] && is_ours "$1"; then read -r value <"$entry/old"; fi
  [ "$value" = 0 ]
}
