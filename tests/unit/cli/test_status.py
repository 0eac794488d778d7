"""What ``status`` says of tunnels and forwards, to people and to programs."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from click.testing import CliRunner

from sshvpn.cli.status import status
from sshvpn.cli.status_view import details, table
from sshvpn.errors import NotRunningError
from tests.unit.cli.conftest import Begin
from tests.unit.cli.records import SINCE, forward, service, tunnel, waiting_tunnel

START = datetime(2024, 11, 23, 14, 2, tzinfo=timezone.utc).astimezone()
AT = f"{START:%H:%M:%S}"
LOGIN = ("needs_login", "a password is wanted; sshvpn up office")


def test_tunnels_and_forwards_stand_in_one_view() -> None:
    assert table([tunnel()], [forward()], START) == (
        "NAME     STATE    SINCE     WHERE                   TO\n"
        f"office   running  {AT}  100.64.0.2              alice@vpn.example.com\n"
        "    routes       10.20.0.0/16\n"
        "    shared with  192.168.1.0/24 on eth0\n"
        "    published    http://192.168.1.5:8888/ -> localhost:8888\n"
        "    traffic      12 ms there and back, 1.2 MB in, 4.6 kB out\n"
        f"gpu-box  running  {AT}  http://localhost:9999/  gpu-box localhost:8888"
    )


def test_what_waits_says_why() -> None:
    assert table([waiting_tunnel(*LOGIN)], [], START) == (
        "NAME    STATE    SINCE     WHERE  TO\n"
        f"office  backoff  {AT}  -      alice@vpn.example.com\n"
        "office: a password is wanted; sshvpn up office"
    )


def test_a_row_of_another_day_fits_80_cells() -> None:
    later = datetime(2024, 12, 1, tzinfo=timezone.utc)
    lines = table([tunnel()], [forward()], later).splitlines()
    assert f"{START:%-d %b %H:%M}" in lines[1]
    assert max(map(len, lines)) <= 80


def test_many_routes_are_cut_short_and_everything_has_its_word() -> None:
    shown = table([tunnel(routes=[f"10.{n}.0.0/16" for n in range(9)])], [], START)
    assert "10.4.0.0/16, 10.5.0.0/16, and 3 more\n" in shown
    assert "routes       everything\n" in table([tunnel(routes=["0.0.0.0/0", "::/0"])], [], START)
    only4 = table([tunnel(routes=["0.0.0.0/0"])], [], START)
    assert "routes       everything by IPv4\n" in only4


def test_one_tunnel_in_detail() -> None:
    late = service(survives_reconnect=False)
    record = tunnel(reconnects=2, published=[late], routes=["10.20.0.0/16", "192.168.1.77/32"])
    assert details(record, START) == (
        f"office: running since {AT}, 2 reconnects\n"
        "  host          alice@vpn.example.com\n"
        "  remote host   100.64.0.2, fd5a::2\n"
        "  routes        10.20.0.0/16\n"
        "  shared with   192.168.1.0/24 on eth0\n"
        "  there it is   192.168.1.77\n"
        "  published     http://192.168.1.5:8888/ -> localhost:8888\n"
        "                a reconnect ends the published services' connections\n"
        "  this machine  100.64.0.1, fd5a::1\n"
        "  device        sshvpn0, MTU 16380, transport w (asked for)\n"
        "  congestion    bbr here, its own at the server\n"
        "                at the server: no python3\n"
        "  traffic       12 ms there and back, 1.2 MB in, 4.6 kB out\n"
        "  process       pid 4711 of user 1000"
    )


def test_one_tunnel_in_detail_that_is_not_up_yet() -> None:
    assert details(waiting_tunnel(*LOGIN, retry_at=SINCE), START) == (
        f"office: backoff since {AT}\n"
        "  host        alice@vpn.example.com\n"
        "  device      sshvpn0, transport w (asked for)\n"
        "  process     pid 4711 of user 1000\n"
        f"  next try    {AT}\n"
        "  last error  a password is wanted; sshvpn up office"
    )


def test_one_forward_in_detail() -> None:
    assert details(forward(), START) == (
        f"gpu-box: running since {AT}\n"
        "  from        http://localhost:9999/\n"
        "  to          gpu-box localhost:8888\n"
        "  listens on  127.0.0.1:9999\n"
        "  engine      openssh\n"
        "  process     pid 4712 of user 1000"
    )


def test_a_notebook_is_called_one_and_where_it_is() -> None:
    about = {"directory": "/home/alice/thesis", "pid": 4711, "log": "/home/alice/jupyter.log"}
    record = forward(notebook={"version": "2.14", "started_with": None, **about})
    (_, row) = table([], [record], START).splitlines()
    assert row.endswith("  http://localhost:9999/  gpu-box Jupyter in /home/alice/thesis")
    lines = details(record, START).splitlines()
    assert "  notebook    Jupyter in /home/alice/thesis, process 4711 there" in lines
    assert "              its log: /home/alice/jupyter.log" in lines


def test_one_forward_in_detail_says_what_its_connection_carried() -> None:
    traffic = {"rx_bytes": 1_234_567, "tx_bytes": 4_567, "connections": 2, "rtt_ms": 12.3}
    told = details(forward(), START, traffic)
    assert "  traffic     12 ms there and back, 1.2 MB in, 4.6 kB out, 2 connections open\n" in told
    assert "traffic" not in details(forward(), START, dict.fromkeys(traffic))


# The command -------------------------------------------------------------------------------


def run(*words: str) -> str:
    return CliRunner().invoke(status, words, catch_exceptions=False).stdout


@pytest.mark.usefixtures("home")
def test_nothing_is_up() -> None:
    assert run() == "nothing is up\n"
    assert json.loads(run("--json")) == {"schema": 1, "tunnels": [], "forwards": []}
    with pytest.raises(NotRunningError):
        run("office")


def test_programs_get_each_kind_at_its_place(begin: Begin) -> None:
    begin("tunnel", "office", tunnel())
    begin("forward", "gpu-box", forward(), forward(spec="1:1"))
    assert json.loads(run("--json")) == {
        "schema": 1,
        "tunnels": [tunnel()],
        "forwards": [forward(), forward(spec="1:1")],
    }
    assert json.loads(run("--json", "office"))["forwards"] == []
    assert json.loads(run("--json", "gpu-box"))["tunnels"] == []


def test_people_get_both_kinds_and_more_of_one(begin: Begin) -> None:
    begin("tunnel", "office", tunnel())
    begin("forward", "office", forward(name="office"))
    assert run().splitlines()[0].split() == ["NAME", "STATE", "SINCE", "WHERE", "TO"]
    assert len(run().splitlines()) == 7
    first, second = run("office").split("\n\n")
    assert "device" in first
    assert "engine" in second


def test_the_record_of_a_tunnel_in_these_tests_has_what_the_contract_lists() -> None:
    assert set(tunnel()) == {
        *("name", "uid", "host", "state", "transport", "device", "mtu", "local_address"),
        *("remote_address", "local_addresses", "remote_addresses", "routes", "lan", "published"),
        *("since", "reconnects", "retry_at", "rtt_ms", "rx_bytes", "tx_bytes", "pid"),
        "last_error",
        # The contract does not list them, nor forbid them.
        *("congestion_control", "transport_reason"),
    }
