"""What the agent's codes are told as, and what mends them."""

from __future__ import annotations

from sshvpn.errors import TunnelRefusedError
from sshvpn.remote.protocol import Failed
from sshvpn.system.remote_agent.errors import error_of


def test_a_server_that_has_nothing_to_make_a_tun_with_is_mended_in_three_ways() -> None:
    error = error_of(Failed("no_ip_tuntap", "ip makes no tun there, and no python3"), "alice")
    assert isinstance(error, TunnelRefusedError)
    for way in ("apt install iproute2", "--transport w", "remote_device"):
        assert way in (error.hint or "")
