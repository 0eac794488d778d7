"""The kernel's settings of adapters, held by tunnels and put back by the last one.

Unlike all else of ours they bear no mark, so what was before stands on disk before the change:
``settings.json`` in a directory that only root can enter, one object for each setting::

    "net/ipv4/conf/lan0/forwarding": {"before": "0", "value": "1", "holders": ["3e8_…"]}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.plan.state import GONE, Setting, Sysctl

_PROC = Path("/proc/sys")
_ALL6 = Setting.FORWARDING6.value.format("all")


class Settings:
    """The settings that tunnels hold. ``directory`` is that of the network namespace."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "settings.json"
        self._lock = directory / "settings.lock"

    def hold(self, label: str, sysctl: Sysctl) -> None:
        """Have the setting at the value, for ``label``. Twice is fine.

        What is so already is not written. Raises SshvpnError; then it is held as it was before. A
        crash leaves at most a record of what was not changed yet.
        """
        path = sysctl.path
        with self._records() as records:
            actual = _read(path)
            if actual is None:
                raise SshvpnError(f"this kernel has no setting {path}")
            fresh: dict[str, Any] = {"before": actual, "value": sysctl.value, "holders": []}
            if path == _ALL6:  # writing it writes every adapter's
                fresh["others"] = _forwarding6_of_adapters()
            elif (switch := _switch_of(path)) is not None:
                fresh["switch"] = _read(switch)
            before = json.dumps(records)
            record = records.setdefault(path, fresh)
            if label not in record["holders"]:
                record["holders"].append(label)
            record["value"] = sysctl.value
            self._save(records)
            try:
                if actual != sysctl.value:
                    _write(path, sysctl.value)
            except OSError as error:
                # Saved here: what is as it was read is not written at the end.
                records.clear()
                records.update(json.loads(before))
                self._save(records)
                raise SshvpnError(f"cannot set {path}: {error.strerror}") from error

    def release(self, label: str, path: str) -> None:
        """Hold it no longer. The last to do so puts back what was, unless others changed it.

        Forwarding that somebody has meanwhile switched on for all adapters is theirs, too.
        """
        with self._records() as records:
            record = records.get(path)
            if record is None or label not in record["holders"]:
                return
            record["holders"].remove(label)
            if record["holders"]:
                return
            # Put back before it is forgotten: a crash in between does it twice at worst.
            is_ours = _read(path) == record["value"] and not _is_switched_since(path, record)
            if is_ours and record["value"] != record["before"]:
                with contextlib.suppress(OSError):  # it goes with its adapter
                    _write(path, record["before"])
                for other, value in record.get("others", {}).items():
                    if _read(other) not in (None, value):
                        _write(other, value)
            del records[path]

    def held(self, label: str) -> frozenset[Sysctl]:
        """Return what ``label`` holds, at the values that it really has now."""
        with self._records() as records:
            found = []
            for path, record in records.items():
                if label in record["holders"]:
                    setting, interface = _parsed(path)
                    value = _read(path) or GONE
                    before = value if _is_switched_since(path, record) else record["before"]
                    found.append(Sysctl(setting, interface, value, before))
            return frozenset(found)

    def labels(self) -> set[str]:
        """Return all who hold something."""
        with self._records() as records:
            return {label for record in records.values() for label in record["holders"]}

    def without_us(self) -> dict[str, str]:
        """Return the settings of all adapters, as they would be if no tunnel held any."""
        found = settings()
        with self._records() as records:
            for path, record in records.items():
                is_ours = found.get(path) == record["value"]
                if is_ours and not _is_switched_since(path, record):
                    found[path] = record["before"]
        return found

    @contextlib.contextmanager
    def _records(self) -> Iterator[dict[str, Any]]:
        """Lock, read, and write what has changed."""
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = self._file.read_text() if self._file.exists() else "{}"
            records = json.loads(text)
            try:
                yield records
            finally:
                if json.dumps(records) != text:
                    self._save(records)

    def _save(self, records: dict[str, Any]) -> None:
        if not records:
            self._file.unlink(missing_ok=True)
            return
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(records))
        fresh.replace(self._file)


def settings() -> dict[str, str]:
    """Return the settings that a plan may ask for, of all adapters, as they are now."""
    found = {}
    for setting in Setting:
        head, tail = setting.value.split("{}")
        for adapter in _adapters(head):
            path = f"{head}{adapter}{tail}"
            value = _read(path)
            if value is not None:
                found[path] = value
    return found


def has_ipv6() -> bool:
    """Whether new adapters of this machine have IPv6."""
    return all(_read(f"net/ipv6/conf/{name}/disable_ipv6") == "0" for name in ("all", "default"))


def _switch_of(path: str) -> str | None:
    """Return the setting whose writing writes this one, too, and which we never write, or None.

    It is ip_forward by its other name (ip-sysctl.rst).
    """
    setting, interface = _parsed(path)
    is_written = setting is Setting.FORWARDING4 and interface != "all"
    return setting.value.format("all") if is_written else None


def _is_switched_since(path: str, record: dict[str, Any]) -> bool:
    """Whether somebody has given all adapters the value that we gave to one."""
    switch = _switch_of(path)
    return switch is not None and record.get("switch") != _read(switch) == record["value"]


def _parsed(path: str) -> tuple[Setting, str]:
    for setting in Setting:
        head, tail = setting.value.split("{}")
        if path.startswith(head) and path.endswith(tail):
            return setting, path.removeprefix(head).removesuffix(tail)
    raise SshvpnError(f"{path} is not a setting of ours")


def _forwarding6_of_adapters() -> dict[str, str]:
    head, tail = Setting.FORWARDING6.value.split("{}")
    return {
        f"{head}{name}{tail}": _read(f"{head}{name}{tail}") or "0"
        for name in _adapters(head)
        if name != "all"
    }


def _adapters(head: str) -> list[str]:
    directory = _PROC / head
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _read(path: str) -> str | None:
    try:
        return (_PROC / path).read_text().strip()
    except OSError:
        return None


def _write(path: str, value: str) -> None:
    (_PROC / path).write_text(value)
