"""Services of systemd: installed, looked at, removed; and whether one could log in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.model import ForwardProfile, TunnelProfile
from sshvpn.wiring import terminal
from sshvpn.wiring.outside import make_engine, make_interfaces
from sshvpn.wiring.tunnels import identity_of

if TYPE_CHECKING:
    from sshvpn.services import Kind
    from sshvpn.system.systemd.journal import Follower
    from sshvpn.system.systemd.manager import Services, SystemServices
    from sshvpn.wiring.places import Profile


_installers: list[SystemServices] = []
"""What installs services, started by root for the user it then became."""


def leave_root() -> None:
    """Become the user who called sudo, if any, with root's part started before; else nothing."""
    from sshvpn.system.privilege.actor import become_caller, caller
    from sshvpn.system.systemd.manager import SystemServices

    uid = caller()
    if uid is None:
        return
    _installers.append(SystemServices.begin(uid=uid))
    become_caller()


def manager_for(kind: Kind) -> Services:
    """Return the service manager for ``kind``, to be closed; sudo may ask at the terminal.

    Raises SshvpnError for what stands in the way, PrivilegeError where sudo refuses.
    """
    from sshvpn.system.systemd import manager

    manager.check(kind)
    if _installers and not kind.is_users:
        return _installers.pop()
    return manager.services(kind, at_terminal=terminal.prompter() is not None)


def profile_text(profile: Profile) -> str:
    """Return the configuration that a service of ``profile`` reads. Raises UsageError."""
    from sshvpn.config import render
    from sshvpn.config.from_profile import of_profile

    return render(of_profile(profile))


def state_of(kind: Kind, name: str) -> Mapping[str, str]:
    """Return how systemd sees a service: its properties that tell how it stands."""
    from sshvpn.system.systemd import manager

    return manager.state_of(kind, name)


def enabled() -> list[tuple[Kind, str]]:
    """Return the services of this user, or (as root) of the system."""
    from sshvpn.system.systemd import manager

    return list(manager.enabled())


def configuration(kind: Kind, name: str) -> Path:
    """Return the configuration of its own that a service reads."""
    from sshvpn.system.systemd import manager

    return manager.configuration(kind, name)


def key(name: str, *, make: bool) -> Path | None:
    """Return the path of the key of the service NAME; None where there is none and none is made."""
    from sshvpn.system.systemd import key as keys

    path = keys.path_of(name)
    return keys.ensure(name) if make else path if path.exists() else None


def key_line(name: str) -> str:
    """Return the public half of that key. Raises SshvpnError."""
    from sshvpn.system.systemd import key as keys

    return keys.public_line(name)


def remove_key(name: str) -> bool:
    """Remove that key, and return whether there was one."""
    from sshvpn.system.systemd import key as keys

    return keys.remove(name)


def fit(profile: ForwardProfile, name: str) -> str | None:
    """Let the user's service NAME do without namespaces, where it has just ended of them.

    ``profile`` is what it runs. Return why; None where it has not. Raises SshvpnError.
    """
    from sshvpn.services import KINDS
    from sshvpn.system.systemd import relaxed

    words = (*profile.ssh.ssh_words, *profile.destination.ssh_words)
    return relaxed.fit(KINDS["forward"], name, words)


def unit_of_process(pid: int) -> str | None:
    """Return the systemd service that a process is part of, None for none."""
    from sshvpn.system.systemd import journal

    return journal.own_unit(str(pid))


def print_journal(session: str, unit: str) -> None:
    """Print what the journal has of ``unit``, which runs a session of that kind.

    Raises SshvpnError where this user may not read it.
    """
    from sshvpn.services import KINDS
    from sshvpn.system.systemd import journal

    journal.print_unit(unit, is_users=KINDS[session].is_users)


def follow_journal(session: str, unit: str) -> Follower:
    """Print that, and what comes, until it is closed. Raises SshvpnError."""
    from sshvpn.services import KINDS
    from sshvpn.system.systemd import journal

    return journal.Follower(unit, is_users=KINDS[session].is_users)


def check_adapters(profile: Profile) -> None:
    """Raise UsageError for an adapter that is not there now: the service would wait for it."""
    from sshvpn.forwarding import refuse_unknown_binds
    from sshvpn.tunnel.first_look import refuse_unknown_adapters

    known = make_interfaces().names()
    if isinstance(profile, TunnelProfile):
        refuse_unknown_adapters(profile, known)
    else:
        refuse_unknown_binds(profile, known)


def try_login(profile: Profile) -> None:
    """Log in as a service would, asking nobody, and change nothing. Raises why it cannot."""
    import asyncio

    asyncio.run(_try_login(profile))


async def _try_login(profile: Profile) -> None:
    if isinstance(profile, TunnelProfile):
        from sshvpn.system.remote_agent.errors import NoAgentError, SilentAgentError
        from sshvpn.system.tunnel.w import OpensshCarrier

        carrier = OpensshCarrier(None, None)
        await carrier.check(profile)
        try:
            await carrier.look(profile, identity_of(profile).remote_label, None)
        except (NoAgentError, SilentAgentError):
            # A key that is limited to its device runs no agent, and needs none.
            if profile.remote_device is None or profile.address is None:
                raise
        return
    engine = make_engine(profile.engine)
    await engine.check(profile)
    await (await engine.connect(profile, None)).close()
