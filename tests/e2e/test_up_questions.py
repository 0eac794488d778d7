"""What `sshvpn up` asks a person at the terminal, beside sudo's password, and remembers.

alice's terminal ── sshvpn up ══ server:2222   a key, and then a second factor
                          └ lan0: shared with, after a question
"""

from __future__ import annotations

import re

import pytest

from tests.e2e.office import exit_code
from tests.e2e.vpn import Vpn
from tests.lab import ALICE_PASSWORD, Lab

SECOND_FACTOR = {
    "UsePAM": "yes",
    "KbdInteractiveAuthentication": "yes",
    "AuthenticationMethods": "publickey,keyboard-interactive",
    "PermitTunnel": "yes",
}
QUESTION = re.escape("Share with the machines of ")
UP = r"is up\r\n"


@pytest.mark.parametrize("transport", ["w", "stream"])
def test_a_second_factor_is_asked_after_the_key(lab: Lab, transport: str) -> None:
    vpn = Vpn(lab, login="alice")
    lab.know(lab.server.start_sshd(2222, SECOND_FACTOR), lab.server.sshd)
    words = ("ssh://alice@server:2222", "--no-lan", "--transport", transport)
    terminal = lab.sshvpn_pty("up", *words)
    asked = 0
    while terminal.expect(["Password: ", UP], timeout=30) == 0:
        asked += 1
        terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal) == 0, terminal.before
    assert asked, "the second factor was asked for"
    assert vpn.record()["state"] == "running"
    vpn.down()


def test_sharing_is_asked_for_once_a_network(lab: Lab) -> None:
    vpn = Vpn(lab)
    words = ("up", "server", "--publish", "8888")
    terminal = lab.sshvpn_pty(*words)
    terminal.expect(QUESTION, timeout=30)
    terminal.sendline("y")
    terminal.expect(UP, timeout=30)
    assert exit_code(terminal) == 0
    assert vpn.unreachable(vpn.published()) == []
    vpn.down()
    terminal = lab.sshvpn_pty(*words)
    assert terminal.expect([UP, QUESTION], timeout=30) == 0, "it is remembered"
    assert exit_code(terminal) == 0
    vpn.down()


def test_no_shares_with_nobody(lab: Lab) -> None:
    vpn = Vpn(lab)
    terminal = lab.sshvpn_pty("up", "server")
    terminal.expect(QUESTION, timeout=30)
    terminal.sendline("n")
    terminal.expect(UP, timeout=30)
    assert exit_code(terminal) == 0
    assert vpn.record()["lan"] == []
    assert vpn.unreachable(vpn.remote(), timeout=0.5) == [*vpn.remote()]
    vpn.down()
