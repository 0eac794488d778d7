"""Which logins make a tunnel, and in which order they are tried.

::

    remote_device = "tunN"  ───────────────────────────>  -w :N    refused: end our stale
    root                    ───────────────────────────>  -w :any  session, and once more
    else                    prepare ── unit M ─────────>  -w :M    at once, if M is known
                               └── no rights, no agent ─>  -w :any  (a key may pin the unit)

What worked with a host is remembered, and tried first; so is a tunnel's unit, where nobody was
asked for anything on the way.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Protocol

from sshvpn.errors import SshvpnError, TunnelRefusedError, UnreachableError
from sshvpn.model import TunnelProfile
from sshvpn.remote.protocol import Facts, Mode
from sshvpn.system.openssh.stderr import DeviceRefusedError
from sshvpn.system.remote_agent.errors import (
    MADE_BY_ROOT,
    NoAgentError,
    NoRightsError,
    SilentAgentError,
)
from sshvpn.system.ssh.config import Config
from sshvpn.system.tunnel import second_login
from sshvpn.system.tunnel.agent_login import AgentLogin
from sshvpn.system.tunnel.host_memory import HostMemory

ANY = "any"
PREPARE = "prepare"
ASKED, IN_TURN = "asked", "in turn"
"""What is remembered in place of a unit: somebody was asked for something, the last time; the
second login cannot do without a person, though the first one can."""
_UNIT = re.compile(r"\d{1,9}")


def needs_agent(profile: TunnelProfile) -> bool:
    """Whether an agent has to tell what ``profile`` does not: the device, and its addresses."""
    return profile.remote_device is None or profile.address is None


class Dial(second_login.Dial, Protocol):
    """Makes the logins of one connection.

    ``label`` is the tunnel's. ``was_asked`` tells whether one of them asked for something.
    """

    label: str
    was_asked: bool

    async def command(self, mode: Mode) -> AgentLogin:
        """Log in without a tunnel, with an agent of ``mode``. The caller closes it."""
        ...

    async def tunnel(self, unit: str, *, needs_agent: bool) -> tuple[AgentLogin, Facts | None]:
        """Log in with a tunnel to the server's ``unit``; facts are None without an agent.

        The caller closes it. Raises as AgentLogin.facts where there is to be one.
        """
        ...


class TunnelLogins:
    """The logins that one profile may take. ``has_stood`` is set once one of them stood."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self.has_stood = False

    async def connect(
        self, profile: TunnelProfile, config: Config, dial: Dial
    ) -> tuple[AgentLogin, Facts | None]:
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

    async def _by_device(
        self, profile: TunnelProfile, device: str, user: str, dial: Dial
    ) -> tuple[AgentLogin, Facts | None]:
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

    async def _by_trying(self, host: str, dial: Dial) -> tuple[AgentLogin, Facts | None]:
        # The agent of the middle one ends a stale session that may have kept the first one out.
        order = [PREPARE, ANY]
        if self._memory.login_of(host) == ANY:
            order.insert(0, ANY)
        refusals: dict[str, TunnelRefusedError] = {}
        for way in order:
            made = await self._try(way, host, dial, refusals)
            if made is not None:
                self._memory.note(host, way)
                return made
        told = refusals[PREPARE]
        raise refusals[ANY] if isinstance(told, NoAgentError) else told

    async def _try(
        self, way: str, host: str, dial: Dial, refusals: dict[str, TunnelRefusedError]
    ) -> tuple[AgentLogin, Facts | None] | None:
        """Return what ``way`` gives, or None where the other one may give more, and note why."""
        try:
            if way == ANY:
                return await dial.tunnel(ANY, needs_agent=True)
            return await self._prepare(f"{host} {dial.label}", dial)
        except TunnelRefusedError as error:
            if way == PREPARE and not isinstance(error, (NoRightsError, NoAgentError)):
                raise
            refusals[way] = error
            return None

    async def _prepare(self, tunnel: str, dial: Dial) -> tuple[AgentLogin, Facts | None]:
        """Have a device made by sudo, and open it; the second agent takes over from the first."""
        guess = self._memory.login_of(tunnel) or ""
        second = second_login.SecondLogin(dial, guess) if _UNIT.fullmatch(guess) else None
        try:
            first = await dial.command(Mode.PREPARE)
            try:
                unit, facts = str(await first.unit()), await first.facts()
                taken = await second.take(unit) if second else None
                login, device = taken or await dial.prepared(unit)
            except BaseException:
                await first.leave()
                raise
        finally:
            if second is not None:
                await second.close()
        try:
            await first.close()
        except BaseException:
            await login.close()
            raise
        if guess != IN_TURN:
            was_refused = second is not None and second.was_refused
            known = ASKED if dial.was_asked else IN_TURN if was_refused else unit
            self._memory.note(tunnel, known)
        return login, replace(facts, device=device)


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
