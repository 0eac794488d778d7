"""A service that has ended: whether it ended of its namespaces, and what becomes of it then."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshvpn.services import KINDS
from sshvpn.system.systemd import relaxed, users

FORWARD = KINDS["forward"]
READS, NOT, TOO_LATE = 0, 255, 15
SSH_WORDS = ("-F", "/home/alice/work config", "--", "alice@server")


class Manager:
    """Knows how ssh ends with namespaces and without, and what was asked of systemctl."""

    def __init__(self, within: int, outside: int) -> None:
        self._ends = {True: within, False: outside}
        self.tried: list[bool] = []
        self.asked: list[str] = []

    def run_once(self, _name: str, text: str) -> tuple[int, str]:
        assert 'ExecStart=ssh -G -F "/home/alice/work config" -- alice@server\n' in text
        self.tried.append("PrivateUsers=yes" in text)
        return self._ends[self.tried[-1]], ""

    def systemctl(self, *words: str) -> None:
        self.asked.append(" ".join(words))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def fit(
    monkeypatch: pytest.MonkeyPatch, manager: Manager, status: str, code: str = "exited"
) -> str | None:
    monkeypatch.setenv("EXIT_CODE", code)
    monkeypatch.setenv("EXIT_STATUS", status)
    monkeypatch.setattr(users, "run_once", manager.run_once)
    monkeypatch.setattr(users, "systemctl", manager.systemctl)
    return relaxed.fit(FORWARD, "web", SSH_WORDS)


@pytest.mark.parametrize(("status", "of"), [("217", "USER"), ("226", "NAMESPACE")])
def test_where_the_kernel_makes_none_any_more_it_does_without_until_the_next_boot(
    monkeypatch: pytest.MonkeyPatch, status: str, of: str
) -> None:
    manager = Manager(int(status), READS)
    assert fit(monkeypatch, manager, status) == (
        f"the kernel lets this user have none ({status}/{of})"
    )
    assert "PrivateUsers=no\n" in relaxed.until_boot(FORWARD, "web").read_text()
    assert not relaxed.lasting(FORWARD, "web").exists()
    assert manager.asked == ["daemon-reload"], "systemd starts it again by itself"


def test_where_ssh_reads_its_configuration_outside_alone_it_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = Manager(NOT, READS)
    why = fit(monkeypatch, manager, "2")
    assert why == "ssh does not read its configuration within them"
    assert relaxed.until_boot(FORWARD, "web").exists()
    assert manager.asked == ["daemon-reload", "restart --no-block sshvpn@web.service"]


@pytest.mark.parametrize(
    ("within", "outside"), [(READS, READS), (NOT, NOT), (226, 203), (TOO_LATE, READS)]
)
def test_what_the_namespaces_have_no_part_in_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, within: int, outside: int
) -> None:
    """A mistake in the configuration; or what ran in the sandbox, and would be out of it."""
    manager = Manager(within, outside)
    assert fit(monkeypatch, manager, "226") is None
    assert not relaxed.until_boot(FORWARD, "web").exists()
    assert manager.asked == []


@pytest.mark.parametrize(
    ("status", "code"), [("1", "exited"), ("5", "exited"), ("KILL", "killed"), ("2", "killed")]
)
def test_what_ended_of_something_else_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, status: str, code: str
) -> None:
    manager = Manager(NOT, READS)
    assert fit(monkeypatch, manager, status, code) is None
    assert manager.tried == []


def test_one_that_does_without_already_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in (relaxed.lasting(FORWARD, "web"), relaxed.until_boot(FORWARD, "web")):
        path.parent.mkdir(parents=True)
        path.touch()
        manager = Manager(NOT, READS)
        assert fit(monkeypatch, manager, "2") is None
        assert manager.tried == []
        path.unlink()
