# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Rights: what the login may do, and doing it by sudo.

find_rights() { # sets rights: uid, sudo or none; who prepared the device has tried sudo
  rights=none
  if [ "$own_id" = 0 ]; then
    rights=uid
    [ -z "$by_sudo" ] || rights=sudo
  elif ! has sudo; then
    rights_code=no_root
    rights_reason="$user is not root and there is no sudo: log in as root, or have the administrator make a tun for $user"
  elif [ "$mode" != adopt ] && ! sudo -n true </dev/null >/dev/null; then
    rights_code=no_sudo
    rights_reason="sudo wants a password: allow $user with NOPASSWD in /etc/sudoers.d, or log in as root"
  else
    escalate
  fi
}

# The same script for the same input, by root; cat goes on with the lines behind it (to look takes
# none, and ends before its input does). What is left here is a parent that does nothing.
escalate() {
  session_of "$$"
  { printf %s "$s" && case $mode in look) ;; *) exec cat ;; esac; } | exec sudo -n /bin/sh -c "$boot" "$0" \
    "${#s}" "$nonce" "$mode" "$label" "$lease" "${SSH_TUNNEL:-}" "$user" "$user_id" \
    "$ssh_connection"
  exit
}
