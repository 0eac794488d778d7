"""`up --transport stream`: what only this transport does, and its own faults.

alice, lan ── gateway ══ ssh: agent │ pump ══ server (PermitTunnel no) ── inner
"""

from __future__ import annotations

import pytest

from tests.e2e.vpn import SHARED, Vpn
from tests.lab import Lab


def stream(lab: Lab, login: str = "root") -> Vpn:
    vpn = Vpn(lab, login=login)
    lab.server.sshd.restart(PermitTunnel="no")
    lab.checkpoint()
    return vpn


@pytest.mark.parametrize("words", [(), ("--streams", "3")], ids=["one", "three"])
@pytest.mark.parametrize("login", ["root", "alice"])
def test_it_needs_no_permission_to_tunnel(lab: Lab, login: str, words: tuple[str, ...]) -> None:
    vpn = stream(lab, login)
    vpn.up(*SHARED, "--transport", "stream", *words)
    record = vpn.record()
    assert (record["transport"], record["mtu"]) == ("stream", 1500)
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()
