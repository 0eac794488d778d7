"""Runs one command in a machine of the laboratory, as one of its users.

Run by `machine.py`, already inside the machine's namespaces (nsenter --no-fork), as
`python -I -S _enter.py USER DIRECTORY pipe|tty COMMAND...`. This process stays outside the
machine's PID namespace; the command is its child, inside, in a session of its own. Signals are
passed on to the command, its exit is this process's exit.

Tests run thousands of commands, and half of what one costs is the start of this: so it loads
nothing that Python has not loaded already, or built in.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # without the enumerations of signal
import grp
import os
import pwd
import sys

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
)
NOT_FOUND = 127


def become(name: str) -> pwd.struct_passwd:
    """Turn this process into the user NAME of the machine, with that user's groups."""
    user = pwd.getpwnam(name)
    os.setgroups([group.gr_gid for group in grp.getgrall() if name in group.gr_mem] + [user.pw_gid])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    return user


def start(name: str, directory: str, command: list[str], *, is_tty: bool) -> None:
    """Become the command; returns only by an exception."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    if is_tty:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.fchown(0, pwd.getpwnam(name).pw_uid, -1)  # as login(1) does
    user = become(name)
    for variable, value in (
        ("HOME", user.pw_dir),
        ("USER", name),
        ("LOGNAME", name),
        ("SHELL", user.pw_shell),
    ):
        os.environ.setdefault(variable, value)
    os.chdir(directory or user.pw_dir)
    os.umask(0o022)
    os.execvp(command[0], command)  # noqa: S606 -- the command comes from a test


def main() -> int:
    """Start the command, pass signals on, end as it ends."""
    name, directory, mode, *command = sys.argv[1:]
    # Blocked until waited for, so that none is lost and none comes before the child is there.
    signal.pthread_sigmask(signal.SIG_BLOCK, [*PASSED_ON, signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        try:
            start(name, directory, command, is_tty=mode == "tty")
        except (OSError, KeyError) as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(NOT_FOUND)
    while True:
        number = signal.sigwait([*PASSED_ON, signal.SIGCHLD])
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
