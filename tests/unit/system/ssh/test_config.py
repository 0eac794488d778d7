"""What ssh says of a host is taken as it is said; what it complains of keeps its words."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from sshvpn.errors import ConfigError, FileOwnerError, UsageError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh.config import begin, error_of, is_chosen, parse, resolve

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")


def resolved(
    config: Path, host: str = "box", options: SshOptions | None = None, *extra: str
) -> Mapping[str, tuple[str, ...]]:
    given = options or SshOptions(config_file=str(config))
    return asyncio.run(resolve(Destination(host), given, extra))


def test_a_repeated_key_keeps_all_its_values_in_order() -> None:
    parsed = parse("user alice\nidentityfile ~/.ssh/a key\nidentityfile /b\nstdinnull\n")
    assert parsed == {
        "user": ("alice",),
        "identityfile": ("~/.ssh/a key", "/b"),
        "stdinnull": ("",),
    }


def test_keys_are_lower_case() -> None:
    assert parse("canonicalizePermittedcnames none\n") == {"canonicalizepermittedcnames": ("none",)}


@pytest.mark.parametrize(
    ("stderr", "kind", "message"),
    [
        (
            "/x/c: line 2: Bad configuration option: foo\n/x/c: terminating, 1 bad …\n",
            ConfigError,
            "/x/c:2: Bad configuration option: foo",
        ),
        ("/a b/c line 12: Bad port 'abc'.\n", ConfigError, "/a b/c:12: Bad port 'abc'"),
        (
            "command-line line 0: Bad port 'abc'.\n",
            UsageError,
            "ssh does not take that option: Bad port 'abc'",
        ),
        (
            "Can't open user config file /n: No such file or directory\n",
            ConfigError,
            "Can't open user config file /n: No such file or directory",
        ),
        (
            "Bad owner or permissions on /home/a/.ssh/config\n",
            FileOwnerError,
            "Bad owner or permissions on /home/a/.ssh/config",
        ),
        (
            "hostname contains invalid characters\n",
            UsageError,
            "ssh does not take that: hostname contains invalid characters",
        ),
        ("", ConfigError, "ssh could not read its configuration"),
    ],
)
def test_an_error_says_what_ssh_said(stderr: str, kind: type[UsageError], message: str) -> None:
    error = error_of(stderr)
    assert type(error) is kind
    assert error.message == message


@needs_ssh
def test_include_match_and_the_command_line_are_honoured(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host box\n  Port 2222\n  IdentityFile /k/one\n")
    config = tmp_path / "config"
    config.write_text(
        f"Include {tmp_path}/more\nMatch originalhost box exec true\n"
        "  HostName box.example\n  IdentityFile /k/two\n"
    )
    zero = tmp_path / "zero"
    zero.write_text("")  # ssh leaves out an -i that is not there
    options = SshOptions(str(config), (str(zero),), None, (("User", "carol"),))
    found = resolved(config, "box", options)
    assert found["hostname"] == ("box.example",)
    assert found["port"] == ("2222",)
    assert found["user"] == ("carol",)
    assert found["identityfile"] == (str(zero), "/k/one", "/k/two")


@needs_ssh
def test_what_was_begun_is_taken_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host box\n  Port 2201\n", "utf-8")
    asked = SshOptions(config_file=str(config))
    begin(Destination("box"), asked)
    begin(Destination("box"), asked)
    assert resolved(config)["port"] == ("2201",)
    config.write_text("Host box\n  Port 2202\n", "utf-8")
    assert resolved(config)["port"] == ("2202",)


@needs_ssh
def test_what_was_begun_and_is_wrong_is_told_by_who_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Foo bar\n", "utf-8")
    begin(Destination("box"), SshOptions(config_file=str(config)))
    with pytest.raises(ConfigError, match="Bad configuration option: foo"):
        resolved(config)
    config.write_text("", "utf-8")
    assert resolved(config)["hostname"] == ("box",)


@needs_ssh
def test_words_of_our_own_win(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("User dave\n")
    assert resolved(config, "box", None, "-o", "User=eve")["user"] == ("eve",)


@needs_ssh
def test_it_can_be_told_whether_ciphers_were_chosen(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host chosen\n  Ciphers aes256-ctr\n")
    chosen, left = resolved(config, "chosen"), resolved(config, "left")
    assert is_chosen(chosen, "ciphers")
    assert not is_chosen(left, "ciphers")
    assert not is_chosen(chosen, "macs")


@needs_ssh
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host box\n  Frobnicate yes\n")
    with pytest.raises(ConfigError, match=rf"{config}:2: Bad configuration option: frobnicate"):
        resolved(config)


@needs_ssh
@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "-F", "--"])
def test_a_host_never_becomes_an_option(host: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("")
    try:
        found = resolved(config, host)
    except UsageError:
        return
    assert found["hostname"] == (host.lower(),)
    assert "proxycommand" not in found


def test_without_ssh_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no ssh on this machine"):
        resolved(tmp_path / "none")
