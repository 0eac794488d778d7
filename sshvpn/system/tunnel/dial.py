"""The logins of one tunnel's connection, by the system's ssh: its words, its file, its agent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import TunnelRefusedError
from sshvpn.model import TunnelProfile
from sshvpn.plan import marks
from sshvpn.remote.protocol import Device, Facts, Mode
from sshvpn.system.openssh.config_file import config_text, has_forwards
from sshvpn.system.openssh.handover import Target, ours_for
from sshvpn.system.openssh.held import Gate
from sshvpn.system.openssh.process import SshProcess
from sshvpn.system.openssh.words import command_words, tunnel_words
from sshvpn.system.process import find_ssh
from sshvpn.system.remote_agent.conversation import RemoteAgent
from sshvpn.system.ssh.config import Config
from sshvpn.system.ssh.last_address import LastAddress
from sshvpn.system.tunnel.agent_login import AgentLogin, Timings
from sshvpn.system.tunnel.second_login import Prepared


@dataclass
class TunnelDial:
    """Implements logins.Dial.

    ``config`` is what ``ssh -G`` resolved with KEEP_FORWARDS, ``directory`` a private one, or
    None for temporary ones. ``device`` tells our device's unit: to be set before a tunnel is made,
    which alone waits for it.
    ``address_words`` are of ``last_address``, which is told where each login has led to.
    ``was_asked`` and ``was_answered`` tell whether one of the logins asked for something, and
    whether somebody answered.
    """

    profile: TunnelProfile
    config: Config
    label: str
    prompter: Prompter | None
    directory: Path | None
    timings: Timings
    last_address: LastAddress
    address_words: tuple[str, ...]
    device: asyncio.Future[int] | None = field(default=None, init=False)
    was_asked: bool = field(default=False, init=False)
    was_answered: bool = field(default=False, init=False)
    _has_server: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def command(self, mode: Mode) -> AgentLogin:
        """Log in without a tunnel; see logins.Dial."""
        login = self._login(mode, "command")
        login.process.has_server = self._has_server
        control = login.process.control
        words = command_words(self.config, control, may_prompt=self.prompter is not None)
        return await self._log_in(login, (*words, *self._names()), self.prompter)

    async def stream(self, mode: Mode, device: str | None) -> AgentLogin:
        """Log in without a tunnel, with an agent that has a device: DEVICE, or one of its own.

        The caller hears its facts, and closes it.
        """
        login = self._login(mode, "mux", device)
        words = command_words(
            self.config, login.process.control, may_prompt=self.prompter is not None
        )
        return await self._log_in(login, (*words, *self._names()), self.prompter)

    async def pump(self, control: str, command: str, stdin: int, stdout: int) -> SshProcess:
        """Log in once more, to run COMMAND with these descriptors. The caller closes it."""
        process = SshProcess(self.directory, control)
        words = command_words(self.config, process.control, may_prompt=self.prompter is not None)
        try:
            await process.log_in(
                (*words, *self._names(), command),
                self.prompter,
                ours=self._ours(),
                stdin=stdin,
                stdout=stdout,
            )
        except BaseException:
            await process.close()
            raise
        process.settle()
        self._note_asked(process)
        return process

    async def tunnel(self, unit: str, *, needs_agent: bool) -> tuple[AgentLogin, Facts | None]:
        """Log in with a tunnel; see logins.Dial."""
        login = await self._log_in_with_tunnel(Mode.SERVE, unit, self.prompter)
        try:
            facts = await (login.facts() if needs_agent else login.facts_unless_limited())
            if facts is not None:
                device_of(facts)
        except BaseException:
            await login.close()
            raise
        login.process.settle()
        return login, facts

    async def prepared(self, unit: str, gate: Gate | None = None) -> Prepared:
        """Log in with a tunnel to a device that is made for it; see logins.Dial."""
        if gate is not None:  # what makes the device is to be the server's first
            await self._has_server.wait()
        prompter = self.prompter if gate is None else None
        login = await self._log_in_with_tunnel(Mode.ADOPT, unit, prompter, gate)
        try:
            device = device_of(await login.facts())
        except BaseException:
            await login.close()
            raise
        login.process.settle()
        return login, device

    async def _log_in_with_tunnel(
        self,
        mode: Mode,
        unit: str,
        prompter: Prompter | None,
        gate: Gate | None = None,
    ) -> AgentLogin:
        if self.device is None:
            raise ValueError("a tunnel without a device of ours")
        own_unit = marks.ssh_unit(await asyncio.shield(self.device))
        login = self._login(mode, "mux", gate=gate)
        words = tunnel_words(
            self.config,
            login.process.control,
            f"{own_unit}:{unit}",
            may_prompt=prompter is not None,
        )
        words = (*words, *self._users_words(login.process.directory))
        return await self._log_in(login, words, prompter)

    def _login(
        self,
        mode: Mode,
        control: str,
        device: str | None = None,
        gate: Gate | None = None,
    ) -> AgentLogin:
        timings = self.timings
        agent = RemoteAgent(
            mode,
            self.label,
            self.config["user"][0],
            device=device,
            lease_s=timings.lease_s,
            beat_s=timings.beat_s,
        )
        return AgentLogin(self.directory, control, agent, timings, gate)

    async def _log_in(
        self, login: AgentLogin, words: Sequence[str], prompter: Prompter | None
    ) -> AgentLogin:
        try:
            await login.log_in(words, prompter, self._ours())
        except BaseException:
            await login.close()
            raise
        self._note_asked(login.process)
        self.last_address.note(login.process.peer())
        return login

    def _note_asked(self, process: SshProcess) -> None:
        self.was_asked = self.was_asked or process.was_asked
        self.was_answered = self.was_answered or process.was_answered

    def _ours(self) -> Target | str:
        return ours_for(self.config, self.last_address.leads_to if self.address_words else None)

    def _names(self) -> tuple[str, ...]:
        """Return the user's words, behind those that lead to the last good address."""
        ssh, destination = self.profile.ssh, self.profile.destination
        return (*self.address_words, *ssh.ssh_words, *destination.ssh_words)

    def _users_words(self, directory: Path) -> tuple[str, ...]:
        """Return the same; where forwards must go, with a file that has none."""
        if not has_forwards(self.config):
            return self._names()
        ssh, destination = self.profile.ssh, self.profile.destination
        original = () if ssh.config_file is None else ("-F", ssh.config_file)
        file = directory / "ssh_config"
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(config_text(self.config, find_ssh() or "ssh", original), "utf-8")
        return (*self.address_words, "-F", str(file), "--", destination.host)


def device_of(facts: Facts) -> Device:
    """Return the device of the agent's session; raises TunnelRefusedError where it has none."""
    if facts.device is None:
        raise TunnelRefusedError(
            "the server's session has no tun device, though ssh has a tunnel",
            "see whether that login's start-up files take SSH_TUNNEL away",
        )
    return facts.device
