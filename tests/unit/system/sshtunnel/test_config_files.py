"""Without ssh the files are read here, and give what ssh would have said of them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from sshvpn.errors import ConfigError, UsageError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh.config import Config, resolve
from sshvpn.system.sshtunnel.config_files import resolve_without_ssh
from sshvpn.system.sshtunnel.settings import settings_of

SAME = ("host", "user", "port", "host_key_alias", "proxy_command", "alive_interval_s", "methods")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


def read(config: Path, host: str = "box", **options: str) -> Config:
    given = SshOptions(config_file=str(config), options=tuple(options.items()))
    return resolve_without_ssh(Destination(host), given)


def test_defaults_where_no_file_says_anything(config: Path, tmp_path: Path) -> None:
    config.write_text("")
    found = read(config)
    assert found["hostname"] == ("box",)
    assert found["port"] == ("22",)
    assert f"{tmp_path}/.ssh/id_ed25519" in found["identityfile"]


def test_the_users_own_file_is_found(config: Path) -> None:
    config.write_text("Host box\n  HostName there.example\n")
    found = resolve_without_ssh(Destination("box"), SshOptions())
    assert found["hostname"] == ("there.example",)


def test_the_command_line_comes_first(config: Path) -> None:
    config.write_text("Host box\n  Port 1\n  User file\n  IdentityFile /k/file\n")
    options = SshOptions(str(config), ("/k/said",), "hop", (("User", "said"),))
    found = resolve_without_ssh(Destination("box", port=2), options)
    assert (found["port"], found["user"], found["proxyjump"]) == (("2",), ("said",), ("hop",))
    assert found["identityfile"] == ("/k/said", "/k/file")


def test_includes_are_read_in_their_places(config: Path) -> None:
    (config.parent / "a.conf").write_text("Host box\n  Port 1\nHost other\n  User other\n")
    (config.parent / "b.conf").write_text("Host box\n  Port 2\n  HostName b.example\n")
    config.write_text("Include *.conf\nUser everybody\n")
    found = read(config)
    assert (found["port"], found["hostname"]) == (("1",), ("b.example",))
    assert found["user"] == ("everybody",)


def test_an_include_in_a_block_needs_ssh(config: Path) -> None:
    config.write_text("Host box\n  Include more\n")
    with pytest.raises(UsageError, match=f"{config}:2: an Include inside a Host"):
        read(config)


def test_includes_that_go_round_end(config: Path) -> None:
    config.write_text(f"Include {config}\n")
    with pytest.raises(ConfigError, match="too many Includes"):
        read(config)


def test_a_file_that_is_not_there_is_told(config: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot read {config}"):
        read(config)


def test_a_line_that_makes_no_sense_is_told(config: Path) -> None:
    config.write_text("Match\n")
    with pytest.raises(ConfigError, match=str(config)):
        read(config)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")
@pytest.mark.parametrize(
    "text",
    [
        "Host box\n  HostName a.example\n  User alice\n  Port 2222\nHost *\n  User bob\n",
        "Host b* !box\n  User alice\nHost box\n  User bob\n  HostKeyAlias the-box\n",
        "Match host box\n  User alice\nHost *\n  ServerAliveInterval 7\n",
        "Host box\n  ProxyCommand nc --x %h %p\n  HostName=1.2.3.4\n",
        "Host box\n  IdentityFile /k/one\n  IdentityFile /k/two\n",
    ],
)
def test_it_says_what_ssh_says(config: Path, text: str) -> None:
    config.write_text(text)
    ours = read(config)
    theirs = asyncio.run(resolve(Destination("box"), SshOptions(config_file=str(config))))
    home = config.parent.parent
    one, other = (settings_of(found, {}, home) for found in (ours, theirs))
    for name in SAME:
        assert getattr(one, name) == getattr(other, name), name
    if "IdentityFile" in text:
        assert one.identity_files == other.identity_files
