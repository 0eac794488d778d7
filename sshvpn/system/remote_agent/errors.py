"""What the agent on the server reports, turned into the errors of sshvpn and what mends it; pure.

The codes are those of docs/agent-protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from sshvpn.errors import (
    ConnectionLostError,
    SshvpnError,
    TunnelFailedError,
    TunnelRefusedError,
    UnreachableError,
)
from sshvpn.remote.protocol import Failed

MADE_BY_ROOT = "on the server, as root: "


class NoRightsError(TunnelRefusedError):
    """The login may neither be root on the server nor become it."""


class NoAgentError(TunnelRefusedError):
    """The login reached something else than our agent, as a key with a forced command does."""


class SilentAgentError(UnreachableError):
    """Nothing at all was heard: a slow link or server, perhaps a command that only waits."""


_NO_RIGHTS = ("no_root", "no_sudo")
_PASSING = ("lease", "no_adapter", "no_device")
"""The next connection finds the server as it is then."""
_MENDS: Mapping[str, str] = {
    "no_tun": MADE_BY_ROOT + "modprobe tun",
    "no_ip": MADE_BY_ROOT + "apt install iproute2",
    "no_firewall": MADE_BY_ROOT + "apt install nftables",
    "no_sudo": MADE_BY_ROOT
    + "echo '{login} ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/{login}; or log in as root",
    "no_root": MADE_BY_ROOT
    + "ip tuntap add dev tun8 mode tun user {login} && ip address add 10.83.0.2/30 dev tun8 && "
    'ip link set tun8 up; here: remote_device = "tun8"; or log in as root',
    "no_tuntap": "the server's kernel or container does not allow it; ask its administrator",
    "no_ip_tuntap": MADE_BY_ROOT + "apt install iproute2; or log in as root with --transport w, "
    "or name a tun that is there: remote_device",
    "delivery": "something in that login's start-up files reads the standard input",
}


def error_of(failed: Failed, login: str) -> SshvpnError:
    """Return what ``failed`` means to the user ``login``."""
    text = failed.text or failed.code
    if failed.code in _PASSING:
        return ConnectionLostError(f"the agent on the server gave up: {text}")
    hint = _MENDS.get(failed.code, "").format(login=login)
    # The agent has an advice of its own behind a colon; ours is what can be typed.
    message = text.partition(": ")[0] if hint else text
    kind: type[TunnelRefusedError] = TunnelRefusedError
    if failed.code in _NO_RIGHTS:
        kind = NoRightsError
    elif failed.code.endswith("_failed"):
        kind = TunnelFailedError
    return kind(f"the server says: {message}", hint)
