"""systemd as it is asked for services: the system's by a process of root's, a user's own directly.

Either way an installation is undone unless it is kept: close one in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sshvpn.errors import NotRunningError, SshvpnError, printable
from sshvpn.privileged import services as system_services
from sshvpn.services import (
    KINDS,
    Kind,
    is_service_name,
    template,
    trial,
    without_namespaces,
)
from sshvpn.system import paths
from sshvpn.system.privilege.root_process import (
    HelperGoneError,
    checked,
    request_line,
    start_as_root,
)
from sshvpn.system.privilege.sudo import Sudo
from sshvpn.system.systemd import installation, relaxed, users

PROMPT = "sshvpn installs a service of this system; [sudo] password for %p: "
LINGER = Path("/var/lib/systemd/linger")
_BOOTED = Path("/run/systemd/system")


class Services(Protocol):
    """The services of one manager. Close it."""

    def install(self, name: str, profile: str) -> None:
        """Write what the service NAME is made of; ``profile`` is its configuration, TOML."""
        ...

    def try_login(self) -> dict[str, Any] | None:
        """Log in as the service will; return the error's record, None where it worked."""
        ...

    def lacks_namespaces(self) -> str:
        """Return why it must do without those of its sandbox, "" where it need not."""
        ...

    def start(self) -> None:
        """Enable it, and start it; does not wait for it."""
        ...

    def keep(self) -> None:
        """Let what was installed stay."""
        ...

    def remove(self, name: str) -> None:
        """Stop and disable NAME, and remove all that it was made of. Raises NotRunningError."""
        ...

    def close(self) -> None:
        """Undo what was installed and not kept; twice is fine."""
        ...


def refuse_no_systemd() -> None:
    """Raise SshvpnError where this machine is not run by systemd (sd_booted(3))."""
    if not _BOOTED.is_dir():
        raise SshvpnError(
            "services need systemd, and this machine is run by something else",
            "let its own supervisor run: sshvpn up --foreground NAME (docs/service.md)",
        )


def check(kind: Kind) -> None:
    """Raise SshvpnError for what stands in the way of any service of ``kind``."""
    refuse_no_systemd()
    if not kind.is_users:
        installation.refuse_writable()
        return
    user = pwd.getpwuid(os.getuid()).pw_name
    if not (LINGER / user).exists():
        raise SshvpnError(
            f"services of {user} end with the last login, and do not begin at a boot",
            f"allow them to stay: sudo loginctl enable-linger {user}",
        )


def services(kind: Kind, *, at_terminal: bool) -> Services:
    """Return the manager for ``kind``. Raises PrivilegeError where sudo does not let it be."""
    return UserServices(kind) if kind.is_users else SystemServices.begin(at_terminal=at_terminal)


def is_enabled(kind: Kind, name: str) -> bool:
    """Whether there is such a service of this user's, or (as root) of anybody's."""
    if not is_service_name(name):
        return False
    if kind.is_users:
        return _users_profile(kind, name).exists()
    owner = system_services.owner_of(name)
    return owner is not None and os.getuid() in (0, owner)


def configuration(kind: Kind, name: str) -> Path:
    """Return the file that the service NAME has its profile in."""
    return _users_profile(kind, name) if kind.is_users else system_services.profile_of(name)


def enabled() -> Iterator[tuple[Kind, str]]:
    """Yield all services that :func:`is_enabled`."""
    for kind in KINDS.values():
        if kind.is_users:
            found = sorted(_users_directory().glob(f"{kind.session}-*.toml"))
            names = [path.stem.removeprefix(f"{kind.session}-") for path in found]
        else:
            names = list(system_services.installed())
        yield from ((kind, name) for name in names if is_enabled(kind, name))


def state_of(kind: Kind, name: str) -> Mapping[str, str]:
    """Return how systemd sees the service: ActiveState, StatusText, ExecMainStatus, and so on."""
    keys = "ActiveState,SubState,StatusText,ExecMainStatus,NRestarts,InvocationID"
    words = ["systemctl", *(["--user"] if kind.is_users else []), "show", "--property", keys]
    done = users.run([*words, kind.unit_of(name)], users.SYSTEMCTL_S)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


class SystemServices:
    """Implements Services by a process of root's (privileged/install.py), started by sudo."""

    def __init__(self, peer: socket.socket, sudo: Sudo) -> None:
        self._peer = peer
        self._sudo: Sudo | None = sudo
        self._lines = peer.makefile("rb")

    @classmethod
    def begin(cls, *, at_terminal: bool = False, uid: int | None = None) -> SystemServices:
        """Start it; as root at once and for user ``uid``, else by sudo. Raises PrivilegeError."""
        peer, _, sudo = start_as_root("install.py", PROMPT, at_terminal=at_terminal, uid=uid)
        return cls(peer, sudo)

    def install(self, name: str, profile: str) -> None:
        """As Services has it. Raises TakenError where it is another user's."""
        self._ask(op="install", name=name, profile=profile, state=str(paths.state_dir()))

    def try_login(self) -> dict[str, Any] | None:
        """As Services has it."""
        answer = self._ask(op="try")
        return _outcome(int(answer["code"]), str(answer["out"]), str(answer["said"]))

    def lacks_namespaces(self) -> str:
        """As Services has it: those of the system's need none of users."""
        return ""

    def start(self) -> None:
        """As Services has it."""
        self._ask(op="start")

    def keep(self) -> None:
        """As Services has it."""
        self._ask(op="keep")

    def remove(self, name: str) -> None:
        """As Services has it."""
        self._ask(op="remove", name=name)

    def close(self) -> None:
        """As Services has it."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_WR)
            self._lines.read()  # it closes its end when all is undone
        self._lines.close()
        self._peer.close()
        sudo, self._sudo = self._sudo, None
        if sudo is not None:
            sudo.end()

    def _ask(self, **request: object) -> dict[str, Any]:
        try:
            self._peer.sendall(request_line(**request))
            return checked(self._lines.readline())
        except (OSError, HelperGoneError) as error:
            raise SshvpnError(
                "what installs services as root has ended before its time", "try again"
            ) from error


class UserServices:
    """Implements Services with the user's own manager; needs no privilege."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._name = ""
        self._before: dict[Path, str | None] = {}
        self._has_started = False
        self._lacks_namespaces = ""

    def install(self, name: str, profile: str) -> None:
        """As Services has it."""
        self._name = name
        self._write(_users_profile(self._kind, name), profile)
        unit = template(self._kind, installation.program())
        self._write(users.units() / self._kind.template, unit)
        for path in self._drop_ins(name):
            self._write(path, None)
        self._systemctl("daemon-reload")

    def _write(self, path: Path, text: str | None) -> None:
        """Write ``text``, or remove the file; `close` has what was there."""
        before = path.read_text("utf-8") if path.exists() else None
        self._before.setdefault(path, before)
        _put(path, text)

    def _drop_ins(self, name: str) -> tuple[Path, Path]:
        return relaxed.lasting(self._kind, name), relaxed.until_boot(self._kind, name)

    def try_login(self) -> dict[str, Any] | None:
        """As Services has it; where it works without namespaces alone it shall do without."""
        refused = self._try(has_namespaces=True)
        if refused is None or refused["code"] not in relaxed.MAY_BE_OF_THEM:
            return refused
        without = self._try(has_namespaces=False)
        if without is None:
            why = self._lacks_namespaces = str(refused["message"])
            self._write(self._drop_ins(self._name)[0], without_namespaces(self._kind, why))
            self._systemctl("daemon-reload")
        return without

    def _try(self, *, has_namespaces: bool) -> dict[str, Any] | None:
        profile = str(_users_profile(self._kind, self._name))
        with tempfile.TemporaryDirectory(prefix="sshvpn-trial-", dir=users.runtime()) as directory:
            output = Path(directory, "out")
            files = (profile, str(output))
            text = trial(
                self._kind, installation.program(), self._name, files, None,
                has_namespaces=has_namespaces,
            )  # fmt: skip
            code, said = users.run_once(f"sshvpn-trial-{os.getpid()}", text)
            out = output.read_text("utf-8", "replace") if output.exists() else ""
        if code in relaxed.NO_NAMESPACES:
            return relaxed.refused_by_kernel(code)
        return _outcome(code, out, said)

    def lacks_namespaces(self) -> str:
        """As Services has it."""
        return self._lacks_namespaces

    def start(self) -> None:
        """As Services has it."""
        self._has_started = True
        unit = self._kind.unit_of(self._name)
        self._systemctl("enable", "--quiet", unit)
        self._systemctl("restart", "--no-block", unit)

    def keep(self) -> None:
        """As Services has it."""
        self._before = {}

    def remove(self, name: str) -> None:
        """As Services has it."""
        if not is_enabled(self._kind, name):
            raise NotRunningError(
                f"{name} is not enabled", "see: systemctl --user list-units 'sshvpn*'"
            )
        self._systemctl("disable", "--quiet", "--now", self._kind.unit_of(name))
        for path in (_users_profile(self._kind, name), *self._drop_ins(name)):
            _put(path, None)
        self._remove_empty()
        self._systemctl("daemon-reload")
        with contextlib.suppress(SshvpnError):
            self._systemctl("reset-failed", self._kind.unit_of(name))

    def close(self) -> None:
        """As Services has it."""
        before, self._before = self._before, {}
        if not before:
            return
        was_there = before[_users_profile(self._kind, self._name)] is not None
        unit = self._kind.unit_of(self._name)
        if self._has_started and not was_there:
            with contextlib.suppress(SshvpnError):
                self._systemctl("disable", "--now", unit)
        for path, text in before.items():
            _put(path, text)
        self._remove_empty()
        with contextlib.suppress(SshvpnError):
            self._systemctl("daemon-reload")
            if self._has_started and was_there:
                self._systemctl("restart", "--no-block", unit)
            self._systemctl("reset-failed", unit)

    def _remove_empty(self) -> None:
        if not any(kind == self._kind for kind, _ in enabled()):
            (users.units() / self._kind.template).unlink(missing_ok=True)
        for directory in (_users_directory(), _users_directory().parent, users.units(),
                          users.units().parent):  # fmt: skip
            with contextlib.suppress(OSError):
                directory.rmdir()

    @staticmethod
    def _systemctl(*words: str) -> None:
        users.systemctl(*words)


def _put(path: Path, text: str | None) -> None:
    """Write ``text``; None removes the file, and its directory where that is a unit's and empty."""
    if text is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return
    path.unlink(missing_ok=True)
    if path.parent.suffix == ".d":
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _users_directory() -> Path:
    return users.config() / "sshvpn" / "services"


def _users_profile(kind: Kind, name: str) -> Path:
    return _users_directory() / f"{kind.session}-{name}.toml"


def _outcome(code: int, out: str, said: str) -> dict[str, Any] | None:
    """Return the error of a trial login that ended with ``code``, None where it worked."""
    if code == 0:
        return None
    with contextlib.suppress(ValueError, IndexError):
        record = json.loads(out.splitlines()[-1])
        if isinstance(record, dict):
            return {"exit_code": code, **record}
    last = [line for line in said.splitlines() if line.strip()][-1:]
    message = printable(last[0]) if last else f"the trial login ended with exit code {code}"
    return {"exit_code": SshvpnError.exit_code, "code": "failed", "message": message, "hint": ""}
