"""The outside as sessions are handed it: engines, adapters, trust, the way to the server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.system import paths

if TYPE_CHECKING:
    from sshvpn.boundary import ForwardEngine, Interfaces, TrustStore, Way
    from sshvpn.forwarding import ForwardSession
    from sshvpn.model import EngineName
    from sshvpn.tunnel.session import TunnelSession


def make_engine(name: EngineName, directory: Path | None = None) -> ForwardEngine:
    """Return the engine: ``auto`` is the system's OpenSSH where there is one."""
    from sshvpn.model import EngineName
    from sshvpn.system.openssh.engine import OpensshEngine
    from sshvpn.system.process import find_ssh

    if name is EngineName.OPENSSH or (name is EngineName.AUTO and find_ssh()):
        return OpensshEngine(directory)
    from sshvpn.system.sshtunnel.engine import SshtunnelEngine

    return SshtunnelEngine()


def make_interfaces() -> Interfaces:
    """Return the adapters of this machine."""
    from sshvpn.system.network.interfaces import SystemInterfaces

    return SystemInterfaces()


def ipv4_routers(interfaces: Iterable[str]) -> dict[str, str]:
    """Return the router of each adapter's IPv4 default route, of those that have one."""
    from sshvpn.system.network.interfaces import SystemInterfaces

    system = SystemInterfaces()
    found = ((name, system.ipv4_router(name)) for name in dict.fromkeys(interfaces))
    return {name: router for name, router in found if router is not None}


def make_trust_store() -> TrustStore:
    """Return the networks that this user has said yes to."""
    from sshvpn.lan.trust import FileTrustStore

    return FileTrustStore(paths.state_dir() / "trust.json")


def make_way(session: ForwardSession | TunnelSession) -> Way:
    """Return the way to the server of ``session``'s profile, whatever that is just then."""
    from sshvpn.system.network.way import SystemWay

    return SystemWay(lambda: (session.profile.destination, session.profile.ssh))
