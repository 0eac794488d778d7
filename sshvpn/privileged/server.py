"""The helper's conversation: one line of JSON each way, until the socket ends.

::

                                    {"ok": true, "hello": 1, "actor": UID, "pid": P}
    {"op": "open", "label": L}      {"ok": true, "unit": N}     once; then the others
    {"op": "facts"}                 {"ok": true, "facts": …}
    {"op": "read"}                  {"ok": true, "state": …}
    {"op": "apply", "steps": […]}   {"ok": true}                 all, or none
    {"op": "enclose", "pid": P}     {"ok": true, "cgroup": PATH}  what P starts goes around
    {"op": "pace", "by": NAME}      {"ok": true}  a TCP socket that came with it, by NAME
    {"op": "watch"}                 {"ok": true}  with a socket that hears of the firewall
    {"op": "sweep", "spare": […]}   {"ok": true, "swept": […], "failed": […]}  labels, all but these
    {"op": "close"}                 {"ok": true, "failed": […]}  the tunnel's end is gone

    anything else, or what fails    {"ok": false, "error": {"code", "message", "hint"}}

When the socket ends, however it does, the tunnel's local end is torn down.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from sshvpn.errors import SshvpnError, TakenError, printable
from sshvpn.plan import marks
from sshvpn.plan.codec import step_from_record, to_record
from sshvpn.plan.steps import Step
from sshvpn.privileged import cgroup, firewall, managers
from sshvpn.privileged.check import Scope, check
from sshvpn.privileged.kernel import Kernel
from sshvpn.privileged.lines import Lines
from sshvpn.privileged.netlink import adapters
from sshvpn.privileged.pace import pace
from sshvpn.privileged.units import Units

LONGEST_LINE = 1 << 20
_MOST_STEPS = 4096


class HelperServer:
    """Serves one client, user ``actor``'s, over one socket."""

    def __init__(self, peer: socket.socket, actor: int, kernel: Kernel, units: Units) -> None:
        self._peer = peer
        self._actor = actor
        self._kernel = kernel
        self._units = units
        self._scope: Scope | None = None
        self._cgroup: str | None = None
        self._handed: socket.socket | None = None
        self._lines = Lines(peer)
        self._is_over = False

    def serve(self) -> None:
        """Answer until the socket ends or the client closes; leaves nothing behind."""
        try:
            self._kernel.netlink.prepare()
            while not self._is_over:
                line = self._lines.next(LONGEST_LINE)
                if not line.endswith(b"\n"):
                    break  # the end, or a line that nobody of ours sends
                self._send(self._answer(line), self._handed)
                self._handed = None
                self._lines.forget()
        except OSError:  # the client is gone
            pass
        finally:
            self._lines.forget()
            self._tear_down()

    def _send(self, record: Mapping[str, object], handed: socket.socket | None) -> None:
        if handed is None:
            self._peer.sendall(_line(record))
            return
        with handed:
            socket.send_fds(self._peer, [_line(record)], [handed.fileno()])

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            return {"ok": True, **_operation(request)(self, request)}
        except SshvpnError as error:
            return refusal(error.code, str(error), error.hint)
        except (ValueError, RecursionError) as error:
            return refusal("usage", f"refused by the helper: {error}")
        except Exception as error:  # noqa: BLE001 (whatever it is, the tunnel must stay swept up)
            return refusal("failed", f"{type(error).__name__} in the helper: {error}")

    def _open(self, request: Mapping[str, Any]) -> dict[str, object]:
        label = request.get("label")
        if self._scope is not None:
            raise ValueError("open already")
        if not isinstance(label, str) or not marks.is_label(label):
            raise ValueError("no label")
        if self._actor not in (0, marks.owner_of(label)):
            raise ValueError("another user's label")
        with self._units.locked():
            if label in self._units.living().values():
                raise TakenError("this tunnel is up already", "see: sshvpn status")
            self._sweep({label})
            used = self._kernel.netlink.units()
            unit = self._units.claim(label, lambda unit: self._is_free(unit, used))
            managers.keep_away()
        self._scope = Scope(label, unit, self._actor, cgroup.of_service())
        return {"unit": unit}

    def _is_free(self, unit: int, used: set[int]) -> bool:
        is_taken = self._kernel.netlink.is_taken
        names = (marks.device_name(unit), marks.ssh_device_name(unit))
        return unit not in used and not any(is_taken(name) for name in names)

    def _facts(self, _: Mapping[str, Any]) -> dict[str, object]:
        return {"facts": to_record(self._kernel.facts())}

    def _read(self, _: Mapping[str, Any]) -> dict[str, object]:
        scope = self._need_scope()
        return {"state": to_record(self._kernel.read(scope.label, scope.unit))}

    def _apply(self, request: Mapping[str, Any]) -> dict[str, object]:
        scope = self._need_scope()
        records = request.get("steps")
        if not isinstance(records, list) or len(records) > _MOST_STEPS:
            raise ValueError("no steps")
        wanted: list[Step] = [step_from_record(record) for record in records]
        # The tunnel's own device may be among what the steps make.
        known = [*adapters(), scope.device]
        for step in wanted:
            try:
                check(step, scope, known)
            except ValueError as error:  # noqa: PERF203 (the message names the step)
                raise ValueError(f"{type(step).__name__}: {error}") from error
        self._kernel.apply(scope.label, wanted)
        return {}

    def _enclose(self, request: Mapping[str, Any]) -> dict[str, object]:
        scope = self._need_scope()
        pid = request.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 1:
            raise ValueError("no process")
        self._cgroup = cgroup.enclose(scope.label, pid, marks.owner_of(scope.label))
        return {"cgroup": self._cgroup}

    def _pace(self, request: Mapping[str, Any]) -> dict[str, object]:
        self._need_scope()
        pace(self._lines.take(), request.get("by"))
        return {}

    def _watch(self, _: Mapping[str, Any]) -> dict[str, object]:
        self._need_scope()
        self._handed = firewall.monitor()
        return {}

    def _sweep_all(self, request: Mapping[str, Any]) -> dict[str, object]:
        spared = request.get("spare", [])
        if not isinstance(spared, list) or not all(isinstance(one, str) for one in spared):
            raise ValueError("no labels")
        with self._units.locked():
            swept, failed = self._sweep(None, set(spared))
            self._let_managers_go()
        return {"swept": sorted(swept), "failed": failed}

    def _close(self, _: Mapping[str, Any]) -> dict[str, object]:
        self._is_over = True
        return {"failed": self._tear_down()}

    def _let_managers_go(self) -> None:
        if not self._units.living() and not self._units.left():
            managers.let_go()

    def _need_scope(self) -> Scope:
        if self._scope is None:
            raise ValueError("not open")
        return self._scope

    def _tear_down(self) -> list[str]:
        if self._scope is None:
            return []
        with self._units.locked():
            failed = self._kernel.tear_down(self._scope.label, self._scope.unit)
            if self._cgroup is not None:
                failed += cgroup.remove(self._cgroup)
            self._units.release()
            self._let_managers_go()
        self._scope = None
        return failed

    def _sweep(
        self, wanted: set[str] | None, spared: set[str] | frozenset[str] = frozenset()
    ) -> tuple[set[str], list[str]]:
        """Take away what dead helpers left: of ``wanted``, or of all that this user may.

        ``spared`` are labels whose helper is dead while their supervisor lives.
        """
        living = self._units.living()
        left = self._left(set(living))
        found = set(left.values()) | firewall.tables() | self._kernel.settings.labels()
        found |= {label for _, label in firewall.accepts()}
        found -= {*living.values(), *spared}
        found = {one for one in found if self._actor in (0, marks.owner_of(one))}
        swept, failed = found if wanted is None else found & wanted, []
        for label in swept:
            units = [unit for unit, of in left.items() if of == label] or [marks.UNITS]
            for unit in units:
                failed += self._kernel.tear_down(label, unit)
                self._units.forget(unit)
        if wanted is None:
            for path, label in cgroup.left({*living.values(), *spared}).items():
                if self._actor in (0, marks.owner_of(label)):
                    failed += cgroup.remove(path)
        return swept, failed

    def _left(self, living: set[int]) -> dict[int, str]:
        """Return the units that nobody holds but that are not gone, with their labels.

        One whose label nothing tells any more is root's to sweep.
        """
        found = dict.fromkeys(self._kernel.netlink.units(), marks.label_of(0, ""))
        found |= self._units.left()
        found |= {link.unit: link.label for link in self._kernel.netlink.links() if link.label}
        return {unit: label for unit, label in found.items() if unit not in living}


def refuse(peer: socket.socket, error: SshvpnError) -> None:
    """Answer the first request with ``error``, and no other."""
    with contextlib.suppress(OSError), peer.makefile("rwb") as lines:
        if lines.readline(LONGEST_LINE):
            lines.write(_line(refusal(error.code, str(error), error.hint)))


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _operation(request: object) -> Operation:
    """Return what ``request`` asks for. Raises ValueError."""
    name = request.get("op") if isinstance(request, dict) else None
    if not isinstance(name, str) or name not in _OPERATIONS:
        raise ValueError("not a request")
    return _OPERATIONS[name]


def refusal(code: str, message: str, hint: str = "") -> dict[str, object]:
    """Return the answer that tells of an error."""
    error = {"code": code, "message": printable(message)[:500], "hint": hint}
    return {"ok": False, "error": error}


Operation = Callable[[HelperServer, Mapping[str, Any]], dict[str, object]]
_OPERATIONS: dict[str, Operation] = {
    "open": HelperServer._open,  # noqa: SLF001 (the table is part of the class)
    "facts": HelperServer._facts,  # noqa: SLF001
    "read": HelperServer._read,  # noqa: SLF001
    "apply": HelperServer._apply,  # noqa: SLF001
    "enclose": HelperServer._enclose,  # noqa: SLF001
    "pace": HelperServer._pace,  # noqa: SLF001
    "watch": HelperServer._watch,  # noqa: SLF001
    "sweep": HelperServer._sweep_all,  # noqa: SLF001
    "close": HelperServer._close,  # noqa: SLF001
}
