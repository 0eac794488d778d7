"""`--keepalive`: how long a silence may be is what somebody says it is, for a tunnel and a forward.

gateway ══ssh══ [ cut, silently ] ══ server
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import pytest

from tests.e2e.office import Office
from tests.e2e.outage import BACK_WITHIN_S, NOTICED_WITHIN_S, is_within, tell, wait_became
from tests.e2e.vpn import Vpn
from tests.lab import Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timed]

ENGINES: Final = ("openssh", "sshtunnel")
SHORT: Final = {"tunnel": 1, "openssh": 1, "sshtunnel": 1}
LONG: Final = {"tunnel": 13, "openssh": 5, "sshtunnel": 5}
"""A tunnel is given up sooner than a forward: once TCP itself waits for long, the first probe in
vain is enough. So that one is to be later than the default lets a cut last, all in vain here."""
DEAD_AFTER: Final = 3
"""So many keepalives in vain are the most that is promised."""
BUSY_S: Final = 1.0


@pytest.mark.parametrize("asked", [SHORT, LONG], ids=["short", "long"])
def test_a_silent_cut_is_noticed_after_the_keepalive_that_is_asked_for(
    lab: Lab, asked: dict[str, int]
) -> None:
    vpn, office = Vpn(lab), Office(lab)
    logs = {"tunnel": vpn.log}
    for port, engine in enumerate(ENGINES, 9001):
        words = ("--engine", engine, "--name", engine, "--keepalive", str(asked[engine]))
        office.forward("server", f"{port}:8888", *words)
        logs[engine] = partial(office.logs, engine)
    # A silence begins with the last that was heard: that is near to the cut, by all of them.
    vpn.up("server", "--no-lan", "--keepalive", str(asked["tunnel"]))
    for port, _ in enumerate(ENGINES, 9001):
        assert "notebook" in office.fetch(f"http://localhost:{port}/")
    began = time.time()
    lab.cut()
    noticed = {name: wait_became(log, "backoff", began) for name, log in logs.items()}
    lab.restore()
    restored = time.time()
    back = wait_became(vpn.log, "running", noticed["tunnel"])
    assert is_within(vpn, back - restored, BACK_WITHIN_S)
    for name, keepalive_s in asked.items():
        took_s = noticed[name] - began
        tell(f"{name}, --keepalive {keepalive_s}: a silent cut noticed after {took_s:.1f} s")
        assert took_s <= DEAD_AFTER * keepalive_s + BUSY_S, name
        assert asked is SHORT or took_s > NOTICED_WITHIN_S, name
    office.sshvpn("down", "--all")
    # A forward's old session ends with TCP's own next repeat, late after a cut that was long.
    wait_until(lambda: not lab.server.sshd.sessions(), 60)
