# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# shellcheck disable=SC2016 # boot is expanded by another shell
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
