"""What libraries load although no process of this program uses it, also not the privileged one.

Only for a process that is all ours. pyroute2 loads all that it has at its first import: IPDB, NDB,
conntrack, ethtool and psutil take a quarter of that time, and 7 MB; traffic control and TLS, which
it has for its probes, a sixth of the rest, and 5 MB.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGE = "pyroute2"
_TRAFFIC_CONTROL = "pyroute2.netlink.rtnl.tcmsg"
_TLS = "ssl"
"""asyncio loads it where it can: 4 MB for a protocol that no connection of its loop speaks here."""
_OPENSSL = "_hashlib"
"""hashlib loads the system's OpenSSL by it: 4 MB for what Python has built in as well."""
_BUILT_IN = ("_md5", "_sha1", "_sha3", "_blake2"), ("_sha2", "_sha256")
"""All of the first, and one of the second (3.12 and newer; older): a distribution may leave them
out (``--with-builtin-hashlib-hashes``)."""


def leave_out_unused() -> None:
    """Let asyncio, hashlib and pyroute2 do without. Twice, or when they were loaded, is fine."""
    if "asyncio" not in sys.modules:
        with _replaced(_TLS, None):
            import asyncio  # noqa: F401 (as on a Python that was built without TLS)
    if "hashlib" not in sys.modules and _hashes_are_built_in() and not _is_fips():
        with _replaced(_OPENSSL, None):
            import hashlib  # noqa: F401 (as on a Python that was built without OpenSSL)
            import hmac  # noqa: F401
    spec = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or spec is None:
        return
    module = _Lean(_PACKAGE)
    module.__spec__ = spec
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[_PACKAGE] = module


class _Lean(types.ModuleType):
    """The package: ``IPRoute`` is loaded when it is asked for, and nothing else is there."""

    def __getattr__(self, name: str) -> Any:
        if name != "IPRoute":
            raise AttributeError(f"module {_PACKAGE!r}, loaded in part, has no {name!r}")
        # Messages of this kind come to nobody who has not asked for them.
        control = types.ModuleType(_TRAFFIC_CONTROL)
        control.tcmsg, control.plugins = object, {}  # type: ignore[attr-defined]
        sys.modules.setdefault(_TRAFFIC_CONTROL, control)
        with _replaced(_TLS, types.ModuleType(_TLS)):
            from pyroute2.iproute import IPRoute

        return IPRoute


@contextmanager
def _replaced(name: str, by: types.ModuleType | None) -> Iterator[None]:
    """Let an import of module ``name`` give ``by`` meanwhile, or fail; later it gives ``name``."""
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    if name in modules:
        yield
        return
    modules[name] = by
    try:
        yield
    finally:
        del modules[name]


def _hashes_are_built_in() -> bool:
    every, either = _BUILT_IN
    return all(map(_is_there, every)) and any(map(_is_there, either))


def _is_there(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def _is_fips() -> bool:
    """Whether this machine allows a validated library alone (FIPS 140)."""
    try:
        return Path("/proc/sys/crypto/fips_enabled").read_text().strip() == "1"
    except OSError:
        return False
