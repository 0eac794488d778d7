"""What the sshtunnel library has no way to carry. Pure."""

from __future__ import annotations

from sshvpn.model import Direction, ForwardSpec, UnixEndpoint

_DIRECTIONS = {Direction.REMOTE: "-R", Direction.DYNAMIC: "-D"}


def not_carried(spec: ForwardSpec) -> str | None:
    """Return the message that the sshtunnel engine does not carry ``spec``; None where it does."""
    if spec.direction in _DIRECTIONS:
        what = f"{_DIRECTIONS[spec.direction]} {spec.text}"
    elif isinstance(spec.target, UnixEndpoint):
        what = f"{spec.text}: a unix socket on the server"
    else:
        return None
    return f"the sshtunnel engine does not carry {what}"
