"""The process that runs a session in the background: what it does before it has one."""

from __future__ import annotations

import socket

import pytest

from sshvpn.system import daemon


# It is nobody's child that would be waited for: it outlives the command that starts it.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("kind", ["tunnel", "forward"])
def test_it_ends_in_silence_where_there_is_nothing_to_run_after_all(kind: str) -> None:
    begun = daemon.begin(kind, "office")
    begun.shutdown(socket.SHUT_WR)
    begun.settimeout(20)
    with begun:
        assert begun.recv(1) == b""
