"""Exceptions of the libraries and the kernel become the right class, with words to go on."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from pathlib import Path

import paramiko
import pytest
from paramiko.ssh_exception import IncompatiblePeer

from sshvpn.errors import (
    AuthenticationError,
    ConnectionLostError,
    PrivilegeError,
    RefusedError,
    ResolveError,
    SshvpnError,
    TakenError,
    UnknownSshError,
    UnreachableError,
    UsageError,
)
from sshvpn.system.sshtunnel.errors import (
    DeadPeer,
    ServerDisconnected,
    connect_error,
    lost_error,
)
from sshvpn.system.sshtunnel.settings import Settings, settings_of


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def settings() -> Settings:
    config = {"host": ("box",), "hostname": ("box.example",), "user": ("alice",)}
    return settings_of(config, {}, Path("/home/alice"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (os_error(errno.ECONNREFUSED), UnreachableError),
        (os_error(errno.EHOSTUNREACH), UnreachableError),
        (os_error(errno.ENETUNREACH), UnreachableError),
        (os_error(errno.ETIMEDOUT), UnreachableError),
        (os_error(errno.EADDRNOTAVAIL), UsageError),
        (os_error(errno.ENODEV), UsageError),
        (os_error(errno.EPERM), PrivilegeError),
        (OSError("box.example has no address"), UnreachableError),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ResolveError),
        (EOFError(), UnreachableError),
        (paramiko.SSHException("Error reading SSH protocol banner"), UnreachableError),
        (paramiko.SSHException('Indecipherable protocol version "HTTP/1.1"'), UnreachableError),
        (paramiko.SSHException("Negotiation failed."), UnreachableError),
        (paramiko.SSHException("Mismatched MAC"), UnknownSshError),
        (paramiko.AuthenticationException("no"), AuthenticationError),
        (IncompatiblePeer("no acceptable ciphers"), RefusedError),
        (ServerDisconnected("Too many authentication failures"), AuthenticationError),
        (ServerDisconnected("The server is going down"), UnreachableError),
        (ValueError("?"), UnknownSshError),
        (TakenError("already ours"), TakenError),
    ],
)
def test_what_goes_wrong_while_connecting(
    settings: Settings, error: BaseException, kind: type[SshvpnError]
) -> None:
    assert type(connect_error(error, settings)) is kind


def test_it_is_said_where_and_why(settings: Settings) -> None:
    error = connect_error(os_error(errno.ECONNREFUSED), settings)
    assert error.message == "could not reach box.example port 22: connection refused"
    assert error.hint


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "ended the connection"),
        (EOFError(), "ended the connection"),
        (DeadPeer(), "does not answer any more"),
        (os_error(errno.ETIMEDOUT), "does not answer any more"),
        (os_error(errno.ECONNRESET), "broke: connection reset by peer"),
        (ServerDisconnected("going down for reboot"), "going down for reboot"),
        (paramiko.SSHException("Mismatched MAC"), "broke: Mismatched MAC"),
    ],
)
def test_whatever_ends_a_connection_that_stood_time_can_mend(
    settings: Settings, error: BaseException | None, words: str
) -> None:
    found = lost_error(error, settings)
    assert type(found) is ConnectionLostError
    assert words in found.message


def test_words_of_the_server_cannot_move_the_cursor(settings: Settings) -> None:
    error = lost_error(ServerDisconnected("\x1b[2Jbye"), settings)
    assert "\x1b" not in error.message
    elsewhere = dataclasses.replace(settings, host="\x1b[2J")
    assert "\x1b" not in connect_error(EOFError(), elsewhere).message
