"""Remembers the networks on which the user said yes to sharing.

One JSON file of the user's own: ``{"schema": 1, "networks": [{"interface", "prefix",
"router_mac"}]}``. To forget a network, delete its entry; it counts at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sshvpn.errors import ConfigError
from sshvpn.model import LanNetwork

log = logging.getLogger("sshvpn.trust")

_SCHEMA = 1


class FileTrustStore:
    """The real :class:`sshvpn.boundary.TrustStore`, in the file ``path``.

    Several processes may use one file. It is replaced as a whole, so a crash leaves the old or
    the new one. Both methods raise ConfigError when others could have written it. A file that
    cannot be understood trusts nothing, and is kept aside as ``….broken`` by the next write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Said yes to, and could not be written down: holds as long as this process.
        self._unwritten: set[LanNetwork] = set()

    def is_trusted(self, network: LanNetwork) -> bool:
        """Whether ``network`` is remembered: this adapter, this prefix, this router."""
        return network in self._unwritten or network in (self._read() or ())

    def remember(self, network: LanNetwork) -> None:
        """Remember ``network``; twice changes nothing.

        Where the file cannot be written, it is trusted for the life of this process, and the
        log says so.
        """
        try:
            self._add(network)
        except OSError as error:
            self._unwritten.add(network)
            log.warning("%s will be asked about again: %s: %s", network, self._path, error.strerror)

    def _add(self, network: LanNetwork) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self._path.with_name(f"{self._path.name}.lock")):
            known = self._read()
            if known is None:
                self._path.replace(self._path.with_name(f"{self._path.name}.broken"))
            if network not in (known or ()):
                _write(self._path, [*(known or ()), network])

    def _read(self) -> list[LanNetwork] | None:
        """Return what is remembered, or None for a file that cannot be understood."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []
        with os.fdopen(descriptor, encoding="utf-8") as file:
            _refuse_what_others_can_write(self._path, os.fstat(descriptor))
            try:
                return list(_parse(json.load(file)))
            except (ValueError, TypeError, KeyError) as error:
                log.debug("%s trusts nothing: %s", self._path, error)
                return None


def _refuse_what_others_can_write(path: Path, found: os.stat_result) -> None:
    is_ours = found.st_uid in (os.getuid(), 0)
    if not is_ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{path}: others can write it, so it is not trusted",
            f"look at what it says, then: chmod 600 {path}",
        )


def _parse(document: Any) -> Iterator[LanNetwork]:
    if document["schema"] != _SCHEMA:
        raise ValueError(f"schema {document['schema']}")
    for entry in document["networks"]:
        mac = entry["router_mac"]
        yield LanNetwork(entry["interface"], entry["prefix"], str(mac).lower() if mac else None)


def _write(path: Path, networks: Iterable[LanNetwork]) -> None:
    entries = [
        {"interface": one.interface, "prefix": one.prefix, "router_mac": one.router_mac}
        for one in networks
    ]
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"schema": _SCHEMA, "networks": entries}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for whoever has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
