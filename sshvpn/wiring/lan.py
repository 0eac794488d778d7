"""What a session has to do with the machines of the LAN: trust, announcements, the portal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.model import TunnelProfile
from sshvpn.wiring.outside import make_interfaces, make_trust_store

if TYPE_CHECKING:
    from sshvpn.announcing import Announcer
    from sshvpn.sharing import LanSharing
    from sshvpn.wiring.places import Profile


def trust_lan(profile: Profile) -> None:
    """Remember the networks of the LAN that are there now as ``--lan`` does."""
    import asyncio

    asyncio.run(_sharing(profile).settle(None, trusts=True))


def check_portal(profile: Profile) -> None:
    """Raise TakenError or PrivilegeError where the portal's port cannot be had."""
    from sshvpn.model import TcpEndpoint
    from sshvpn.system.network import local_listener

    if profile.wishes.portal:
        for here in _sharing(profile).addresses():
            local_listener.probe(TcpEndpoint(here.address, profile.wishes.portal))


def _sharing(profile: Profile) -> LanSharing:
    from sshvpn.sharing import LanSharing

    only = profile.lan_interfaces if isinstance(profile, TunnelProfile) else ()
    return LanSharing(make_interfaces(), make_trust_store(), only=only)


def make_announcer(profile: Profile, directory: Path) -> Announcer:
    """Return who tells the LAN of ``profile``'s session, where it is shared."""
    from sshvpn.announcing import Announcer
    from sshvpn.control import secret_of
    from sshvpn.system.lan_process import LanProcess

    trust = make_trust_store()
    return Announcer(
        profile,
        make_interfaces(),
        trust,
        lambda: LanProcess(profile.name),
        lambda: secret_of(directory).get("token", ""),
    )


def qr_code(text: str) -> str:
    """Return ``text`` as a QR code to be printed on a terminal."""
    from sshvpn.lan.qr import terminal_qr

    return terminal_qr(text)
