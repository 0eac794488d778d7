"""What Prometheus reads of a forward and of a tunnel, and who else can.

::

    lan ── lan0 gateway ══ssh══ server
                127.0.0.1:9100 (or where --metrics says)
"""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.office import Office
from tests.e2e.vpn import Vpn
from tests.lab import Lab, LabMachine, wait_until

URL = "http://127.0.0.1:9100/metrics"


def scrape(machine: LabMachine, url: str = URL) -> dict[str, float]:
    """Return the samples at URL by name, of a state or an error with what it is."""
    text = machine.run(["curl", "-sS", "--fail", "--max-time", "10", url]).stdout
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            which = [sample.labels[key] for key in ("state", "code") if key in sample.labels]
            found["/".join([sample.name, *which])] = sample.value
    return found


def test_a_forward_tells_how_it_does(office: Office, engine: str) -> None:
    office.web()
    office.forward("server", "9999:8888", "--metrics", "9100", "--engine", engine)
    first = scrape(office.gateway)
    assert first["sshvpn_state/running"] == 1
    assert first["sshvpn_listeners"] == 2
    assert 0 < first["sshvpn_round_trip_seconds"] < 5
    page = office.fetch("http://localhost:9999/")
    second = scrape(office.gateway)
    grown = second["sshvpn_receive_bytes_total"] - first["sshvpn_receive_bytes_total"]
    assert grown >= len(page)
    assert second["sshvpn_transmit_bytes_total"] > first["sshvpn_transmit_bytes_total"]
    office.server.sshd.kill_sessions()
    office.wait_state("running", reconnects=1)
    third = scrape(office.gateway)
    assert third["sshvpn_reconnects_total"] == 1
    assert third["sshvpn_receive_bytes_total"] >= second["sshvpn_receive_bytes_total"]
    office.sshvpn("down")
    assert not office.answers(URL)


def test_what_is_wrong_and_until_when_is_told(office: Office) -> None:
    office.forward("server", "9999:8888", "--metrics", "9100")
    office.server.sshd.stop()
    office.server.sshd.kill_sessions()
    try:
        office.wait_state("backoff", code="unreachable")
        wait_until(lambda: scrape(office.gateway).get("sshvpn_last_error/unreachable") == 1)
        told = scrape(office.gateway)
        assert told["sshvpn_state/running"] == 0
        assert "sshvpn_round_trip_seconds" not in told
    finally:
        office.server.sshd.start()
        office.sshvpn("down")


def test_it_is_for_this_machine_unless_an_address_is_said(office: Office) -> None:
    office.config('[forwards.web]\nhost = "server"\nspecs = ["9999:8888"]\nmetrics = "9100"\n')
    office.forward("web")
    assert "127.0.0.1:9100" in office.listening()
    assert not office.answers("http://192.168.77.1:9100/metrics", machine=office.lab.lan)
    office.sshvpn("down")
    office.forward("web", "--metrics", "192.168.77.1:9100")
    url = "http://192.168.77.1:9100/metrics"
    assert scrape(office.lab.lan, url)["sshvpn_state/running"] == 1
    assert not office.answers(URL)
    office.sshvpn("down")


@pytest.mark.parametrize(
    ("metrics", "code", "told"),
    [
        ("3128", 7, "port 3128 is taken on 127.0.0.1"),
        ("90", 4, "it is privileged"),
        ("203.0.113.9:9100", 2, "not an address of this machine"),
        ("eth0:9100", 2, "no IP address to listen on"),
        ("99999", 2, "too large"),
    ],
)
def test_a_listener_that_cannot_be_is_an_error_and_nothing_is_left(
    office: Office, metrics: str, code: int, told: str
) -> None:
    office.gateway.tcp_server(3128)
    for background in (["-b"], []):
        words = ("forward", *background, "server", "9999:8888", "--metrics", metrics)
        assert told in office.refused(code, *words)
    office.wait_gone()


def test_a_tunnel_tells_how_it_does(lab: Lab) -> None:
    vpn = Vpn(lab)
    lab.checkpoint()
    vpn.up("server", "--route", "10.20.0.0/24", "--metrics", "9100")
    first = scrape(lab.gateway)
    assert first["sshvpn_state/running"] == 1
    assert 0 < first["sshvpn_round_trip_seconds"] < 5
    assert not vpn.unreachable({"http://10.20.0.10:8000/": "inner"}, lab.gateway)
    second = scrape(lab.gateway)
    assert second["sshvpn_receive_bytes_total"] > first["sshvpn_receive_bytes_total"]
    told = json.loads(lab.sshvpn("status", "--json").stdout)["tunnels"][0]
    assert told["rx_bytes"] >= second["sshvpn_receive_bytes_total"]
    vpn.down()
    lab.check()


def test_a_tunnel_whose_listener_is_taken_is_not_made(lab: Lab) -> None:
    Vpn(lab)
    lab.gateway.tcp_server(9100)
    with lab.unchanged():
        done = lab.sshvpn("up", "server", "--metrics", "9100", check=False)
        assert done.returncode == 7, done
        assert done.stderr.startswith("sshvpn: port 9100 is taken on 127.0.0.1")
        wait_until(lambda: "sshvpn" not in str(lab.gateway.processes()))
