"""Tells those who manage networks by themselves to leave our devices alone.

NetworkManager and systemd-networkd (256 and newer) hear of a device by udev(7), and each has a
property by which they let it be. A rule of udev's gives both to our devices as they are made; it
stands below /run as long as a tunnel of this network namespace does. Where there is no udev,
nobody is told, and nobody would hear.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from sshvpn.privileged.programs import path_of

_CONTROL = Path("/run/udev/control")
_RULES = Path("/run/udev/rules.d/85-sshvpn.rules")
RULE = """\
# Made by sshvpn while a tunnel is up, or is a service.
SUBSYSTEM=="net", KERNEL=="sshvpn[0-9]*", ENV{NM_UNMANAGED}="1", ENV{ID_NET_MANAGED_BY}="sshvpn"
"""
_TIMEOUT_S = 2.0


def hears() -> bool:
    """Whether udev runs here."""
    return _CONTROL.exists()


def keep_away() -> None:
    """Have the rule there, before a device is made. Twice is fine; no failure matters."""
    if not hears() or _RULES.exists():
        return
    with contextlib.suppress(OSError):
        _RULES.parent.mkdir(mode=0o755, exist_ok=True)
        _RULES.parent.chmod(0o755)  # whatever the umask
        _RULES.write_text(RULE, "ascii")
        _RULES.chmod(0o644)
        # By itself udev looks for new rules every three seconds at most.
        reload()


def let_go() -> None:
    """Remove the rule, after the last device. Twice is fine."""
    with contextlib.suppress(OSError):
        _RULES.unlink()
        _RULES.parent.rmdir()  # where nothing else stands in it


def reload() -> None:
    """Let udev read its rules again."""
    program = path_of("udevadm")
    if program is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [program, "control", "--reload"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                timeout=_TIMEOUT_S,
                check=False,
            )
