"""What a place that cannot be listened on means: whose fault it is, and what mends it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sshvpn.errors import UsageError
from sshvpn.model import UnixEndpoint
from sshvpn.system.network.local_listener import listen_error, probe


def test_a_socket_in_a_directory_that_is_not_there_wants_it_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        probe(UnixEndpoint(f"{tmp_path}/none/a.sock"))
    assert f"there is no directory {tmp_path}/none" in raised.value.message
    assert raised.value.hint == f"make it: mkdir -p {tmp_path}/none"


def test_a_socket_below_a_file_names_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as raised:
        probe(UnixEndpoint(f"{tmp_path}/file/a.sock"))
    assert f"{tmp_path}/file is no directory" in raised.value.message


def test_the_kernel_s_word_for_it_means_the_same() -> None:
    error = listen_error(UnixEndpoint("/none/a.sock"), OSError(errno.ENOENT, "No such file"))
    assert isinstance(error, UsageError)
    assert "/none" in error.hint


def test_a_socket_in_a_directory_that_is_there_is_free(tmp_path: Path) -> None:
    where = UnixEndpoint(f"{tmp_path}/a.sock")
    assert probe(where) == where
