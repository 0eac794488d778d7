"""The kinds of services: a tunnel is the system's, what needs no privilege its user's. Pure."""

from __future__ import annotations

import re

from sshvpn.frozen import dataclass

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,39}")
"""What systemd takes as an instance, and what leaves room for sockets below /run (sun_path)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of session as a service.

    ``unit`` is the template's name without ``@.service``. ``command`` are the words of sshvpn
    that run the profile of the service's own configuration; ``title`` is for people.
    """

    session: str
    unit: str
    is_users: bool
    command: tuple[str, ...]
    title: str

    def unit_of(self, name: str) -> str:
        """Return the name of the service NAME's unit."""
        return f"{self.unit}@{name}.service"

    @property
    def template(self) -> str:
        """The file name of the template."""
        return f"{self.unit}@.service"


TUNNEL = Kind("tunnel", "sshvpn", False, ("up", "--foreground"), "VPN over SSH")  # noqa: FBT003
FORWARD = Kind("forward", "sshvpn", True, ("forward",), "port forwards over SSH")  # noqa: FBT003
KINDS = {kind.session: kind for kind in (TUNNEL, FORWARD)}


def is_service_name(name: str) -> bool:
    """Whether a service can be called so: it is a part of file names and of a unit's name."""
    return bool(_NAME.fullmatch(name))
