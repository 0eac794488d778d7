"""How `enable` sees whether the service that it has started comes up."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from click.testing import CliRunner

from sshvpn.cli import enable
from sshvpn.cli.attach import Ended
from sshvpn.services import KINDS

OLD, NEW = {"InvocationID": "1"}, {"InvocationID": "2"}
COUNTED = {**OLD, "NRestarts": "1"}
"""systemd keeps the count of the one before, until the next one starts."""


def waited(monkeypatch: pytest.MonkeyPatch, before: str, *seen: Mapping[str, str]) -> str:
    told = iter(seen)
    monkeypatch.setattr(enable, "_POLL_S", 0.0)
    monkeypatch.setattr("sshvpn.wiring.services.state_of", lambda *_: next(told))
    return enable._wait_up(KINDS["tunnel"], "office", before)


@pytest.mark.parametrize("state", ["active", "deactivating", "inactive", "failed", "activating"])
def test_what_ran_before_is_not_what_was_started(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    stopping = {**COUNTED, "ActiveState": state}
    starting = {**NEW, "ActiveState": "activating", "NRestarts": "0"}
    active = {**NEW, "ActiveState": "active", "NRestarts": "0"}
    assert waited(monkeypatch, "1", stopping, stopping, starting, active) == ""


def test_a_first_one_has_no_other_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"ActiveState": "inactive", "InvocationID": ""}
    assert waited(monkeypatch, "", nothing, {**NEW, "ActiveState": "active"}) == ""


@pytest.mark.parametrize(
    "ended",
    [{"ActiveState": "failed", "NRestarts": "0"}, {"ActiveState": "activating", "NRestarts": "1"}],
)
def test_what_ends_at_its_start_is_told(
    monkeypatch: pytest.MonkeyPatch, ended: Mapping[str, str]
) -> None:
    seen = {**NEW, **ended, "ExecMainStatus": "5", "StatusText": "failed: the server says no"}
    with pytest.raises(Ended, match="the server says no") as told:
        waited(monkeypatch, "1", seen)
    assert told.value.exit_code == 5


@pytest.mark.parametrize("stays", [True, False])
def test_a_key_goes_with_the_last_that_logs_in_with_it(
    monkeypatch: pytest.MonkeyPatch, *, stays: bool
) -> None:
    both = [(KINDS["tunnel"], "web"), (KINDS["forward"], "web")]
    there = both if stays else both[1:]
    removed: list[str] = []

    class Manager:
        def remove(self, name: str) -> None:
            there.remove((KINDS["forward"], name))

        def close(self) -> None:
            pass

    monkeypatch.setattr("sshvpn.wiring.services.leave_root", lambda: None)
    monkeypatch.setattr("sshvpn.wiring.services.enabled", lambda: list(there))
    monkeypatch.setattr("sshvpn.wiring.services.manager_for", lambda _: Manager())

    def remove_key(name: str) -> bool:
        removed.append(name)
        return True

    monkeypatch.setattr("sshvpn.wiring.services.remove_key", remove_key)
    words = ["--forward", "web"]
    done = CliRunner().invoke(enable.disable, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert removed == ([] if stays else ["web"])
