"""What libraries load although this program never uses it.

Only for a process that is all ours: a program that calls ``sshvpn.forward`` decides for itself.
"""

from __future__ import annotations

import sys

from sshvpn.privileged import pyroute

_UNUSED = "invoke"
"""paramiko loads it where it can, for ``Match exec`` of the ssh_config reader that is not used
here. With it come unittest and YAML: a third of the time that paramiko takes, and 3 MB."""
_TLS = "ssl"
"""asyncio loads it where it can: 4 MB for a protocol that no connection of its loop speaks here."""


def leave_out_unused() -> None:
    """Let asyncio, paramiko and pyroute2 do without. Twice is fine."""
    pyroute.load_in_part()
    # As where the package is not installed.
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault(_UNUSED, None)  # an import of it is an ImportError from now on
    if "asyncio" not in modules and _TLS not in modules:
        modules[_TLS] = None
        try:
            import asyncio  # noqa: F401 (as on a Python that was built without TLS)
        finally:
            del modules[_TLS]  # who imports it himself has it
