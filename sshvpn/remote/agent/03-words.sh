# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# What words may look like.

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
