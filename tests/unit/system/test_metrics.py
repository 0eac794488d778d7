"""What Prometheus reads: the metrics of a snapshot, and who serves them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sshvpn.errors import TakenError, UsageError
from sshvpn.model import TcpEndpoint
from sshvpn.system.metrics import MOST_REQUESTS, Exporter, metrics_of
from tests.unit.cli.records import forward, tunnel, waiting_tunnel

EXAMPLES = Path(__file__).parents[3] / "examples"
HERE = TcpEndpoint("127.0.0.1", 0)


def snapshot(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "kind": "forward" if "direction" in record else "tunnel",
        "name": record["name"],
        "state": record["state"],
        "records": [record],
        "traffic": {"rx_bytes": 5, "tx_bytes": 7, "connections": None, "rtt_ms": 12.5},
        **changes,
    }


def samples(said: dict[str, Any]) -> dict[str, float]:
    """Return each sample by its name and the labels beside name and kind."""
    found = {}
    for family in metrics_of(said):
        for sample in family.samples:
            more = {k: v for k, v in sample.labels.items() if k not in ("name", "kind")}
            label = ",".join(f"{k}={v}" for k, v in more.items())
            found[f"{sample.name}{{{label}}}" if label else sample.name] = sample.value
    return found


def test_a_tunnel_that_runs() -> None:
    assert samples(snapshot(tunnel(reconnects=3))) == {
        "sshvpn_session_info{host=alice@vpn.example.com,carrier=w,device=sshvpn0}": 1,
        "sshvpn_state{state=starting}": 0,
        "sshvpn_state{state=running}": 1,
        "sshvpn_state{state=backoff}": 0,
        "sshvpn_state{state=stopping}": 0,
        "sshvpn_state{state=failed}": 0,
        "sshvpn_state_since_timestamp_seconds": 1732370520,
        "sshvpn_reconnects_total": 3,
        "sshvpn_receive_bytes_total": 5,
        "sshvpn_transmit_bytes_total": 7,
        "sshvpn_round_trip_seconds": 0.0125,
    }


def test_what_is_wrong_is_told_by_its_code_and_what_is_unknown_is_left_out() -> None:
    unknown = {"rx_bytes": None, "tx_bytes": None, "connections": None, "rtt_ms": None}
    record = waiting_tunnel("needs_login", "a password", retry_at="2024-11-23T14:02:01Z")
    found = samples(snapshot(record, traffic=unknown))
    assert found["sshvpn_last_error{code=needs_login}"] == 1
    assert found["sshvpn_state{state=backoff}"] == 1
    assert found["sshvpn_next_try_timestamp_seconds"] == 1732370521
    assert not [name for name in found if "bytes" in name or "round_trip" in name]


def test_a_forward_tells_its_listeners_and_connections() -> None:
    traffic = {"rx_bytes": 0, "tx_bytes": 0, "connections": 4, "rtt_ms": None}
    records = [forward(), forward(listen=["127.0.0.1:1", "[::1]:1"])]
    found = samples(snapshot(forward(), records=records, traffic=traffic))
    assert found["sshvpn_listeners"] == 3
    assert found["sshvpn_connections"] == 4


def test_names_are_as_prometheus_wants_them() -> None:
    """https://prometheus.io/docs/practices/naming/: one prefix, base units, totals of counters."""
    for family in metrics_of(snapshot(tunnel(last_error={"code": "x", "message": "y"}))):
        assert re.fullmatch(r"sshvpn(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert set(sample.labels) >= {"name", "kind"}


def test_nothing_of_it_is_loaded_where_nobody_asks() -> None:
    code = (
        "import sys, sshvpn.background, sshvpn.runner, sshvpn.forwarding\n"
        "import sshvpn.tunnel.session, sshvpn.wiring.services, sshvpn.cli.up, sshvpn.cli.forward\n"
        "import sshvpn.system.openssh.engine, sshvpn.system.sshtunnel.engine\n"
        "print([name for name in sys.modules if name.startswith(('prometheus', 'wsgiref'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# The listener -------------------------------------------------------------------------------


def fetch(url: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def run(story: Callable[[Exporter], Coroutine[Any, Any, None]], said: Callable[[], Any]) -> None:
    async def started() -> None:
        exporter = Exporter(HERE)
        exporter.start(said)
        try:
            await asyncio.wait_for(story(exporter), 60)
        finally:
            exporter.close()
            exporter.close()

    asyncio.run(started())


def office() -> dict[str, Any]:
    return snapshot(tunnel(name='of"fi\\ce\n'))


def test_what_is_served_is_prometheus_own_format() -> None:
    async def story(exporter: Exporter) -> None:
        status, text = await asyncio.to_thread(fetch, exporter.url)
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (sample,) = families["sshvpn_receive_bytes"].samples
        assert sample.labels == {"name": 'of"fi\\ce\n', "kind": "tunnel"}
        assert "process_resident_memory_bytes" in families

    run(story, office)


def test_it_only_reads() -> None:
    async def story(exporter: Exporter) -> None:
        for method in ("POST", "PUT", "DELETE"):
            assert (await asyncio.to_thread(fetch, exporter.url, method))[0] == 405

    run(story, office)


def test_what_is_no_request_is_let_go_and_others_are_answered() -> None:
    async def story(exporter: Exporter) -> None:
        port = int(exporter.url.split(":")[2].split("/")[0])
        for words in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            writer.close()
        assert (await asyncio.to_thread(fetch, exporter.url))[0] == 200

    run(story, office)


def test_who_holds_connections_open_cannot_pile_up_threads() -> None:
    async def story(exporter: Exporter) -> None:
        port = int(exporter.url.split(":")[2].split("/")[0])
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_REQUESTS + 5)]
        await asyncio.gather(*(reader.read() for reader, _ in crowd[MOST_REQUESTS:]))
        for _, writer in crowd:
            writer.close()

        def answers() -> bool:
            try:
                return fetch(exporter.url)[0] == 200
            except OSError:  # its predecessors are not gone yet
                return False

        while not await asyncio.to_thread(answers):
            await asyncio.sleep(0.05)

    run(story, office)


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(TakenError, match=f"port {port} is taken on 127.0.0.1"):
            Exporter(TcpEndpoint("127.0.0.1", port))
    with pytest.raises(UsageError, match="not an address of this machine"):
        Exporter(TcpEndpoint("192.0.2.1", 9100))


# The dashboard ------------------------------------------------------------------------------


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    asked = set(re.findall(r"sshvpn_[a-z_]+", json.dumps(dashboard["panels"])))
    waiting = waiting_tunnel("x", "y", retry_at="2024-11-23T14:02:01Z")
    both = traffic = {"rx_bytes": 0, "tx_bytes": 0, "connections": 4, "rtt_ms": 1}
    told = {
        sample.name
        for said in (snapshot(waiting, traffic=traffic), snapshot(forward(), traffic=both))
        for family in metrics_of(said)
        for sample in family.samples
    }
    assert asked
    assert asked <= told
    assert told - asked <= {"sshvpn_listeners", "sshvpn_next_try_timestamp_seconds"}
