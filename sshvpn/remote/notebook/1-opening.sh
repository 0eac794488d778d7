# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC2088 # a tilde that comes in is expanded here
#
# The server's side of `sshvpn notebook`: finds Jupyter's servers of this login, starts one so
# that it outlives the login, ends one. POSIX sh; dash, bash, busybox. Its protocol stands in
# docs/notebook-protocol.md, its client's half in notebook.py.
#
#   sh -c "$boot" sshvpn-notebook LENGTH NONCE
#
# No word that comes in is ever evaluated. Jupyter itself tells what runs: it writes
# jpserver-PID.json, readable by its user alone, with its port and token (nbserver-PID.json
# before Notebook 7).

unset CDPATH
nonce=${SSHVPN_NONCE:-$2}
nl='
'
user=$(id -u)
state=${SSHVPN_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/sshvpn/notebooks}

say() { printf '%s %s\n' "$nonce" "$*"; }

fail() { # CODE TEXT
  say "error $*"
  exit 1
}

nap() { sleep 0.05 || sleep 1; }

start_of() { # PID: sets start (clock ticks since boot) and sid (its session)
  start=0 sid=0
  [ -r /proc/self/stat ] || return 0
  IFS= read -r stat_line <"/proc/$1/stat" || return 1
  # shellcheck disable=SC2086 # split on purpose; the name before ")" may hold anything
  set -- ${stat_line##*) }
  [ "$1" != Z ] || return 1
  sid=$4 start=${20}
} 2>/dev/null

is_alive() { kill -0 "$1" 2>/dev/null && start_of "$1"; }

expanded() { # PATH: sets path; relative to the home directory, as the login is
  case $1 in
  '~') path=$HOME ;;
  '~/'*) path=$HOME/${1#'~/'} ;;
  /*) path=$1 ;;
  *) path=$HOME/$1 ;;
  esac
}
