"""The TCP socket under an SSH connection: options that bear loss, distance and bulk transfers.

One text for both ends: this machine imports it, and the agent hands it to the server's python3,
where it finds the socket by which sshd serves the session. So it needs the standard library of
Python 3.6 alone, has no single quote (a shell holds it in such), and nothing else is imported::

    python3 -I -S -c TEXT PID CLIENT_PORT SERVER_PORT USER_TIMEOUT_S NOTSENT_LOWAT

PID is a process of the session. It prints the congestion control that sends from here on, or
``- CODE TEXT`` for why nothing was changed; its exit status is 0 either way.
"""

import os
import socket
import sys

BETTER = {"reno": ("bbr", "cubic"), "cubic": ("bbr",)}
"""What is put in place of what kernels come with. Anything else was somebody's choice, and stays.

BBR does not take a lost packet for a full queue (draft-ietf-ccwg-bbr); cubic (RFC 9438) does, but
fills a long path again sooner than reno (RFC 5681).
"""
_TCP_NOTSENT_LOWAT = 25
_SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 434, 438
"""The same numbers on every architecture that Linux calls have in common (since 5.0)."""
_TCP_ESTABLISHED = 1


class NoSocketError(Exception):
    """The connection was not found; the words are its code and why."""

    __slots__ = ()


def tune(sock: socket.socket, user_timeout_s: int, notsent_lowat: int) -> str:
    """Set the options of a connected TCP socket; return the congestion control it then has.

    TCP_NODELAY: packets of a tunnel wait for nobody. TCP_USER_TIMEOUT: data that nobody
    acknowledges for so long ends the connection (RFC 5482). TCP_NOTSENT_LOWAT: no more than so
    many bytes wait in the kernel for their turn, so that what is urgent is not behind them.
    A better congestion control that the kernel does not give us is passed over. Twice changes
    nothing. Raises OSError.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_s * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, notsent_lowat)
    for name in BETTER.get(congestion_control(sock), ()):
        try:
            choose(sock, name)
        except OSError:  # the kernel has none of that name, or only root may choose it
            continue
        break
    return congestion_control(sock)


def congestion_control(sock: socket.socket) -> str:
    """Return the name of what paces a TCP socket. Raises OSError."""
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode("ascii")


def choose(sock: socket.socket, name: str) -> None:
    """Let a TCP socket be paced by ``name``, at any time. Raises OSError.

    Who lacks CAP_NET_ADMIN may choose what net.ipv4.tcp_allowed_congestion_control lists; for
    who has it the kernel loads the module.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode("ascii"))


# On the server ------------------------------------------------------------------------------


def connection_of(pid: int, client_port: int, server_port: int) -> socket.socket:
    """Return a duplicate of the socket that serves the session of ``pid``.

    It belongs to an ancestor, sshd: to its monitor, or where the login is root to the session
    itself. The ports tell it from what the session forwards. Raises NoSocketError.
    """
    refused = False
    while pid > 1:
        for number in _sockets(pid):
            descriptor = _borrow(pid, number)
            refused = refused or descriptor < 0
            if descriptor >= 0:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
                if _ports(sock) == (client_port, server_port):
                    return sock
                sock.close()
        pid = _parent(pid)
    if refused:
        raise NoSocketError("no_ptrace the kernel there lets nobody look into sshd")
    raise NoSocketError("no_socket sshd there holds no TCP connection of this session")


def _ports(sock: socket.socket) -> tuple:  # type: ignore[type-arg] # 3.6 has no tuple[...]
    """Return the ports there and here of a connection that stands; () of any other socket."""
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return (sock.getpeername()[1], sock.getsockname()[1]) if state == _TCP_ESTABLISHED else ()
    except (OSError, IndexError, TypeError):
        return ()


def _sockets(pid: int) -> list:  # type: ignore[type-arg] # 3.6 has no list[...]
    """Return the numbers of a process's socket descriptors; none where it may not be looked at."""
    found = []
    try:
        for name in os.listdir("/proc/%d/fd" % pid):  # noqa: UP031, PTH208 (3.6)
            try:
                if os.readlink("/proc/%d/fd/%s" % (pid, name)).startswith("socket:"):  # noqa: UP031, PTH115
                    found.append(int(name))
            except OSError:  # noqa: PERF203 (it was closed meanwhile)
                pass
    except OSError:
        pass
    return sorted(found)


def _parent(pid: int) -> int:
    try:
        with open("/proc/%d/stat" % pid, "rb") as stat:  # noqa: UP031, PTH123
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _borrow(pid: int, number: int) -> int:
    """Return a duplicate of another process's descriptor (pidfd_getfd(2)), or -1.

    Raises NoSocketError.
    """
    try:
        import ctypes
    except ImportError:  # Debian's python3-minimal
        raise NoSocketError(
            "no_ctypes python3 there is not a whole one: it has no ctypes"
        ) from None
    call = ctypes.CDLL(None).syscall
    process = int(call(_SYS_PIDFD_OPEN, pid, 0))
    if process < 0:
        return -1
    try:
        return int(call(_SYS_PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)


def main() -> None:
    """Do what the words of the command line say."""
    pid, client_port, server_port, user_timeout_s, notsent_lowat = map(int, sys.argv[1:])
    try:
        with connection_of(pid, client_port, server_port) as sock:
            said = tune(sock, user_timeout_s, notsent_lowat)
    except NoSocketError as error:
        said = "- %s" % error  # noqa: UP031
    except OSError as error:
        said = "- tcp_failed %s" % error.strerror  # noqa: UP031
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
