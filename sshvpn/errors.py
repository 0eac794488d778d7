"""The errors of sshvpn, with their exit codes and whether they are worth a retry.

::

    SshvpnError                      1  failed for a reason that the message names
    ├── UsageError                   2  a wrong word on the command line
    │   └── ConfigError              2  a wrong line in a file
    │       └── FileOwnerError       2  ssh reads no such file: another user's, or open to others
    ├── NotRunningError              3  nothing of that name is up
    ├── PrivilegeError               4  needs privilege that could not be had
    ├── RefusedError                 5  the server refused
    │   ├── AuthenticationError      5  the credential was refused
    │   ├── LoginNeededError         5  a person must log in; retried when one does
    │   ├── HostKeyChangedError      5  not the host key that is known
    │   ├── HostKeyUnknownError      5  no host key is known
    │   ├── TunnelRefusedError       5  PermitTunnel or no right to a tun
    │   │   └── TunnelFailedError    5  a command at the server failed; retried once it has run
    │   └── ForwardingRefusedError   5  the server does not forward
    ├── UnreachableError             6  time can mend it
    │   ├── ResolveError             6  the name did not resolve
    │   ├── NoAnswerError            6  no packet came back through the tunnel
    │   ├── AdapterAwayError         6  a service's adapter, or its address, is not there yet
    │   └── ConnectionLostError      6  it was there and went
    ├── TakenError                   7  address, port, route or device is taken; as above
    ├── NotebookError                1  Jupyter cannot be had at a server that was reached
    │   └── NotebookLostError        1  it was there before; retried
    └── UnknownSshError              1  ssh said something unheard of; retried

Whether to retry is an attribute of the class, never a match on text. Text from ssh or the
kernel becomes one of these in the adapter that read it, and nowhere else.
"""

from enum import Enum
from typing import ClassVar


class Retry(Enum):
    """What time can do about an error."""

    NEVER = "never"
    """Only a person can mend it: stop at once."""
    FOREVER = "forever"
    """Time can mend it: try again, with backoff."""
    ONCE_RUN = "once_run"
    """What stood may stand again: of one that has run as FOREVER, at a first start as NEVER."""
    ON_LOGIN = "on_login"
    """A person must type something: wait for one, ask nobody."""


class SshvpnError(Exception):
    """An error with a place in cli.md: what went wrong, and what to do next.

    ``str(error)`` is one line on what went wrong; ``hint`` is one line on what to do next,
    or empty. Both are free of control characters.
    """

    exit_code: ClassVar[int] = 1
    retry: ClassVar[Retry] = Retry.NEVER
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(printable(message))
        self.hint = printable(hint)

    @property
    def message(self) -> str:
        """What went wrong, one line."""
        return str(self)

    def as_record(self) -> dict[str, str]:
        """Return ``last_error`` of ``status --json``."""
        return {"code": self.code, "message": f"{self}; {self.hint}" if self.hint else str(self)}


class UsageError(SshvpnError):
    """A word on the command line is wrong."""

    exit_code = 2
    code = "usage"


class ConfigError(UsageError):
    """A configuration file is wrong; the message begins with ``FILE:LINE:`` where known."""

    code = "config"


class FileOwnerError(ConfigError):
    """ssh does not read a file of its configuration: it is another user's, or open to others.

    In a namespace of users root's are another's, too.
    """

    code = "config_owner"


class NotRunningError(SshvpnError):
    """Nothing of that name is up."""

    exit_code = 3
    code = "not_running"


class PrivilegeError(SshvpnError):
    """The operating system wants more privilege than could be had."""

    exit_code = 4
    code = "privilege"


class RefusedError(SshvpnError):
    """The server was reached and said no."""

    exit_code = 5
    code = "refused"


class AuthenticationError(RefusedError):
    """The server refused the credentials that were offered."""

    code = "auth_refused"


class LoginNeededError(RefusedError):
    """A password, a second factor or an agent is wanted, and reconnects never prompt."""

    retry = Retry.ON_LOGIN
    code = "needs_login"


class HostKeyChangedError(RefusedError):
    """The server's host key is not the one in known_hosts."""

    code = "host_key_changed"


class HostKeyUnknownError(RefusedError):
    """known_hosts holds no key of this server, and nobody was there to be asked."""

    code = "host_key_unknown"


class TunnelRefusedError(RefusedError):
    """The server gives no tun device (PermitTunnel, or no right to one).

    ``is_lasting``: it is so until somebody changes the server, and may be remembered for a while.
    """

    code = "tunnel_refused"
    is_lasting: ClassVar[bool] = True


class TunnelFailedError(TunnelRefusedError):
    """The server's end could not be made what it shall be: a command there has failed."""

    retry = Retry.ONCE_RUN
    code = "tunnel_failed"
    is_lasting = False


class ForwardingRefusedError(RefusedError):
    """The server does not forward (AllowTcpForwarding, permitlisten, GatewayPorts …)."""

    code = "forwarding_refused"


class UnreachableError(SshvpnError):
    """The server could not be reached."""

    exit_code = 6
    retry = Retry.FOREVER
    code = "unreachable"

    @classmethod
    def timed_out(cls) -> "UnreachableError":
        """Return what it means that the time of a first start is over."""
        return cls(
            "the server did not answer within the time given",
            "look at the network, or give more time with --timeout SECONDS",
        )


class ResolveError(UnreachableError):
    """The server's name did not resolve."""

    code = "unresolved"


class ConnectionLostError(UnreachableError):
    """A connection that stood has ended."""

    code = "lost"


class NoAnswerError(UnreachableError):
    """The connection stands, and no packet comes back through the tunnel."""

    code = "no_answer"


class AdapterAwayError(UnreachableError):
    """An adapter of this machine, or its address, is not there yet; a service waits for it."""

    code = "no_adapter"


class TakenError(SshvpnError):
    """Somebody else has the address, port, route or device."""

    exit_code = 7
    retry = Retry.ONCE_RUN
    code = "taken"


class NotebookError(SshvpnError):
    """Jupyter is not at the server, does not start there, or does not answer."""

    code = "notebook"


class NotebookLostError(NotebookError):
    """The same of one that has run: a disk that is not mounted yet or is full can be mended."""

    retry = Retry.FOREVER
    code = "notebook_lost"


class UnknownSshError(SshvpnError):
    """ssh ended with words that are not known here; worth a retry."""

    retry = Retry.FOREVER
    code = "unknown"


def exit_code_of(code: str) -> int:
    """Return the exit code of the error that ``status --json`` calls ``code``; 1 if unknown."""
    kinds = [SshvpnError]
    for kind in kinds:
        if kind.code == code:
            return kind.exit_code
        kinds += kind.__subclasses__()
    return SshvpnError.exit_code


def printable(text: str) -> str:
    r"""Return ``text`` on one line without control characters, safe on a terminal.

    What a server or a file sends could otherwise move the cursor or forge a line: C0, C1 and
    DEL become ``\xNN``; line ends become a space.
    """
    words = " ".join(text.split("\n")) if "\n" in text else text
    words = words.replace("\r", " ").replace("\t", " ").strip()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)
