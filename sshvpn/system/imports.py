"""What libraries load although this program never uses it.

Only for a process that is all ours: a program that calls ``sshvpn.forward`` decides for itself.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sshvpn.privileged import pyroute

_UNUSED = "invoke"
"""paramiko loads it where it can, for ``Match exec`` of the ssh_config reader that is not used
here. With it come unittest and YAML: a third of the time that paramiko takes, and 3 MB."""
_TLS = "ssl"
"""asyncio loads it where it can: 4 MB for a protocol that no connection of its loop speaks here."""
_OPENSSL = "_hashlib"
"""hashlib loads the system's OpenSSL by it: 4 MB for what Python has built in as well."""
_BUILT_IN = ("_md5", "_sha1", "_sha3", "_blake2"), ("_sha2", "_sha256")
"""All of the first, and one of the second (3.12 and newer; older): a distribution may leave them
out (``--with-builtin-hashlib-hashes``)."""
_METADATA = "importlib.metadata"
"""paramiko loads it to learn its own version: a parser of mail, 1.5 MB."""


def leave_out_unused() -> None:
    """Let asyncio, hashlib, paramiko and pyroute2 do without. Twice is fine."""
    pyroute.load_in_part()
    # As where the package is not installed.
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault(_UNUSED, None)  # an import of it is an ImportError from now on
    if "asyncio" not in modules:
        with _absent(_TLS):
            import asyncio  # noqa: F401 (as on a Python that was built without TLS)
    if "hashlib" not in modules and _hashes_are_built_in() and not _is_fips():
        with _absent(_OPENSSL):
            import hashlib  # noqa: F401 (as on a Python that was built without OpenSSL)
            import hmac  # noqa: F401
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


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let an import of module ``name`` fail meanwhile; who imports it later has it."""
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    if name in modules:
        yield
        return
    modules[name] = None
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
