"""What asks a web server for its status."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sshvpn.system.web import SystemWebClient

TOKEN = "tökèn"


class Handler(BaseHTTPRequestHandler):
    """Lets in who has TOKEN."""

    def do_GET(self) -> None:
        """Answer."""
        is_known = self.headers.get("Authorization") == f"token {TOKEN}"
        self.send_response(200 if is_known else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/status"
        server.shutdown()


def status(url: str, token: str) -> int | None:
    headers = {"Authorization": f"token {token}"}
    return asyncio.run(SystemWebClient().status(url, "localhost", headers))


@pytest.mark.parametrize(("token", "code"), [(TOKEN, 200), ("ä", 403), ("☃", 403)])
def test_any_token_is_one_that_is_taken_or_not(url: str, token: str, code: int) -> None:
    assert status(url, token) == code


def test_where_nobody_listens_nobody_answers() -> None:
    assert status("http://127.0.0.1:1/", TOKEN) is None
