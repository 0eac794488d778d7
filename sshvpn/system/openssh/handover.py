"""A TCP connection of ours, handed to ssh in place of one that it makes itself.

Where the kernel lends nobody the socket of another process (:mod:`sshvpn.system.network.sockets`),
what is under ssh could neither be tuned nor looked at. So we connect as ssh would, and keep the
socket beside it::

    we ── connect ──> socket ──┬── kept: tuned, asked for what it carries
                               └── unix socket ── handover_client.py ── ssh

ssh takes a socket from a ProxyCommand (ssh_config(5), ProxyUseFdpass), and from there all is as
ever: the host key is checked by its name, and IPQoS and the rest are set on that socket. What ssh
leaves out behind a ProxyCommand is not handed over (:func:`target_of`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from sshvpn.frozen import dataclass
from sshvpn.system.network.connect import connect_first
from sshvpn.system.network.sockets import may_borrow
from sshvpn.system.openssh.stderr import classify
from sshvpn.system.openssh.words import CONNECT_TIMEOUT_S, chosen_timeout_s
from sshvpn.system.ssh.config import Config
from sshvpn.system.ssh.peers import FirstHop, ask_resolver, direct_hop

_CLIENT = Path(__file__).with_name("handover_client.py")
_BETWEEN_ATTEMPTS_S = 1.0
"""As ssh itself waits (ssh_config(5), ConnectionAttempts)."""
_NO_SHELLS = {"nologin", "false"}
"""What some accounts have for a shell; ssh runs a ProxyCommand by $SHELL."""
_BY_ADDRESS = (
    # Key, values that ask for nothing, name.
    ("checkhostip", ("no",), "CheckHostIP"),
    ("canonicalizehostname", ("no", "false"), "CanonicalizeHostname"),
    ("canonicalizepermittedcnames", ("none",), "CanonicalizePermittedCNAMEs"),
    # ssh alone looks for an address of that adapter.
    ("bindinterface", ("none",), "BindInterface"),
)
"""What ssh leaves out where there is a ProxyCommand (sshconnect.c, ssh.c)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where ssh would connect to, and how. Times are seconds."""

    hop: FirstHop
    bind_address: str | None
    timeout_s: int
    attempts: int
    keeps_alive: bool


def ours_for(config: Config, address: str | None) -> Target | str:
    """Return what we connect to for an ssh of ``config``, or why it is left to ssh.

    That is "" where ssh's own socket can be borrowed. ``address`` is the one that ssh is led to
    by our own words, None for that of its configuration.
    """
    return "" if may_borrow() else target_of(config, address)


def target_of(config: Config, address: str | None) -> Target | str:
    """Return the same wherever it is; pure."""
    hop = direct_hop(config)
    if hop is None:
        return "behind a proxy or a jump host it is theirs"
    for key, harmless, name in _BY_ADDRESS:
        if config.get(key, harmless)[0] not in harmless:
            return f"{name} wants ssh to connect itself"
    return Target(
        FirstHop(address or hop.host, hop.port, hop.family),
        config.get("bindaddress", (None,))[0],
        chosen_timeout_s(config) or CONNECT_TIMEOUT_S,
        int(config.get("connectionattempts", ("1",))[0]),
        config.get("tcpkeepalive", ("yes",))[0] == "yes",
    )


async def connect(target: Target) -> socket.socket | None:
    """Return a socket that is connected to ``target``, as ssh would have made it.

    None where its name does not resolve: ssh says that best. Raises what ssh would be heard to say.
    """
    hop = target.hop
    addresses = await ask_resolver(hop)
    entries = [
        entry
        for address in addresses
        for entry in socket.getaddrinfo(
            address, hop.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    ]
    if not entries:
        return None
    left = target.attempts
    while True:
        left -= 1
        try:
            sock = await connect_first(entries, target.timeout_s, bind_address=target.bind_address)
            break
        except OSError as error:
            if left <= 0:
                number = error.errno or 0
                why = os.strerror(number) if number > 0 else error.strerror or str(error)
                raise classify(
                    [f"ssh: connect to host {hop.host} port {hop.port}: {why}"]
                ) from error
        await asyncio.sleep(_BETWEEN_ATTEMPTS_S)
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, target.keeps_alive)
    return sock


@contextlib.contextmanager
def handed_over(path: Path, sock: socket.socket) -> Iterator[tuple[str, ...]]:
    """Yield the words with which ssh takes ``sock``, while a unix socket at ``path`` has it.

    Whoever connects there is given it: ``path`` is in a private directory.
    """
    loop = asyncio.get_running_loop()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(0)
        loop.add_reader(listener, _give, listener, sock)
        try:
            yield _words(path)
        finally:
            loop.remove_reader(listener)
            path.unlink(missing_ok=True)


def _give(listener: socket.socket, sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # who asked is gone already
        peer, _ = listener.accept()
        with peer:
            socket.send_fds(peer, [b"\0"], [sock.fileno()])


def _words(path: Path) -> tuple[str, ...]:
    command = shlex.join([sys.executable, "-I", "-S", str(_CLIENT), str(path)])
    # A percent sign would begin a token (ssh_config(5)).
    proxy = command.replace("%", "%%")
    return ("-o", "ProxyUseFdpass=yes", "-o", f"ProxyCommand={proxy}")


def shell_environment() -> dict[str, str]:
    """Return what ssh needs besides in its environment, to run a ProxyCommand."""
    name = os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 (no file is meant)
    return {"SHELL": "/bin/sh"} if name in _NO_SHELLS else {}
