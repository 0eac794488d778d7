# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Starting, in this login: the lock, the token, the login shell.

# The stage runs below a login shell, whose environment it takes: a conda, a venv, a pyenv, a
# module are on nobody else's PATH. It is given by the environment, since quoting differs between
# shells; this line means the same to sh, bash, zsh, fish and csh.
stage="exec /bin/sh -c 'eval \"\$SSHVPN_STAGE\"'"

login_shell() { # OPTION...: runs the stage; its status, 9 where it was not reached, 10: in time
  rm -f "$work/begun"
  case ${SHELL##*/} in
  csh | tcsh) printf '%s\n' "$stage" | $own_session "$SHELL" -l & ;; # its -l stands alone
  *) $own_session "$SHELL" "$@" -c "$stage" </dev/null & ;;
  esac
  shell=$!
  ticks=400
  while [ ! -e "$work/begun" ] && is_alive "$shell"; do
    ticks=$((ticks - 1))
    if [ "$ticks" -eq 0 ]; then
      kill ${own_session:+-TERM "-$shell"} || kill "$shell"
      wait "$shell"
      return 10
    fi
    nap
  done
  wait "$shell"
  status=$?
  [ -e "$work/begun" ] || status=9
  return "$status"
} 2>/dev/null

wait_for_starter() { # somebody else starts one just now, or was killed while doing so
  tries=40
  while [ -d "$work" ]; do
    starter=
    read -r starter started 2>/dev/null <"$work/starter"
    if [ -z "$starter" ]; then
      tries=$((tries - 1))
      [ "$tries" -gt 0 ] || break
    else
      is_alive "$starter" && [ "$start" = "$started" ] || break
    fi
    nap
  done
  [ ! -d "$work" ] || rm -rf "$work"
}

start() {
  (umask 077 && mkdir -p "$state") || fail "no_state $state"
  work=$state/starting
  if ! mkdir -m 700 "$work" 2>/dev/null; then
    wait_for_starter
    look
    return
  fi
  trap 'rm -rf "$work"' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  start_of "$$"
  me="$$ $start"
  echo "$me" >"$work/starter"
  (umask 077 && printf '%s' "$token" >"$work/token")
  own_session=$(command -v setsid) && own_session=setsid
  # It was set for reading the script, and is not Jupyter's.
  unset LC_ALL
  export SSHVPN_STARTER="$me" SSHVPN_STAGE="$text" SSHVPN_NONCE="$nonce" SSHVPN_STATE="$state" SSHVPN_HERE="$here"
  export SSHVPN_DIRECTORY="$directory" SSHVPN_WAY="$way" SSHVPN_WORDS="$words" SSHVPN_SHARED="$shared"
  export SSHVPN_WITHIN="$within"
  : "${SHELL:=/bin/sh}"
  export SHELL
  login_shell -l
  status=$?
  case $status:${SHELL##*/} in
  *:csh | *:tcsh) ;;
  # Where conda and pyenv are set up for interactive shells only, as they do themselves.
  8:* | 9:*)
    login_shell -l -i
    status=$?
    ;;
  esac
  case $status in
  0) ;;
  8) fail "none $way" ;;
  9 | 10) fail "no_login_shell $SHELL" ;;
  *) exit 1 ;; # it has said why
  esac
  rm -rf "$work"
  trap - EXIT
}
