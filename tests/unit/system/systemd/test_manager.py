"""What a user's services leave when the last of them goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshvpn.services import KINDS, Kind
from sshvpn.system.systemd import manager

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
