"""What is remembered of the networks that the user said yes to."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sshvpn.errors import ConfigError
from sshvpn.lan.trust import FileTrustStore
from sshvpn.model import LanNetwork

HOME = LanNetwork("wlan0", "192.168.1.0/24", "02:00:00:00:00:01")
CAFE = LanNetwork("wlan0", "192.168.1.0/24", "02:00:00:00:00:99")
CABLE = LanNetwork("eth0", "10.1.0.0/24", None)

REMEMBER = """
import sys
from pathlib import Path
from sshvpn.lan.trust import FileTrustStore
from sshvpn.model import LanNetwork
store = FileTrustStore(Path(sys.argv[1]))
for number in range(20):
    store.remember(LanNetwork(sys.argv[2], f"10.{number}.0.0/16", None))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sshvpn" / "trust.json"


def test_nothing_is_trusted_at_first(path: Path) -> None:
    assert not FileTrustStore(path).is_trusted(HOME)
    assert not path.parent.exists()


def test_what_is_remembered_is_trusted_by_the_next_process_too(path: Path) -> None:
    FileTrustStore(path).remember(HOME)
    FileTrustStore(path).remember(CABLE)
    store = FileTrustStore(path)
    assert store.is_trusted(HOME)
    assert store.is_trusted(CABLE)


@pytest.mark.parametrize(
    "other",
    [
        CAFE,
        LanNetwork("wlan0", "192.168.1.0/24", None),
        LanNetwork("eth0", "192.168.1.0/24", "02:00:00:00:00:01"),
        LanNetwork("wlan0", "192.168.0.0/16", "02:00:00:00:00:01"),
    ],
)
def test_another_adapter_prefix_or_router_is_another_network(path: Path, other: LanNetwork) -> None:
    store = FileTrustStore(path)
    store.remember(HOME)
    assert not store.is_trusted(other)


def test_remembering_twice_changes_nothing(path: Path) -> None:
    store = FileTrustStore(path)
    store.remember(HOME)
    before = path.stat().st_ino, path.read_bytes()
    store.remember(HOME)
    assert (path.stat().st_ino, path.read_bytes()) == before


def test_an_entry_that_was_deleted_is_forgotten_at_once(path: Path) -> None:
    store = FileTrustStore(path)
    store.remember(HOME)
    path.write_text('{"schema": 1, "networks": []}')
    assert not store.is_trusted(HOME)


def test_the_file_is_closed_to_others(path: Path) -> None:
    FileTrustStore(path).remember(HOME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "networks": [
            {
                "interface": "wlan0",
                "prefix": "192.168.1.0/24",
                "router_mac": "02:00:00:00:00:01",
            }
        ],
    }


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    store = FileTrustStore(path)
    store.remember(HOME)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others can write it"):
        store.is_trusted(HOME)
    with pytest.raises(ConfigError, match="others can write it"):
        store.remember(CAFE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema": 1}',
        b'{"schema": 2, "networks": []}',
        b'{"schema": 1, "networks": 7}',
        b'{"schema": 1, "networks": [{"interface": "eth0"}]}',
        b'{"schema": 1, "networks": ["eth0"]}',
    ],
)
def test_a_broken_file_trusts_nothing_and_is_kept_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    store = FileTrustStore(path)
    assert not store.is_trusted(HOME)
    assert path.read_bytes() == content

    store.remember(HOME)

    assert store.is_trusted(HOME)
    assert path.with_name("trust.json.broken").read_bytes() == content


def test_where_nothing_can_be_written_trust_holds_for_this_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = FileTrustStore(tmp_path / "file" / "trust.json")
    with caplog.at_level(logging.WARNING):
        store.remember(HOME)
    assert store.is_trusted(HOME)
    assert "will be asked about again" in caplog.text


def test_several_processes_lose_nothing_of_each_other(path: Path) -> None:
    words = [sys.executable, "-c", REMEMBER, str(path)]
    running = [subprocess.Popen([*words, name]) for name in ("eth0", "eth1", "eth2")]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    store = FileTrustStore(path)
    for name in ("eth0", "eth1", "eth2"):
        for number in range(20):
            assert store.is_trusted(LanNetwork(name, f"10.{number}.0.0/16", None))
    assert sorted(file.name for file in path.parent.iterdir()) == ["trust.json", "trust.json.lock"]
