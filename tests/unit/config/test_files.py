"""Where the configuration is, and which files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sshvpn.config import Config, config_path, load
from sshvpn.config.files import SIZE_MAX
from sshvpn.errors import ConfigError

GOOD = 'default_host = "gpu"\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory as mkdir makes it under the usual umask."""
    place = tmp_path / "sshvpn"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    return place


@pytest.fixture
def file(directory: Path) -> Path:
    """Return a good configuration."""
    made = directory / "config.toml"
    made.write_text(GOOD)
    made.chmod(0o644)
    return made


def refusal(file: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.message.startswith(f"{file}:")
    return caught.value


def test_the_path_is_the_named_one_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    monkeypatch.setenv("SSHVPN_CONFIG", "/named.toml")
    assert config_path() == Path("/named.toml")
    monkeypatch.setenv("SSHVPN_CONFIG", "")
    assert config_path() == Path("/xdg/sshvpn/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_path() == Path("/home/alice/.config/sshvpn/config.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_path() == Path("/home/alice/.config/sshvpn/config.toml")


def test_a_named_path_is_taken_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSHVPN_CONFIG", "my.toml")
    assert config_path() == tmp_path / "my.toml"


def test_a_good_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSHVPN_CONFIG", str(file))
    assert load() == Config(default_host="gpu", path=file)


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "none" / "config.toml") == Config()
    assert load(Path(os.devnull)) == Config()


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_can_write_is_refused_and_the_hint_closes_it(
    file: Path, mode: int
) -> None:
    file.chmod(mode)
    error = refusal(file)
    assert f"chmod go-w {file}" in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_directory_that_others_can_write_is_refused(
    file: Path, directory: Path, mode: int
) -> None:
    directory.chmod(mode)
    assert f"chmod go-w {directory}" in refusal(file).hint


def test_one_hint_closes_file_and_directory(file: Path, directory: Path) -> None:
    directory.chmod(0o777)
    file.chmod(0o666)
    assert f"chmod go-w {file} {directory}" in refusal(file).hint


def test_a_sticky_directory_keeps_a_file_from_others(file: Path, directory: Path) -> None:
    directory.chmod(0o1777)
    assert load(file).default_host == "gpu"


def test_a_symbolic_link_is_followed_and_both_directories_count(
    file: Path, directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "dotfiles"
    other.mkdir()
    other.chmod(0o755)
    link = other / "link.toml"
    link.symlink_to(file)
    assert load(link).path == link
    directory.chmod(0o777)
    assert str(directory) in refusal(link).hint
    directory.chmod(0o755)
    other.chmod(0o777)
    assert str(other) in refusal(link).hint


def test_a_link_to_nothing_is_no_file(tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nothing")
    assert load(link) == Config()


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(link)
    assert "cannot be read" in refusal(link).message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(file: Path, directory: Path) -> None:
    os.chown(file, 12345, -1)
    assert "another user (uid 12345)" in refusal(file).message
    os.chown(file, 0, -1)
    os.chown(directory, 12345, -1)
    assert "directory of another user (uid 12345)" in refusal(file).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_refused(file: Path) -> None:
    file.chmod(0)
    assert "Permission denied" in refusal(file).message


def test_what_is_no_file_is_refused(directory: Path) -> None:
    assert "a directory" in refusal(directory).message
    fifo = directory / "fifo"
    os.mkfifo(fifo, 0o600)
    assert "not a regular file" in refusal(fifo).message


def test_a_file_in_place_of_the_directory_is_refused(file: Path) -> None:
    assert "cannot be read" in refusal(file / "config.toml").message


def test_a_huge_file_is_refused(file: Path) -> None:
    file.write_bytes(b"#" * (SIZE_MAX + 1))
    assert "larger than" in refusal(file).message


def test_a_file_that_is_not_utf8_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b"# one\n# two\n# \xff\n")
    assert refusal(file).message == f"{file}:3: not UTF-8"


def test_a_byte_order_mark_is_read_over(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(file).default_host == "gpu"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_config_error(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        assert isinstance(load(file), Config)
    except ConfigError as error:
        told = error.message
    else:
        told = str(file)
    assert told.startswith(str(file))
