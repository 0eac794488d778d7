"""What Prometheus reads of one session: its snapshot as metrics, over HTTP.

prometheus-client writes the text, wsgiref speaks HTTP. Both are imported here only, and this
module only where metrics are asked for: they cost some 2 MB. Nothing that comes in is looked at
by code of ours; every GET is answered with the metrics.

No thread waits for connections: the session's loop accepts them, and each request has a thread
of its own that asks the loop for a snapshot.
"""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sshvpn.model import State, TcpEndpoint
from sshvpn.system.network.local_listener import listen_error

Snapshot = Mapping[str, Any]

MOST_REQUESTS = 8
"""How many are answered at once; who comes then is hung up on."""
REQUEST_TIMEOUT_S = 5.0
"""How long one may keep us waiting, and how long the loop may."""

EVERY_ADDRESS = {"*": "::", "localhost": "127.0.0.1"}
"""What a word of a listener stands for; ``::`` takes IPv4 as well here."""


class Exporter:
    """A listener for Prometheus. Listens from the start, and answers after :meth:`start`.

    Raises TakenError, PrivilegeError, and UsageError for an address of another machine.
    """

    def __init__(self, where: TcpEndpoint) -> None:
        address = EVERY_ADDRESS.get(where.host, where.host)
        try:
            self._server = _Server((address, where.port))
        except OSError as error:
            raise listen_error(where, error) from error
        self._loop: asyncio.AbstractEventLoop | None = None
        port = self._server.server_address[1]
        self.url = f"http://{TcpEndpoint(where.host, int(port))}/metrics"

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """Answer from now on, in the running loop, with what ``snapshot`` returns there."""
        self._loop = loop = asyncio.get_running_loop()

        async def ask() -> Snapshot:
            return snapshot()

        def ask_loop() -> Snapshot:
            return asyncio.run_coroutine_threadsafe(ask(), loop).result(REQUEST_TIMEOUT_S)

        registry = CollectorRegistry()
        registry.register(_SessionCollector(ask_loop))
        ProcessCollector(registry=registry)
        self._server.set_app(make_wsgi_app(registry))
        loop.add_reader(self._server.fileno(), self._server.handle_request)

    def close(self) -> None:
        """Listen no more. Twice is fine."""
        if self._loop is not None:
            self._loop.remove_reader(self._server.fileno())
            self._loop = None
        self._server.server_close()


# HTTP ---------------------------------------------------------------------------------------


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Say nothing: who reads is no event of the tunnel."""

    def get_stderr(self) -> io.StringIO:
        """Return where a traceback goes: the loop is about to end, or an answer took too long."""
        return io.StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    """Handles each request in a thread of its own, at most MOST_REQUESTS of them."""

    daemon_threads = True
    allow_reuse_port = False  # a port that is taken is an error
    timeout = 0  # handle_request() is called when somebody is there, and never waits

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the look at DNS that HTTPServer takes (the name is of no use here)."""
        if self.server_address[0] == EVERY_ADDRESS["*"]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = map(str, self.server_address[:2])  # type: ignore[assignment]
        self.setup_environ()

    def server_activate(self) -> None:
        """Listen; accept(2) must not wait for a client that has gone meanwhile."""
        super().server_activate()
        self.socket.settimeout(0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for ``request``, or hang up where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle it, in its thread."""
        try:
            request.settimeout(REQUEST_TIMEOUT_S)
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: it went away."""


# The metrics --------------------------------------------------------------------------------


class _SessionCollector(Collector):
    def __init__(self, ask: Callable[[], Snapshot]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        return metrics_of(self._ask())


def metrics_of(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield what ``snapshot`` (see docs/control-protocol.md) says, as metrics; pure.

    What is unknown is left out.
    """
    record, traffic = snapshot["records"][0], snapshot["traffic"]
    labels = ("name", "kind")
    values = [snapshot["name"], snapshot["kind"]]

    def gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
        if value is not None:
            family = GaugeMetricFamily(f"sshvpn_{name}", text, labels=labels)
            family.add_metric(values, value)
            yield family

    def counter(name: str, text: str, value: float | None) -> Iterator[Metric]:
        if value is not None:
            family = CounterMetricFamily(f"sshvpn_{name}", text, labels=labels)
            family.add_metric(values, value)
            yield family

    yield _info(snapshot, record)
    yield _states(snapshot)
    yield from gauge(
        "state_since_timestamp_seconds", "When it came into its state.", _seconds(record["since"])
    )
    yield from gauge(
        "next_try_timestamp_seconds", "When the next try is due.", _seconds(record["retry_at"])
    )
    yield _error(values, record["last_error"])
    yield from counter("reconnects", "Connections that were made anew.", record["reconnects"])
    yield from counter("receive_bytes", "Bytes that came in.", traffic["rx_bytes"])
    yield from counter("transmit_bytes", "Bytes that went out.", traffic["tx_bytes"])
    rtt_ms = traffic["rtt_ms"]
    yield from gauge(
        "round_trip_seconds", "The last round trip.", None if rtt_ms is None else rtt_ms / 1000
    )
    yield from gauge("connections", "Forwarded connections that are open.", traffic["connections"])
    if snapshot["kind"] == "forward":
        listening = sum(len(one["listen"]) for one in snapshot["records"])
        yield from gauge("listeners", "Sockets that are listened on.", listening)


def _info(snapshot: Snapshot, record: Snapshot) -> Metric:
    by = record.get("transport") or record.get("engine") or ""
    family = GaugeMetricFamily(
        "sshvpn_session_info",
        "What runs: always 1.",
        labels=("name", "kind", "host", "carrier", "device"),
    )
    device = record.get("device") or ""
    family.add_metric([snapshot["name"], snapshot["kind"], record["host"], by, device], 1)
    return family


def _states(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "sshvpn_state",
        "1 for the state it is in, 0 for the others.",
        labels=("name", "kind", "state"),
    )
    for state in State:
        is_it = snapshot["state"] == state.value
        family.add_metric([snapshot["name"], snapshot["kind"], state.value], float(is_it))
    return family


def _error(values: list[str], error: Snapshot | None) -> Metric:
    family = GaugeMetricFamily(
        "sshvpn_last_error",
        "1 while something is wrong; the code is that of status --json.",
        labels=("name", "kind", "code"),
    )
    if error is not None:
        family.add_metric([*values, error["code"]], 1)
    return family


def _seconds(rfc3339: str | None) -> float | None:
    if rfc3339 is None:
        return None
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()  # Python 3.10: no Z
