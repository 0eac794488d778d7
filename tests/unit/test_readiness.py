"""What a service manager is told, and that READY is said in `running` alone."""

from __future__ import annotations

from typing import Any

import pytest

from sshvpn.errors import HostKeyChangedError
from sshvpn.readiness import Readiness, status_line


class Heard:
    """A manager that keeps what it is told. Implements boundary.Manager."""

    watchdog_s = None

    def __init__(self, *, hides_owners: bool = False) -> None:
        self.hides_owners = hides_owners
        self.said: list[dict[str, str]] = []

    def say(self, **variables: str) -> None:
        self.said.append(variables)

    def say_reloading(self, status: str) -> None:
        self.said.append({"RELOADING": "1", "STATUS": status})

    def close(self) -> None:
        """Nothing is open."""


def snapshot(state: str, **changed: Any) -> dict[str, Any]:
    record = {
        "host": "gpu", "remote_address": "100.64.0.2/30", "routes": ["10.20.0.0/16"],
        "retry_at": None, "last_error": None, **changed,
    }  # fmt: skip
    return {"state": state, "records": [record]}


LOST = {"code": "lost", "message": "the link has gone"}


def test_ready_is_said_once_and_in_running_alone() -> None:
    heard = Heard()
    readiness = Readiness(heard)
    for state in ("starting", "backoff", "starting", "running", "running", "backoff", "running"):
        error = LOST if state == "backoff" else None
        readiness.take(snapshot(state, last_error=error))
    assert [one["STATUS"].split(":")[0] for one in heard.said if "READY" in one] == ["running"]


@pytest.mark.parametrize(
    ("state", "code", "hides", "is_for"),
    [
        ("failed", "config_owner", True, True),
        ("failed", "config_owner", False, False),
        ("failed", "config", True, False),
        ("backoff", "lost", True, False),
    ],
)
def test_what_the_sandbox_may_be_why_of_is_left_to_the_manager(
    state: str, code: str, *, hides: bool, is_for: bool
) -> None:
    readiness = Readiness(Heard(hides_owners=hides))
    seen = snapshot(state, last_error={"code": code, "message": "it said so"})
    assert readiness.is_for_manager(seen) is is_for
    assert not readiness.is_for_manager(snapshot("running"))


def test_after_a_reload_it_is_said_again() -> None:
    heard = Heard()
    readiness = Readiness(heard)
    readiness.reloading()
    assert heard.said == []
    readiness.take(snapshot("running"))
    readiness.reloading()
    readiness.take(snapshot("starting"))
    readiness.take(snapshot("running"))
    kinds = [next(iter(one)) for one in heard.said]
    assert kinds == ["READY", "RELOADING", "STATUS", "READY"]


@pytest.mark.parametrize("state", ["failed", "backoff"])
def test_a_reload_that_only_a_person_can_go_on_with_is_over(state: str) -> None:
    heard = Heard()
    readiness = Readiness(heard)
    readiness.take(snapshot("running"))
    readiness.reloading()
    readiness.take(snapshot("backoff", last_error=LOST, retry_at="2026-01-02T03:04:05.678Z"))
    assert "READY" not in heard.said[-1]
    readiness.take(snapshot(state, last_error=LOST))
    assert heard.said[-1] == {"READY": "1", "STATUS": f"{state}: the link has gone"}
    readiness.take(snapshot("running"))
    assert "READY" not in heard.said[-1]


@pytest.mark.parametrize("state", ["failed", "backoff"])
def test_what_has_never_run_is_not_ready_for_that(state: str) -> None:
    heard = Heard()
    Readiness(heard).take(snapshot(state, last_error=LOST))
    assert "READY" not in heard.said[-1]


def test_what_has_not_changed_is_not_said_again() -> None:
    heard = Heard()
    readiness = Readiness(heard)
    readiness.take(snapshot("starting"))
    readiness.take(snapshot("starting"))
    assert len(heard.said) == 1


def test_the_last_words_say_why_and_what_to_do() -> None:
    heard = Heard()
    Readiness(heard).failed(HostKeyChangedError("the host key has changed", "ssh-keygen -R gpu"))
    assert heard.said == [
        {"STOPPING": "1", "STATUS": "failed: the host key has changed; ssh-keygen -R gpu"}
    ]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (snapshot("running"), "running: gpu is 100.64.0.2/30 routes 10.20.0.0/16"),
        (snapshot("running", listen=["127.0.0.1:9999"]), "running: 127.0.0.1:9999 -> gpu"),
        (snapshot("starting"), "starting"),
        (
            snapshot("backoff", last_error=LOST, retry_at="2026-01-02T03:04:05.678Z"),
            "backoff: the link has gone; next try at 2026-01-02T03:04:05Z",
        ),
        (snapshot("failed", last_error=LOST), "failed: the link has gone"),
        (snapshot("stopping", last_error=LOST), "stopping"),
    ],
)
def test_the_status_is_one_line(said: dict[str, Any], line: str) -> None:
    assert status_line(said) == line
