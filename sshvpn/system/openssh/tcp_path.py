"""Makes the TCP connection under an ssh fit for long and lossy paths, at both its ends.

::

    our end      the socket of ssh, or of its proxy: borrowed from the process (pidfd_getfd(2));
                 where the kernel does not allow that, one of ours that was handed to ssh (handover)
    the other    the socket of sshd: by the agent, which must be root there for it

The connection stands already, and nothing but this one socket at each end is touched: no route,
no setting of a kernel. So what was set goes with the connection, and a reconnect sets it anew.
Behind a jump host the connection that is tuned at our end leads to that host, and the one at the
other end comes from there; what the jump host sends by is its own choice.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from sshvpn.errors import SshvpnError
from sshvpn.model import TcpPath
from sshvpn.remote import tcp_socket
from sshvpn.remote.protocol import Mode, TcpOptions, Tuned
from sshvpn.system.openssh.process import SshProcess
from sshvpn.system.remote_agent.conversation import RemoteAgent
from sshvpn.system.ssh.config import Config

log = logging.getLogger("sshvpn.tcp")

Chooser = Callable[[socket.socket, str], Awaitable[None]]
"""Lets a socket be paced by a congestion control, with more rights. Raises an SshvpnError."""

LABEL = "tcp"
"""Of no tunnel: in this mode the agent keeps nothing."""
_ANSWER_S = 5.0
_LEAST_TIMEOUT_S, _LONGEST_TIMEOUT_S = 30, 86400
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_BEST = "bbr"


def options_for(config: Config) -> TcpOptions:
    """Return the options of a connection that ``config`` (of ``ssh -G``) made.

    Nobody waits longer for data to be acknowledged than ssh waits for a sign of life, where the
    user said how long that is.
    """
    interval = int(config.get("serveraliveinterval", ("0",))[0])
    count = int(config.get("serveralivecountmax", ("3",))[0])
    return TcpOptions(user_timeout_s(interval * (count + 1)))


def user_timeout_s(patience_s: int) -> int:
    """Return after how long nobody waits for an acknowledgement any more, in seconds."""
    return min(_LONGEST_TIMEOUT_S, max(_LEAST_TIMEOUT_S, patience_s))


async def tune_here(
    process: SshProcess, options: TcpOptions, chooser: Chooser | None
) -> tuple[str | None, str]:
    """Tune our end of ``process``'s connection; return as :func:`tune_socket`.

    How the connection was made is told besides.
    """
    with process.connection() as sock:
        name, note = await tune_socket(sock, options, chooser)
    return name, "; ".join(part for part in (note, process.way) if part)


async def tune_socket(
    sock: socket.socket | None, options: TcpOptions, chooser: Chooser | None
) -> tuple[str | None, str]:
    """Tune our end's socket; return what paces it, and why nothing better.

    What only root may choose is left to ``chooser``, where there is one.
    """
    if sock is None:
        return None, "the kernel does not let us at ssh's TCP connection, or it is another's"
    try:
        name = tcp_socket.tune(sock, options.user_timeout_s, options.notsent_lowat)
        if chooser is not None:
            await _choose_better(sock, name, chooser)
        name = tcp_socket.congestion_control(sock)
    except OSError as error:
        return None, f"ssh's TCP connection could not be tuned: {error.strerror}"
    return name, _why_not_better(name)


async def _choose_better(sock: socket.socket, than: str, chooser: Chooser) -> None:
    for better in tcp_socket.BETTER.get(than, ()):
        try:
            await chooser(sock, better)
        except SshvpnError as error:  # noqa: PERF203 (each is tried by itself)
            log.debug("%s is not to be had: %s", better, error)
        else:
            return


def _why_not_better(name: str) -> str:
    if name not in tcp_socket.BETTER:
        return ""
    try:
        has_best = _BEST in _AVAILABLE.read_text(encoding="ascii").split()
    except OSError:
        has_best = False
    if has_best:
        return f"{_BEST} is root's alone here: add it to net.ipv4.tcp_allowed_congestion_control"
    return f"{_BEST} is not in the kernel here, or not loaded: as root, modprobe tcp_{_BEST}"


def outcome(here: tuple[str | None, str], there: Tuned) -> TcpPath:
    """Return what both ends have got."""
    name, note = here
    notes = [note] if note else []
    if there.congestion_control is None:
        notes.append(f"at the server: {there.text}")
    elif there.congestion_control in tcp_socket.BETTER:
        notes.append(f"the server's kernel has no {_BEST}: there, as root, modprobe tcp_{_BEST}")
    return TcpPath(name, there.congestion_control, tuple(notes))


NOT_ASKED = Tuned(None, "off", "left as its system made it")
SILENT = Tuned(None, "silent", "no answer, its system's own choice stays")


async def answer_of(agent: RemoteAgent) -> Tuned:
    """Return what ``agent`` says of the server's end, for some seconds; it was asked before."""
    answers: set[asyncio.Future[Tuned] | asyncio.Future[SshvpnError]] = {agent.tuned, agent.gone}
    await asyncio.wait(answers, timeout=_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    return agent.tuned.result() if agent.tuned.done() else SILENT


_LASTING = {"no_root", "no_sudo", "no_python", "no_ctypes", "no_ptrace"}


class FarEnd:
    """The server's end of a session's connections: asked for each, until it refuses for good.

    So a server where sudo wants a password has one line of that in its log, not one a reconnect.
    """

    def __init__(self) -> None:
        self._refusal: Tuned | None = None

    async def tune(self, how: Callable[[], Awaitable[Tuned]]) -> Tuned:
        """Return what ``how`` says, or what it said before."""
        if self._refusal is not None:
            return self._refusal
        answer = await how()
        if answer.code in _LASTING:
            self._refusal = answer
        return answer


async def tune_there(process: SshProcess, options: TcpOptions) -> Tuned:
    """Tune the server's end by a session of its own over ``process``'s connection.

    It runs our agent for a moment, as root or by ``sudo -n``; a server that runs no commands
    is left alone.
    """
    agent = RemoteAgent(Mode.TCP, LABEL, "")
    try:
        await agent.begin()
        agent.ask_tcp(options)
        session = await process.mux.run(agent.command, agent.input_fd, agent.output_fd)
        agent.release()
        try:
            return await answer_of(agent)
        finally:
            agent.end_input()
            await session.end()
    except (SshvpnError, OSError) as error:
        log.debug("the server's end was not tuned: %s", error)
        return SILENT
    finally:
        agent.close()
