"""What `sshvpn up` tries again, and what it leaves to a person; `status` and `logs` tell which.

gateway ══ssh══ server        each test ends the connection, with something changed before
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import time
from typing import Any, Final

import pytest

from tests.e2e.office import exit_code
from tests.e2e.vpn import INNER, Vpn
from tests.lab import AGENT_SOCKET, PASSPHRASE, Lab, wait_until

pytestmark = pytest.mark.lab

WORDS: Final = ("server", "--lan", "--route", INNER[0])
HOME: Final = "/home/alice"
INTERRUPTED: Final = 130


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return a tunnel that is up."""
    vpn = Vpn(lab, services=False)
    lab.inner.http_server(8000, "::", title="inner")
    vpn.up(*WORDS)
    return vpn


def becomes(vpn: Vpn, state: str, code: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """Return the record once the tunnel is in STATE, because of CODE."""

    def record() -> dict[str, Any] | None:
        found = vpn.record()
        why = (found["last_error"] or {}).get("code")
        return found if (found["state"], why) == (state, code) else None

    try:
        found = wait_until(record, timeout, every=0.1)
    except TimeoutError as error:
        raise TimeoutError(f"not {state}, {code}: {vpn.record()}\n{vpn.log()}") from error
    assert found is not None
    return found


def at(text: str) -> float:
    """Return a point in time of `status --json` in seconds since the epoch."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def assert_told(vpn: Vpn, since: float, *words: str) -> None:
    """Assert that `status` and `logs` tell WORDS, and that it is so since SINCE or later."""
    record = vpn.record()
    assert since - 0.1 <= at(record["since"]) <= time.time()
    status = vpn.lab.sshvpn("status").stdout
    logs = vpn.lab.sshvpn("logs", "server").stdout
    for word in words:
        assert word in status
        assert word in logs


def lose(vpn: Vpn) -> float:
    """End the connection at the server, and return when; the agent there lives to undo its end."""
    now = time.time()
    server = vpn.lab.server
    for pid, line in server.processes().items():
        if "sshd: " in line and "listener" not in line:
            server.kill(pid)
    return now


def assert_stays(vpn: Vpn, state: str) -> None:
    """Assert that nobody logs in any more while the first retries would come."""
    sshd = vpn.lab.server.sshd
    before = sshd.log.count("Connection from")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert vpn.record()["state"] == state
        time.sleep(0.2)
    assert sshd.log.count("Connection from") == before


def test_another_host_key_is_never_tried_again_until_somebody_says_so(vpn: Vpn) -> None:
    lab = vpn.lab
    lab.server.sshd.change_host_keys()
    since = lose(vpn)
    failed = becomes(vpn, "failed", "host_key_changed")
    assert failed["retry_at"] is None
    assert_told(vpn, since, "failed", "host key")
    assert_stays(vpn, "failed")
    assert vpn.unreachable(vpn.inner()) != [], "what has failed lets nothing through"
    lab.know(lab.server.sshd)
    lab.gateway.kill(failed["pid"], signal.SIGHUP)
    assert becomes(vpn, "running")["reconnects"] == 1
    vpn.down()


def test_a_login_that_was_taken_away_is_never_tried_again(vpn: Vpn) -> None:
    lab = vpn.lab
    lab.server.run(["mv", "/root/.ssh/authorized_keys", "/root/.ssh/kept"], user="root")
    since = lose(vpn)
    becomes(vpn, "failed", "auth_refused")
    assert_told(vpn, since, "failed", "permission denied")
    assert_stays(vpn, "failed")
    vpn.down()
    assert lab.sshvpn("status").stdout.strip() == "nothing is up"


def test_a_tunnel_that_is_not_permitted_any_more_is_never_tried_again(vpn: Vpn) -> None:
    vpn.down()
    vpn.up(*WORDS, "--transport", "w")  # the other one wants no permission
    vpn.lab.server.sshd.restart(PermitTunnel="no")
    since = lose(vpn)
    becomes(vpn, "failed", "tunnel_refused")
    assert_told(vpn, since, "failed", "PermitTunnel")
    assert_stays(vpn, "failed")
    vpn.lab.server.sshd.restart(PermitTunnel="yes")
    vpn.down()


def test_an_ssh_config_that_was_broken_is_never_tried_again(vpn: Vpn) -> None:
    config = f"{HOME}/.ssh/config"
    before = vpn.lab.gateway.read(config)
    vpn.lab.gateway.write(config, "Host *\n  Nonsense yes\n")
    since = lose(vpn)
    failed = becomes(vpn, "failed", "config")
    assert_told(vpn, since, "failed", "config:2:")
    assert_stays(vpn, "failed")
    vpn.lab.gateway.write(config, before)
    vpn.lab.gateway.kill(failed["pid"], signal.SIGHUP)
    becomes(vpn, "running")
    vpn.down()


def test_an_agent_that_has_gone_is_waited_for_and_nobody_is_asked(vpn: Vpn) -> None:
    lab = vpn.lab
    lab.gateway.run(["ssh-add", "-q", "-D"])
    since = lose(vpn)
    waits = becomes(vpn, "backoff", "needs_login")
    assert waits["retry_at"] is None
    assert_told(vpn, since, "ssh-add")
    assert_stays(vpn, "backoff")
    lab.gateway.write("/tmp/askpass", f"#!/bin/sh\necho '{PASSPHRASE}'\n", mode=0o700)  # noqa: S108
    environment = {
        "SSH_ASKPASS": "/tmp/askpass",  # noqa: S108
        "SSH_ASKPASS_REQUIRE": "force",
        "SSH_AUTH_SOCK": AGENT_SOCKET,
    }
    lab.gateway.run(["ssh-add", "-q"], env=environment)
    lab.gateway.run(["rm", "/tmp/askpass"])  # noqa: S108
    assert becomes(vpn, "running", timeout=15)["reconnects"] == 1
    vpn.down()


def test_a_server_that_is_away_is_tried_for_ever_ever_more_slowly(vpn: Vpn) -> None:
    lab = vpn.lab
    since = time.time()
    lab.server.sshd.crash()
    becomes(vpn, "backoff", "unreachable")
    assert_told(vpn, since, "refused")
    waits: list[float] = []

    def slows_down() -> float:
        record = vpn.record()
        if record["retry_at"] is not None and record["state"] == "backoff":
            waits.append(at(record["retry_at"]) - time.time())
            return at(record["retry_at"]) if waits[-1] > 5.0 else 0.0
        return 0.0

    retry_at = wait_until(slows_down, 60, every=0.1)
    assert min(waits) < 2.0
    lab.server.sshd.start()
    back = becomes(vpn, "running")
    assert at(back["since"]) < retry_at, "who listens again is noticed, not waited for"
    vpn.down()


def test_hang_up_tries_again_now(vpn: Vpn) -> None:
    lab = vpn.lab
    pid = vpn.record()["pid"]
    lab.gateway.kill(pid, signal.SIGHUP)
    wait_until(lambda: vpn.record()["reconnects"] == 1, 20, every=0.1)
    becomes(vpn, "running")
    lab.server.sshd.crash()
    becomes(vpn, "backoff", "unreachable")
    tries = vpn.log().count(" INFO starting")
    lab.gateway.kill(pid, signal.SIGHUP)
    # At once, and from there on slowly again.
    wait_until(lambda: vpn.log().count(" INFO starting") > tries, 2)
    lab.server.sshd.start()
    becomes(vpn, "running")
    vpn.down()


def test_who_watches_sees_a_tunnel_go_and_come_back_and_end(vpn: Vpn) -> None:
    watcher = vpn.lab.sshvpn_pty("status", "--watch", "server")
    watcher.expect(r"running since \d\d:\d\d, [0-9.]+ ms")
    watcher.expect(INNER[0])
    watcher.expect(r"B/s")
    vpn.lab.server.sshd.kill_sessions()
    watcher.expect("1 reconnect")
    program = vpn.lab.gateway.popen(
        vpn.lab.sshvpn_argv("status", "--watch", "--json"), user="alice"
    )
    assert program.stdout is not None
    said = json.loads(program.stdout.readline())
    assert [one["state"] for one in said["tunnels"]] == ["running"]
    vpn.down()
    while said["tunnels"]:
        said = json.loads(program.stdout.readline())
    assert said == {"schema": 1, "tunnels": [], "forwards": []}
    program.end()
    watcher.sendintr()
    assert exit_code(watcher) == INTERRUPTED
