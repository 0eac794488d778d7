"""The settings of adapters, where one cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshvpn.errors import SshvpnError
from sshvpn.plan.state import Setting, Sysctl
from sshvpn.privileged import sysctl
from sshvpn.privileged.sysctl import Settings

FORWARDING = Sysctl(Setting.FORWARDING4, "lan0", "1", "0")
PATH = FORWARDING.path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a machine with one adapter, lan0, that forwards nothing."""
    proc = tmp_path / "proc"
    monkeypatch.setattr(sysctl, "_PROC", proc)
    for name in ("lan0", "all"):
        file = proc / Setting.FORWARDING4.value.format(name)
        file.parent.mkdir(parents=True)
        file.write_text("0\n")
    return Settings(tmp_path)


def refuse_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str, _value: str) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(sysctl, "_write", refuse)


def test_what_could_not_be_written_is_not_held(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_write(monkeypatch)
    with pytest.raises(SshvpnError, match="Invalid argument"):
        settings.hold("3e8_a", FORWARDING)
    assert not settings.labels()
    assert not (tmp_path / "settings.json").exists()


def test_what_others_hold_stays_as_it_is_noted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.hold("3e8_a", FORWARDING)
    noted = (tmp_path / "settings.json").read_text()
    other = Sysctl(Setting.FORWARDING4, "lan0", "2", "0")
    with monkeypatch.context() as context:
        refuse_to_write(context)
        for label in ("3e8_a", "3e8_b"):
            with pytest.raises(SshvpnError):
                settings.hold(label, other)
    assert (tmp_path / "settings.json").read_text() == noted
    settings.release("3e8_a", PATH)
    assert (tmp_path / "proc" / PATH).read_text().strip() == "0"
