"""A command of the system, run to its end: as root here, and by the user's side alike."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from sshvpn.errors import SshvpnError


def run(
    words: Sequence[str],
    timeout_s: float,
    *,
    environment: Mapping[str, str] | None = None,
    missing: type[SshvpnError] = SshvpnError,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code, with nothing on its standard input.

    ``environment`` is its own, where it is not this process's. Raises ``missing`` where there is
    no such program, and SshvpnError where it takes longer than ``timeout_s``.
    """
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise missing(f"there is no {words[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise SshvpnError(f"{words[0]} took more than {timeout_s:.0f} s") from error
