"""``-F -i -J -l -o -p``: what reaches ssh, and what is refused before."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from sshvpn.cli.options import ssh_options
from sshvpn.errors import UsageError
from sshvpn.model import SshOptions


def parsed(*words: str) -> SshOptions:
    """Return what a real command gets for ``words``."""

    @click.command()
    @ssh_options
    def command(ssh: SshOptions) -> SshOptions:
        return ssh

    found = command.main(list(words), standalone_mode=False)
    assert isinstance(found, SshOptions)
    return found


def test_without_options_there_are_none() -> None:
    assert parsed() == SshOptions()


def test_all_four_are_handed_on(tmp_path: Path) -> None:
    file, key = tmp_path / "config", tmp_path / "key"
    file.touch()
    key.touch()
    found = parsed(
        f"-F{file}", "-i", str(key), "-i", "~/.ssh/id", "-J", "a,b:2", "-oPort=22", "-o", "User x"
    )
    assert found == SshOptions(
        str(file), (str(key), "~/.ssh/id"), "a,b:2", (("Port", "22"), ("User", "x"))
    )


def test_user_and_port_are_options_of_ssh_config_and_the_first() -> None:
    assert parsed("-o", "Port=1", "-p", "2222", "-lbob").options == (
        ("User", "bob"), ("Port", "2222"), ("Port", "1")
    )  # fmt: skip


def test_relative_files_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    assert parsed("-F", "x", "-i", "x") == SshOptions(f"{tmp_path}/x", (f"{tmp_path}/x",))


def test_what_ssh_expands_itself_stays_as_it_is() -> None:
    assert parsed("-F", "none").config_file == "none"
    keys = ("%d/.ssh/%r", "${KEYS}/a", "~/.ssh/b")
    assert parsed(*(word for key in keys for word in ("-i", key))).identity_files == keys


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-F", "/no/such"], "no such file"),
        (["-F", "/"], "no such file"),
        (["-i", "/no/such"], "no such file"),
        (["-i", ""], "no name of a file"),
        (["-i", "~/a\nProxyCommand x"], "no name of a file"),
        (["-F", "a\nb"], "no name of a file"),
        (["-J", "a;b"], "holds ';'"),
        (["-l", ""], "empty user"),
        (["-l", "-x"], "does not begin with '-'"),
        (["-l", "a b"], "holds ' '"),
        (["-p", "0"], "-p is 0"),
        (["-p", "x"], "not a number"),
        (["-o", "StrictHostKeyChecking=no"], "always checked"),
        (["-o", "Port"], "not OPTION=VALUE"),
    ],
)
def test_what_is_wrong_is_a_usage_error(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parsed(*words)
