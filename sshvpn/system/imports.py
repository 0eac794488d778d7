"""What libraries load although this program never uses it.

Only for a process that is all ours: a program that calls ``sshvpn.forward`` decides for itself.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from sshvpn.privileged import imports

_UNUSED = "invoke"
"""paramiko loads it where it can, for ``Match exec`` of the ssh_config reader that is not used
here. With it come unittest and YAML: a third of the time that paramiko takes, and 3 MB."""
_METADATA = "importlib.metadata"
"""paramiko loads it to learn its own version: a parser of mail, 1.5 MB."""


def leave_out_unused() -> None:
    """Let asyncio, hashlib, paramiko and pyroute2 do without. Twice is fine."""
    imports.leave_out_unused()
    # As where the package is not installed.
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault(_UNUSED, None)  # an import of it is an ImportError from now on
    if _METADATA not in modules:
        importlib.metadata = modules[_METADATA] = _LazyMetadata(_METADATA)


class _LazyMetadata(types.ModuleType):
    """The module itself, but loaded by the first use that is not the version of a package."""

    def version(self, name: str) -> str:
        """Return the version, which the name of the package's directory of metadata tells."""
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for found in Path(place).parent.glob(f"{name}-*.dist-info"):
                return found.name.removeprefix(f"{name}-").removesuffix(".dist-info")
        return str(self.__getattr__("version")(name))

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]
        return getattr(importlib.import_module(_METADATA), name)
