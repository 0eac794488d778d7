"""What goes wrong in paramiko and in the sockets below it, turned into the errors of sshvpn.

The one place where their exceptions and words are told apart. Causes are picked from the
exceptions; what the libraries log is not read.
"""

from __future__ import annotations

import errno
import os
import re
import socket

from sshvpn.errors import (
    AuthenticationError,
    ConnectionLostError,
    PrivilegeError,
    RefusedError,
    ResolveError,
    SshvpnError,
    UnknownSshError,
    UnreachableError,
    UsageError,
)
from sshvpn.system.sshtunnel.settings import OTHER_ENGINE, Settings

_IS_IT_UP = "is the server up, and the address and port right? ssh -v to the same host tells more"
_TOO_MANY = re.compile(r"[Tt]oo many authentication failures")
_HERE = {errno.EADDRNOTAVAIL, errno.ENODEV}
"""Errors of connect(2) that come from BindAddress and BindInterface."""


class ServerDisconnected(Exception):  # noqa: N818 (a message of the protocol, RFC 4253 11.1)
    """The server sent SSH_MSG_DISCONNECT with these words."""


class DeadPeer(Exception):  # noqa: N818 (what was found, not yet what it means)
    """The server was asked for a sign of life and gave none."""


def connect_error(  # noqa: PLR0911 (one return a case: it reads as the table it is)
    error: BaseException, settings: Settings
) -> SshvpnError:
    """Return what ``error`` means while a connection is being made."""
    import paramiko

    where = f"{settings.host} port {settings.port}"
    match error:
        case SshvpnError():
            return error
        case socket.gaierror():
            return ResolveError(
                f"could not resolve the host name {settings.host}: {error.strerror}",
                "look for a typing error in the name, or at this machine's resolver",
            )
        case ServerDisconnected():
            return _disconnected(str(error))
        case paramiko.ssh_exception.IncompatiblePeer():
            return RefusedError(
                f"no algorithm in common with the server: {error}",
                f"allow another in ssh_config, bring the server up to date, or {OTHER_ENGINE}",
            )
        case paramiko.AuthenticationException():
            return AuthenticationError(
                "the server refused the login", "try the same host with ssh, or another key with -i"
            )
        case EOFError():
            return UnreachableError(f"the server ended the connection to {where}", _IS_IT_UP)
        case paramiko.SSHException():
            return _protocol_error(str(error), where)
        case OSError():
            return _os_error(error, where)
    return UnknownSshError(f"{type(error).__name__}: {error}", "run it with --debug for more")


def lost_error(  # noqa: PLR0911 (as above)
    error: BaseException | None, settings: Settings
) -> SshvpnError:
    """Return what ``error`` means when it ended a connection that stood; None: no word."""
    if isinstance(error, SshvpnError):
        return error
    host = settings.host
    match error:
        case DeadPeer():
            return ConnectionLostError(f"the server {host} does not answer any more")
        case ServerDisconnected():
            return ConnectionLostError(f"the server ended the connection: {error}")
        case OSError() if error.errno == errno.ETIMEDOUT:
            return ConnectionLostError(f"the server {host} does not answer any more")
        case OSError() if error.strerror:
            why = error.strerror[:1].lower() + error.strerror[1:]
            return ConnectionLostError(f"the connection to {host} broke: {why}")
        case None | EOFError() | OSError():
            return ConnectionLostError(f"the server {host} ended the connection")
    return ConnectionLostError(f"the connection to {host} broke: {error}")


def _disconnected(words: str) -> SshvpnError:
    if _TOO_MANY.search(words):
        return AuthenticationError(
            "the server refused the login: too many keys were tried",
            "name the right one: -i KEY -o IdentitiesOnly=yes",
        )
    return UnreachableError(f"the server ended the connection: {words}", _IS_IT_UP)


def _protocol_error(words: str, where: str) -> SshvpnError:
    if "protocol banner" in words or "Indecipherable" in words or "Invalid SSH banner" in words:
        return UnreachableError(
            f"what answers at {where} is not an SSH server, or turned the connection away",
            _IS_IT_UP,
        )
    if words in ("Negotiation failed.", "No existing session", ""):
        return UnreachableError(f"the server ended the connection to {where}", _IS_IT_UP)
    return UnknownSshError(f"the SSH protocol failed at {where}: {words}", OTHER_ENGINE)


def _os_error(error: OSError, where: str) -> SshvpnError:
    # asyncio puts the address where the reason is expected.
    why = (os.strerror(error.errno) if error.errno else str(error) or "no answer").lower()
    if error.errno in _HERE:
        return UsageError(
            f"cannot connect to {where} from the address or adapter of ssh_config: {why}",
            "look at BindAddress and BindInterface",
        )
    if error.errno == errno.EPERM:
        return PrivilegeError(f"may not connect to {where}: {why}", "is a firewall in the way?")
    return UnreachableError(f"could not reach {where}: {why}", _IS_IT_UP)
