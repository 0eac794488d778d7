"""pyroute2 without what this program never uses of it.

The package loads all that it has at its first import: IPDB, NDB, conntrack, ethtool and psutil
take a quarter of that time, and 7 MB.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

_PACKAGE = "pyroute2"


class _Lean(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name != "IPRoute":
            raise AttributeError(f"module {_PACKAGE!r}, loaded in part, has no {name!r}")
        from pyroute2.iproute import IPRoute

        return IPRoute


def load_in_part() -> None:
    """Let ``from pyroute2 import IPRoute`` load IPRoute alone, and nothing else be there.

    Only for a process that is all ours. Twice, or after the whole was loaded, is fine.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or spec is None:
        return
    module = _Lean(_PACKAGE)
    module.__spec__ = spec
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[_PACKAGE] = module
