"""The server's end of a TCP connection of the sshtunnel engine: our agent, for a moment."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import paramiko

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Mode, TcpOptions, Tuned
from sshvpn.system.openssh.tcp_path import LABEL, SILENT
from sshvpn.system.sshtunnel.transport import Transport

_ANSWER_S = 5.0
_PIECE = 4096


def tune_there(transport: Transport, options: TcpOptions) -> Tuned:
    """Tune the server's end by a session over ``transport``; blocks for some seconds at most.

    It runs our agent, as root or by ``sudo -n``; a server that runs no commands is left alone.
    """
    nonce = secrets.token_hex(16)
    script = agent_script()
    command = protocol.remote_command(script, nonce=nonce, label=LABEL, mode=Mode.TCP)
    reader = protocol.Reader(nonce)
    try:
        session = transport.open_session()
        try:
            session.settimeout(_ANSWER_S)
            session.exec_command(command)
            session.sendall(protocol.delivery(script) + protocol.encode([options.words]))
            messages = (reader.feed(line) for line in _lines(session))
            return next((one for one in messages if isinstance(one, Tuned)), SILENT)
        finally:
            session.close()
    except (paramiko.SSHException, OSError, EOFError, protocol.MalformedLineError):
        return SILENT


def _lines(session: Any) -> Iterator[str]:
    """Yield the lines that come, for as long as an answer may take."""
    until = time.monotonic() + _ANSWER_S
    begun = b""
    while time.monotonic() < until and len(begun) < protocol.LONGEST_LINE:
        piece = session.recv(_PIECE)
        *lines, begun = (begun + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if not piece:
            return
