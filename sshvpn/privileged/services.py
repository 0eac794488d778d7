"""Installs system services as root, for the user who asked: one line of JSON each way.

::

                                            {"ok": true, "hello": 1, "actor": UID, "pid": P}
    {"op": "install", "name": N,            {"ok": true}    the profile and the units stand there
     "profile": TOML, "state": DIRECTORY}
    {"op": "try"}                           {"ok": true, "code": 0, "out": "", "said": ""}   what a
                                            login as the user, in the unit's sandbox, came to
    {"op": "start"}                         {"ok": true}    enabled, and being started
    {"op": "keep"}                          {"ok": true}    from now on it stays
    {"op": "remove", "name": N}             {"ok": true}    stopped, disabled, all files gone

    anything else, or what fails            {"ok": false, "error": {"code", "message", "hint"}}

When the socket ends before ``keep``, all is as it was before ``install``. The texts of the units
are made here, by root's own code; of the user comes a profile, which nothing but the user's own
process will read.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sshvpn.errors import NotRunningError, PrivilegeError, SshvpnError, TakenError, printable
from sshvpn.privileged import command, managers
from sshvpn.services import TUNNEL, Account, drop_in, is_service_name, template, trial

PROFILES = Path("/etc/sshvpn")
UNITS = Path("/etc/systemd/system")
UDEV_RULES = Path("/etc/udev/rules.d/85-sshvpn.rules")
RUNTIME_UNITS = Path("/run/systemd/system")
_DROP_IN = "sshvpn.conf"
_LONGEST_PROFILE = 1 << 16
_TRY_S = 90.0
_SYSTEMCTL_S = 60.0


class ServiceInstaller:
    """Serves one client, user ``actor``'s. ``program`` are the words that run sshvpn."""

    def __init__(self, actor: int, program: Sequence[str]) -> None:
        self._actor = pwd.getpwuid(actor)
        self._program = tuple(program)
        self._name = ""
        self._account: Account | None = None
        self._before: dict[Path, bytes | None] = {}
        self._has_started = False
        self.operations: Mapping[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
            "install": self._install,
            "try": self._try,
            "start": self._start,
            "keep": self._keep,
            "remove": self._remove,
        }

    def undo(self) -> None:
        """Make everything what it was before ``install``, unless it was kept; twice is fine."""
        if not self._before:
            return
        before, self._before = self._before, {}
        unit = TUNNEL.unit_of(self._name)
        was_there = before.get(_drop_in_of(self._name)) is not None
        if self._has_started and not was_there:
            with contextlib.suppress(SshvpnError):
                _systemctl("disable", "--now", unit)
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _write(path, content)
        _remove_empty(self._name)
        with contextlib.suppress(SshvpnError):
            _systemctl("daemon-reload")
            if self._has_started and was_there:
                _systemctl("restart", "--no-block", unit)
            _systemctl("reset-failed", unit)

    def _install(self, request: Mapping[str, Any]) -> dict[str, object]:
        name = _name(request)
        profile, state = request.get("profile"), request.get("state")
        if self._before or not isinstance(profile, str) or not isinstance(state, str):
            raise ValueError("no profile")
        if len(profile) > _LONGEST_PROFILE or not _is_path(state):
            raise ValueError("no profile of a user")
        self._refuse_others(name)
        self._name = name
        found = self._actor
        if not _is_path(found.pw_dir) or printable(found.pw_name) != found.pw_name:
            raise ValueError("no account that a unit can name")
        self._account = Account(found.pw_name, found.pw_uid, found.pw_dir, state)
        files = {
            profile_of(name): profile,
            UNITS / TUNNEL.template: template(TUNNEL, self._program),
            _drop_in_of(name): drop_in(self._account),
        }
        if managers.hears():  # what a service does itself while it is up, it may not in its sandbox
            files[UDEV_RULES] = managers.RULE
        for path, text in files.items():
            self._before[path] = path.read_bytes() if path.exists() else None
            _write(path, text.encode())
        if UDEV_RULES in files:
            managers.reload()
        _systemctl("daemon-reload")
        return {}

    def _refuse_others(self, name: str) -> None:
        owner = owner_of(name)
        if owner is not None and self._actor.pw_uid not in (0, owner):
            raise TakenError(
                f"a service {name} is there already, of {_user(owner)}", "give yours another name"
            )

    def _try(self, _: Mapping[str, Any]) -> dict[str, object]:
        """Log in as the unit would: its user, its sandbox, its environment."""
        account = self._need_account()
        unit = RUNTIME_UNITS / f"sshvpn-trial-{os.getpid()}.service"
        with tempfile.TemporaryDirectory(prefix="sshvpn-trial-", dir="/run") as directory:
            output = Path(directory, "out")
            files = (str(profile_of(self._name)), str(output))
            try:
                _write(unit, trial(TUNNEL, self._program, self._name, files, account).encode())
                _systemctl("daemon-reload")
                done = _run(["systemctl", "start", unit.name], _TRY_S)
                shown = _run(["systemctl", "show", "-P", "ExecMainStatus", unit.name], _TRY_S)
            finally:
                unit.unlink(missing_ok=True)
                _run(["systemctl", "reset-failed", unit.name], _TRY_S)
            out = output.read_text("utf-8", "replace") if output.exists() else ""
        code = int(shown.stdout.strip() or 1) if done.returncode else 0
        # Whatever its own status: what did not start has not logged in.
        code = code or int(done.returncode != 0)
        return {"code": code, "out": out, "said": printable_lines(done.stderr)}

    def _start(self, _: Mapping[str, Any]) -> dict[str, object]:
        self._need_account()
        self._has_started = True
        unit = TUNNEL.unit_of(self._name)
        _systemctl("enable", "--quiet", unit)
        # Not waited for: how it comes up is seen from outside, and told as it goes.
        _systemctl("restart", "--no-block", unit)
        return {}

    def _keep(self, _: Mapping[str, Any]) -> dict[str, object]:
        self._before = {}
        return {}

    def _remove(self, request: Mapping[str, Any]) -> dict[str, object]:
        name = _name(request)
        if owner_of(name) is None:
            raise NotRunningError(f"{name} is not enabled", "see: systemctl list-units 'sshvpn@*'")
        self._refuse_others(name)
        unit = TUNNEL.unit_of(name)
        _systemctl("disable", "--quiet", "--now", unit)
        profile_of(name).unlink(missing_ok=True)
        _drop_in_of(name).unlink(missing_ok=True)
        _remove_empty(name)
        _systemctl("daemon-reload")
        with contextlib.suppress(SshvpnError):
            _systemctl("reset-failed", unit)
        return {}

    def _need_account(self) -> Account:
        if self._account is None:
            raise ValueError("nothing is installed")
        return self._account


def owner_of(name: str) -> int | None:
    """Return the user of the service NAME, None where there is none. Reads what all may read."""
    try:
        lines = _drop_in_of(name).read_text("utf-8").splitlines()
    except OSError:
        return None
    key = "Environment=SSHVPN_SERVICE_UID="
    return next((int(line.removeprefix(key)) for line in lines if line.startswith(key)), None)


def installed() -> Iterator[str]:
    """Yield the names of all system services of ours."""
    for path in sorted(UNITS.glob(f"{TUNNEL.unit_of('*')}.d/{_DROP_IN}")):
        yield path.parent.name.removeprefix(f"{TUNNEL.unit}@").removesuffix(".service.d")


def profile_of(name: str) -> Path:
    """Return the file that the service NAME has its profile in."""
    return PROFILES / f"{name}.toml"


def _drop_in_of(name: str) -> Path:
    return UNITS / f"{TUNNEL.unit_of(name)}.d" / _DROP_IN


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str) or not is_service_name(name):
        raise ValueError("no name of a service")
    return name


def _is_path(text: str) -> bool:
    return text.startswith("/") and printable(text) == text and '"' not in text and "'" not in text


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _write(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole, so that nobody reads half of it."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.parent.chmod(0o755)  # whatever the umask: the user's process reads it
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)


def _remove_empty(name: str) -> None:
    """Remove the template and the directories where no service needs them any more."""
    with contextlib.suppress(OSError):
        _drop_in_of(name).parent.rmdir()
    if not list(installed()):
        for path in (UNITS / TUNNEL.template, UDEV_RULES):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        PROFILES.rmdir()


def _systemctl(*words: str) -> None:
    done = _run(["systemctl", "--no-ask-password", *words], _SYSTEMCTL_S)
    if done.returncode:
        said = printable_lines(done.stderr).splitlines() or ["it did not say why"]
        raise SshvpnError(f"systemctl {words[0]}: {said[0]}", "see: journalctl --boot --unit init")


def _run(words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return command.run(words, timeout_s, missing=PrivilegeError)


def printable_lines(text: str) -> str:
    """Return ``text`` with its lines, each safe on a terminal."""
    return "\n".join(printable(line) for line in text.splitlines() if line.strip())
