"""Asks the kernel whether something may be listened on, and cleans up after unix sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from sshvpn.errors import PrivilegeError, SshvpnError, TakenError, UsageError
from sshvpn.model import Direction, Endpoint, TcpEndpoint, UnixEndpoint


def probe(endpoint: Endpoint) -> Endpoint:
    """Return ``endpoint`` with port 0 replaced by a free port, after a bind that was undone.

    A unix socket that nobody listens on any more and that is this user's own is removed.
    Raises TakenError, PrivilegeError, or UsageError for an address of another machine and for a
    directory that is not there.
    """
    if isinstance(endpoint, UnixEndpoint):
        _probe_path(endpoint.path)
        return endpoint
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
        )
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(found[0][4])
            # Two sockets with SO_REUSEADDR can be bound to one address; only one may listen.
            trial.listen(1)
            return TcpEndpoint(endpoint.host, trial.getsockname()[1])
    except OSError as error:
        raise listen_error(endpoint, error) from error


def listen_error(endpoint: Endpoint, error: OSError) -> SshvpnError:
    """Return what ``error`` of bind(2) or listen(2) on ``endpoint`` means."""
    if isinstance(endpoint, UnixEndpoint):
        told = _of_path(endpoint, error.errno)
    else:
        told = _of_port(endpoint, error.errno)
    return told or SshvpnError(f"cannot listen on {endpoint}: {error.strerror or error}")


def _of_path(endpoint: UnixEndpoint, number: int | None) -> SshvpnError | None:
    if number == errno.EADDRINUSE:
        return TakenError(f"{endpoint} is there already", "choose another path, or remove that one")
    if number in (errno.EACCES, errno.EPERM):
        return PrivilegeError(
            f"may not make the socket {endpoint}", "choose a directory of your own"
        )
    return _nowhere(endpoint.path) if number in (errno.ENOENT, errno.ENOTDIR) else None


def _of_port(endpoint: TcpEndpoint, number: int | None) -> SshvpnError | None:
    if number == errno.EADDRINUSE:
        return TakenError(
            f"port {endpoint.port} is taken on {endpoint.host}",
            f"choose another port (0: any free one), or see who has it: "
            f"ss -ltnp sport = :{endpoint.port}",
        )
    if number in (errno.EACCES, errno.EPERM):
        return PrivilegeError(
            f"may not listen on port {endpoint.port}: it is privileged",
            "choose a port from 1024 up",
        )
    if number in (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_ADDRFAMILY):
        return UsageError(
            f"cannot listen on {endpoint}: not an address of this machine",
            "ip address lists them; --bind takes the name of an adapter too",
        )
    return None


def _nowhere(path: str) -> UsageError:
    parent = Path(path).parent
    if parent.exists() and not parent.is_dir():
        return UsageError(f"cannot make the socket {path}: {parent} is no directory", "name one")
    return UsageError(
        f"cannot make the socket {path}: there is no directory {parent}",
        f"make it: mkdir -p {parent}",
    )


def remove(endpoint: Endpoint, direction: Direction) -> None:
    """Unlink the unix socket of a local listener that is closed: ssh leaves it behind."""
    if isinstance(endpoint, UnixEndpoint) and direction is not Direction.REMOTE:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(endpoint.path).lstat().st_mode):
                Path(endpoint.path).unlink()


def _probe_path(path: str) -> None:
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        if not Path(path).parent.is_dir():
            raise _nowhere(path) from None
        if not os.access(Path(path).parent, os.W_OK | os.X_OK):
            raise PrivilegeError(
                f"may not make the socket {path}", "choose a directory of your own"
            ) from None
        return
    except OSError as error:
        raise listen_error(UnixEndpoint(path), error) from error
    if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() and _is_dead(path):
        Path(path).unlink(missing_ok=True)
        return
    raise listen_error(UnixEndpoint(path), OSError(errno.EADDRINUSE, "in use"))


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe_socket:
        try:
            probe_socket.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
