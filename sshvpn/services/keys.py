"""The options of authorized_keys(5) that limit a key to one service. Pure.

Single ``no-*`` options for a tunnel, not ``restrict``: servers newer than OpenSSH 10.0 refuse a
tunnel to a key that is restricted so.
"""

from __future__ import annotations

import re

from sshvpn.model import (
    Direction,
    ForwardProfile,
    ForwardSpec,
    TcpEndpoint,
    TunnelProfile,
    UnixEndpoint,
)

_NO = "no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc"
_NO_COMMAND = 'command="/bin/false"'
_NOTHING = ['permitopen="localhost:1"', 'permitlisten="localhost:1"']
"""No port is opened and none listened on: this one does not exist."""
_UNIT = re.compile(r"tun([0-9]+)")


def limits(profile: ForwardProfile | TunnelProfile) -> str:
    """Return what stands before the key in authorized_keys.

    A tunnel whose server's end the administrator made (``remote_device`` and ``address``) runs
    no command there, so its key may run none. Any other needs a shell for the agent, and so may
    its key.
    """
    if isinstance(profile, TunnelProfile):
        return _of_tunnel(profile)
    if profile.notebook is not None:  # it looks after Jupyter, at whatever port that has
        return "restrict,port-forwarding"
    if any(spec.direction is Direction.DYNAMIC or _is_unix(spec) for spec in profile.specs):
        return f"restrict,port-forwarding,{_NO_COMMAND}"
    return ",".join(["restrict", "port-forwarding", *_opens(profile.specs), _NO_COMMAND])


def _of_tunnel(profile: TunnelProfile) -> str:
    unit = _UNIT.fullmatch(profile.remote_device or "")
    if unit is None or profile.address is None:
        return _NO
    opens = _opens(profile.publish) or _NOTHING
    return ",".join([f'tunnel="{unit[1]}"', _NO_COMMAND, _NO, *opens])


def _is_unix(spec: ForwardSpec) -> bool:
    return isinstance(spec.target, UnixEndpoint) or isinstance(spec.listen, UnixEndpoint)


def _opens(specs: tuple[ForwardSpec, ...]) -> list[str]:
    """Return what the key may open at the server; one way that is not used is shut."""
    opened = [
        str(spec.target)
        for spec in specs
        if spec.direction is Direction.LOCAL and isinstance(spec.target, TcpEndpoint)
    ]
    listened = [
        f"{_address(spec.bind)}:{spec.listen or '*'}"
        for spec in specs
        if spec.direction is Direction.REMOTE
    ]
    if not opened and not listened:
        return []
    opens = [f'permitopen="{where}"' for where in opened]
    listens = [f'permitlisten="{where}"' for where in listened]
    return [*(opens or _NOTHING[:1]), *(listens or _NOTHING[1:])]


def _address(bind: str | None) -> str:
    return "localhost" if bind is None else bind
