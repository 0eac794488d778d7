"""The user's own manager: where its units are, its systemctl, and units that run once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sshvpn.errors import SshvpnError
from sshvpn.privileged import command
from sshvpn.system import paths

SYSTEMCTL_S = 60.0
_ONCE_S = 90.0


def config() -> Path:
    """Return where this user's configuration is."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base) if base.startswith("/") else paths.home() / ".config"


def units() -> Path:
    """Return where this user's units are that stay."""
    return config() / "systemd" / "user"


def runtime() -> Path:
    """Return the directory of this user's that goes with a reboot."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def units_until_boot() -> Path:
    """Return where this user's units are that go with a reboot."""
    return runtime() / "systemd" / "user"


def run(words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program of systemd's, with the way to the user's manager where the login has none."""
    environment = {**os.environ, "LC_ALL": "C"}
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    return command.run(words, timeout_s, environment=environment)


def systemctl(*words: str) -> None:
    """Run `systemctl --user`. Raises SshvpnError with what it said."""
    done = run(["systemctl", "--user", *words], SYSTEMCTL_S)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise SshvpnError(
            f"systemctl --user {words[0]}: {said[0] if said else 'it did not say why'}",
            "see: journalctl --user --boot",
        )


def run_once(name: str, text: str) -> tuple[int, str]:
    """Run the unit ``text`` once, as NAME; return its exit status, and what systemctl said.

    Not by systemd-run(1), which needs the user's own D-Bus: servers often have none. What did not
    start has a status that is not 0.
    """
    unit = units_until_boot() / f"{name}.service"
    try:
        unit.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unit.write_text(text, "utf-8")
        systemctl("daemon-reload")
        started = run(["systemctl", "--user", "start", unit.name], _ONCE_S)
        asked = ["systemctl", "--user", "show", "-P", "ExecMainStatus", unit.name]
        status = run(asked, SYSTEMCTL_S).stdout.strip()
    finally:
        unit.unlink(missing_ok=True)
        run(["systemctl", "--user", "reset-failed", unit.name], SYSTEMCTL_S)
    return (int(status or 0) or 1) if started.returncode else 0, started.stderr
