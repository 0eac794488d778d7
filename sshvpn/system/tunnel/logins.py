"""Which logins make a tunnel, and in which order they are tried.

::

    remote_device = "tunN"  ───────────────────────────>  -w :N    refused: end our stale
    root                    ───────────────────────────>  -w :any  session, and once more
    else                    prepare ── unit M ─────────>  -w :M
                               └── no rights, no agent ─>  -w :any  (a key may pin the unit)

What worked with a host is remembered, and tried first. Where preparing did, the second login begins
while the first one still has the device made: it wants the unit that a server nearly always gives,
and takes longer than the device. Where it came too soon, or the unit is another, it is made again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeAlias

from sshvpn.errors import SshvpnError, TunnelRefusedError, UnreachableError
from sshvpn.model import TunnelProfile
from sshvpn.remote.protocol import FIRST_UNIT, Facts, Mode
from sshvpn.system.openssh.stderr import DeviceRefusedError
from sshvpn.system.remote_agent.errors import (
    MADE_BY_ROOT,
    NoAgentError,
    NoRightsError,
    SilentAgentError,
)
from sshvpn.system.ssh.config import Config
from sshvpn.system.tunnel.agent_login import AgentLogin
from sshvpn.system.tunnel.host_memory import HostMemory

ANY = "any"
PREPARE = "prepare"

Made: TypeAlias = "tuple[AgentLogin, Facts | None]"


def needs_agent(profile: TunnelProfile) -> bool:
    """Whether an agent has to tell what ``profile`` does not: the device, and its addresses."""
    return profile.remote_device is None or profile.address is None


class Dial(Protocol):
    """Makes the logins of one connection."""

    @property
    def was_answered(self) -> bool:
        """Whether somebody answered a question of one of them."""
        ...

    async def command(self, mode: Mode) -> AgentLogin:
        """Log in without a tunnel, with an agent of ``mode``. The caller closes it."""
        ...

    async def tunnel(self, unit: str, *, needs_agent: bool) -> Made:
        """Log in with a tunnel to the server's ``unit``; facts are None without an agent.

        The caller closes it. Raises as AgentLogin.facts where there is to be one.
        """
        ...


class TunnelLogins:
    """The logins that one profile may take. ``has_stood`` is set once one of them stood."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self.has_stood = False

    async def connect(self, profile: TunnelProfile, config: Config, dial: Dial) -> Made:
        """Log in one way or another. Raises why none of them gives a tunnel."""
        user = config["user"][0]
        if profile.remote_device is not None:
            made = await self._by_device(profile, profile.remote_device, user, dial)
        elif user == "root":
            made = await dial.tunnel(ANY, needs_agent=True)
        else:
            host = f"{user}@{config['hostname'][0]}:{config['port'][0]}"
            made = await self._by_trying(host, dial)
        self.has_stood = True
        return made

    # A device of the administrator's ----------------------------------------------------

    async def _by_device(self, profile: TunnelProfile, device: str, user: str, dial: Dial) -> Made:
        unit = device.removeprefix("tun")
        try:
            return await dial.tunnel(unit, needs_agent=needs_agent(profile))
        except DeviceRefusedError:
            pass
        # A session that was cut off may still have it, until the server gives it up.
        has_agent = await _end_stale(dial)
        try:
            return await dial.tunnel(unit, needs_agent=needs_agent(profile))
        except DeviceRefusedError as error:
            raise self._device_error(device, user, has_agent=has_agent) from error

    def _device_error(self, device: str, user: str, *, has_agent: bool) -> SshvpnError:
        if self.has_stood and not has_agent:
            return UnreachableError(
                f"{device} is still held at the server, by the session that was lost",
                "ClientAliveInterval 15 in the server's sshd_config ends such sessions sooner",
            )
        return DeviceRefusedError(
            f"{user} could not open {device} at the server: absent, taken, or not {user}'s",
            f"{MADE_BY_ROOT}ip tuntap add dev {device} mode tun user {user}",
        )

    # Any other login --------------------------------------------------------------------

    async def _by_trying(self, host: str, dial: Dial) -> Made:
        # The agent of the middle one ends a stale session that may have kept the first one out.
        order = [PREPARE, ANY]
        if self._memory.login_of(host) == ANY:
            order.insert(0, ANY)
        # A connection that was lost may still hold that device, or have it removed just then.
        is_known = self._memory.login_of(host) == PREPARE and not self.has_stood
        guess = str(FIRST_UNIT) if is_known else None
        refusals: dict[str, TunnelRefusedError] = {}
        for way in order:
            made = await _try(way, dial, guess, refusals)
            if made is not None:
                self._memory.note(host, way)
                return made
        told = refusals[PREPARE]
        raise refusals[ANY] if isinstance(told, NoAgentError) else told


async def _try(
    way: str, dial: Dial, guess: str | None, refusals: dict[str, TunnelRefusedError]
) -> Made | None:
    """Return what ``way`` gives, or None where the other one may give more, and note why."""
    try:
        if way == ANY:
            return await dial.tunnel(ANY, needs_agent=True)
        return await _prepare(dial, guess)
    except TunnelRefusedError as error:
        if way == PREPARE and not isinstance(error, (NoRightsError, NoAgentError)):
            raise
        refusals[way] = error
        return None


async def _prepare(dial: Dial, guess: str | None) -> Made:
    """Have a device made by sudo, and open it; the second agent takes over from the first."""
    first = await dial.command(Mode.PREPARE)
    # Who has just typed a password is not asked for it in vain.
    early = None if guess is None or dial.was_answered else _Early(dial, guess)
    try:
        unit = str(await first.unit())
        made = await early.made(unit) if early else None
        if made is None:
            made = await dial.tunnel(unit, needs_agent=True)
    except BaseException:
        if early:
            await early.dismiss()
        await first.leave()
        raise
    try:
        await first.close()
    except BaseException:
        await made[0].close()
        raise
    return made


class _Early:
    """The second login, begun before it is known that the server's unit is ``unit``."""

    def __init__(self, dial: Dial, unit: str) -> None:
        self._unit = unit
        self._task = asyncio.create_task(dial.tunnel(unit, needs_agent=True))

    async def made(self, unit: str) -> Made | None:
        """Return what it gives for the server's ``unit``; None, and it has ended, for nothing."""
        if unit == self._unit:
            try:
                return await self._task
            except SshvpnError:
                return None
        await self.dismiss()
        return None

    async def dismiss(self) -> None:
        """End it, whatever it has come to."""
        self._task.cancel()
        (made,) = await asyncio.gather(self._task, return_exceptions=True)
        if not isinstance(made, BaseException):
            await made[0].close()


async def _end_stale(dial: Dial) -> bool:
    """End our own session that may still be there; return whether an agent could see to it."""
    sweeper = await dial.command(Mode.SWEEP)
    try:
        await sweeper.facts_or_end()
    except (NoAgentError, SilentAgentError):
        return False
    finally:
        await sweeper.leave()
    return True
