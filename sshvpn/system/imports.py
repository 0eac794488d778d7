"""What libraries load although this program never uses it.

Only for a process that is all ours: a program that calls ``sshvpn.forward`` decides for itself.
"""

from __future__ import annotations

import sys

from sshvpn.privileged import pyroute

_UNUSED = "invoke"
"""paramiko loads it where it can, for ``Match exec`` of the ssh_config reader that is not used
here. With it come unittest and YAML: a third of the time that paramiko takes, and 3 MB."""


def leave_out_unused() -> None:
    """Let paramiko and pyroute2 do without. Twice is fine."""
    pyroute.load_in_part()
    # As where the package is not installed.
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault(_UNUSED, None)  # an import of it is an ImportError from now on
