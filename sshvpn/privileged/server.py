"""The helper's conversation: one line of JSON each way, until the socket ends.

::

                                    {"ok": true, "hello": 1, "actor": UID, "pid": P}
    {"op": "open", "label": L}      {"ok": true, "unit": N}     once; then the others. With the
                                    guard's socket; "unit": N takes over what a dead one has made
    {"op": "look", "label": L}      {"ok": true, "unit": N}     what open would give now
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
import gc
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
from sshvpn.privileged.guard import Guard
from sshvpn.privileged.kernel import Kernel
from sshvpn.privileged.lines import Lines
from sshvpn.privileged.netlink import adapters
from sshvpn.privileged.pace import pace
from sshvpn.privileged.sweeper import Sweeper
from sshvpn.privileged.units import Units

LONGEST_LINE = 1 << 20
_MOST_STEPS = 4096
_QUIET_S = 0.5
"""After this, what the last requests left behind goes: with fifty tunnels it is megabytes."""


class HelperServer:
    """Serves one client, user ``actor``'s, over one socket."""

    def __init__(self, peer: socket.socket, actor: int, kernel: Kernel, units: Units) -> None:
        self._peer = peer
        self._actor = actor
        self._kernel = kernel
        self._units = units
        self._sweeper = Sweeper(kernel, units, actor)
        self._guard: Guard | None = None
        self._scope: Scope | None = None
        self._cgroup: str | None = None
        self._handed: socket.socket | None = None
        self._lines = Lines(peer)
        self._is_over = False

    def serve(self) -> None:
        """Answer until the socket ends or the client closes; leaves nothing behind."""
        try:
            self._kernel.netlink.prepare()
            gc.freeze()  # what is loaded stays, and need not be looked at below
            while not self._is_over:
                if self._lines.is_quiet(_QUIET_S):
                    gc.collect()  # netlink's messages hold on to one another
                line = self._lines.next(LONGEST_LINE)
                if not line.endswith(b"\n"):
                    break  # the end, or a line that nobody of ours sends
                self._serve_one(line)
        except OSError:  # the client is gone
            pass
        finally:
            self._lines.forget()
            self._tear_down()

    def _serve_one(self, line: bytes) -> None:
        answer = self._answer(line)
        self._lines.forget()  # who reads the answer finds nothing kept
        self._send(answer, self._handed)
        self._handed = None
        self._kernel.tables.see()

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

    def _look(self, request: Mapping[str, Any]) -> dict[str, object]:
        label = self._label_in(request)
        with self._units.locked():
            used = self._kernel.netlink.units()
            return {"unit": self._units.likely(label, lambda unit: self._is_free(unit, used))}

    def _label_in(self, request: Mapping[str, Any]) -> str:
        label = request.get("label")
        if not isinstance(label, str) or not marks.is_label(label):
            raise ValueError("no label")
        if self._actor not in (0, marks.owner_of(label)):
            raise ValueError("another user's label")
        return label

    def _open(self, request: Mapping[str, Any]) -> dict[str, object]:
        if self._scope is not None:
            raise ValueError("open already")
        label = self._label_in(request)
        with self._units.locked():
            if label in self._units.living().values():
                raise TakenError("this tunnel is up already", "see: sshvpn status")
            unit = (
                self._take_over(label, request["unit"])
                if "unit" in request
                else (self._begin(label))
            )
            managers.keep_away()
        self._scope = Scope(label, unit, self._actor, cgroup.of_service())
        self._guard = Guard(label)
        self._handed = self._guard.line()
        return {"unit": unit}

    def _begin(self, label: str) -> int:
        self._sweeper.sweep({label})
        used = self._kernel.netlink.units()
        return self._units.claim(label, lambda unit: self._is_free(unit, used))

    def _take_over(self, label: str, unit: object) -> int:
        if not isinstance(unit, int) or not self._units.take_over(unit, label):
            raise ValueError("nothing to take over")
        return unit

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
        swept, failed = self._sweeper.sweep_all(set(spared))
        return {"swept": sorted(swept), "failed": failed}

    def _close(self, _: Mapping[str, Any]) -> dict[str, object]:
        self._is_over = True
        return {"failed": self._tear_down()}

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
            self._sweeper.let_managers_go()
        self._scope = None
        if self._guard is not None:
            self._guard.dismiss()
        return failed


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
    "look": HelperServer._look,  # noqa: SLF001
    "facts": HelperServer._facts,  # noqa: SLF001
    "read": HelperServer._read,  # noqa: SLF001
    "apply": HelperServer._apply,  # noqa: SLF001
    "enclose": HelperServer._enclose,  # noqa: SLF001
    "pace": HelperServer._pace,  # noqa: SLF001
    "watch": HelperServer._watch,  # noqa: SLF001
    "sweep": HelperServer._sweep_all,  # noqa: SLF001
    "close": HelperServer._close,  # noqa: SLF001
}
