"""A user's services: what the last of them leaves, and which sandbox one can log in from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sshvpn.services import KINDS, Kind
from sshvpn.system.systemd import manager, relaxed, users

TUNNEL, FORWARD = KINDS["tunnel"], KINDS["forward"]


@pytest.mark.parametrize(
    ("others", "is_left"), [([(TUNNEL, "office")], False), ([(FORWARD, "other")], True)]
)
def test_the_template_goes_with_the_last_of_its_own_kind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: list[tuple[Kind, str]],
    *,
    is_left: bool,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(manager, "enabled", lambda: iter(others))
    monkeypatch.setattr(manager, "is_enabled", lambda *_: True)
    monkeypatch.setattr(manager.UserServices, "_systemctl", staticmethod(lambda *_: None))
    template = tmp_path / "systemd" / "user" / FORWARD.template
    template.parent.mkdir(parents=True)
    template.touch()
    manager.UserServices(FORWARD).remove("web")
    assert template.exists() is is_left


Ends = dict[bool, tuple[int, str]]
"""How a trial login ends and what it says: with namespaces, and without."""

NO_OWNER = '{"code": "config_owner", "message": "Bad owner", "hint": ""}'
REFUSED = '{"code": "auth_refused", "message": "refused", "hint": ""}'
AWAY = '{"code": "unreachable", "message": "away", "hint": ""}'


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return what the trials were tried with: namespaces or none; how each ends is in ENDS."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(manager.UserServices, "_systemctl", staticmethod(lambda *_: None))
    return []


def services(monkeypatch: pytest.MonkeyPatch, tried: list[bool], ends: Ends) -> manager.Services:
    def run_once(_name: str, text: str) -> tuple[int, str]:
        tried.append("PrivateUsers=yes" in text)
        code, said = ends[tried[-1]]
        found = re.search(r"StandardOutput=file:(.*)", text)
        assert found is not None
        if said:
            Path(found[1]).write_text(said)
        return code, "Job failed."

    monkeypatch.setattr(users, "run_once", run_once)
    made = manager.UserServices(FORWARD)
    made.install("web", "a profile")
    return made


def test_where_it_logs_in_from_its_namespaces_it_has_them(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool]
) -> None:
    made = services(monkeypatch, tried, {True: (0, "")})
    assert made.try_login() is None
    assert (tried, made.lacks_namespaces()) == ([True], "")
    assert not relaxed.lasting(FORWARD, "web").exists()


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ((2, NO_OWNER), "Bad owner"),
        ((217, ""), "the kernel lets this user have none (217/USER)"),
        ((218, ""), "the kernel lets this user have none (218/CAPABILITIES)"),
        ((226, ""), "the kernel lets this user have none (226/NAMESPACE)"),
    ],
)
def test_where_they_are_in_the_way_it_does_without(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool], end: tuple[int, str], why: str
) -> None:
    made = services(monkeypatch, tried, {True: end, False: (0, "")})
    assert made.try_login() is None
    assert tried == [True, False]
    assert made.lacks_namespaces() == why
    drop_in = relaxed.lasting(FORWARD, "web")
    assert "PrivateUsers=no\n" in drop_in.read_text()
    made.close()
    assert not drop_in.parent.exists()


def test_enabled_again_it_is_looked_at_anew(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool]
) -> None:
    for path in (relaxed.lasting(FORWARD, "web"), relaxed.until_boot(FORWARD, "web")):
        path.parent.mkdir(parents=True)
        path.write_text("PrivateUsers=no\n")
    made = services(monkeypatch, tried, {True: (0, "")})
    assert made.try_login() is None
    assert not relaxed.lasting(FORWARD, "web").exists()
    made.close()
    assert relaxed.lasting(FORWARD, "web").read_text() == "PrivateUsers=no\n", "it was not kept"
    assert relaxed.until_boot(FORWARD, "web").exists()


def test_what_is_refused_without_them_too_is_told_as_ever(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool]
) -> None:
    made = services(monkeypatch, tried, {True: (217, ""), False: (5, REFUSED)})
    refused = made.try_login()
    assert refused is not None
    assert (refused["exit_code"], refused["code"]) == (5, "auth_refused")
    assert not relaxed.lasting(FORWARD, "web").exists()


def test_a_trial_that_took_too_long_says_nothing_of_namespaces(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool]
) -> None:
    made = services(monkeypatch, tried, {True: (15, ""), False: (0, "")})
    refused = made.try_login()
    assert refused is not None
    assert (refused["message"], tried) == ("Job failed.", [True])
    assert not relaxed.lasting(FORWARD, "web").exists()


def test_a_server_that_is_away_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tried: list[bool]
) -> None:
    made = services(monkeypatch, tried, {True: (6, AWAY)})
    refused = made.try_login()
    assert refused is not None
    assert (refused["code"], tried) == ("unreachable", [True])
