"""Which transport is taken, and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sshvpn.errors import Retry, SshvpnError, TunnelFailedError
from sshvpn.model import Destination, TunnelProfile
from sshvpn.system.remote_agent.errors import SilentAgentError
from sshvpn.system.tunnel.auto import AutoCarrier, is_refused, refusal
from sshvpn.system.tunnel.stream_link import (
    StreamHinderedError,
    StreamRefusedError,
    StreamUnclearError,
)
from sshvpn.system.tunnel.w import OpensshCarrier

PROFILE = TunnelProfile("gpu", "gpu", Destination("gpu"))
MADE = object()


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every server be alice's."""
    config = {"user": ("alice",), "hostname": ("gpu",), "port": ("22",)}

    async def resolved(*_: object) -> object:
        return config

    monkeypatch.setattr(OpensshCarrier, "resolved", resolved)
    return tmp_path / "hosts.json"


class Site:
    """A server that answers STREAM's and W's logins as they say: with an error, or else MADE."""

    def __init__(self, hosts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts = hosts
        self.monkeypatch = monkeypatch
        self.stream: SshvpnError | None = None
        self.w: SshvpnError | None = None
        self.now = 1_000_000.5
        self.tried: list[str] = []

    def carrier(self) -> AutoCarrier:
        """Return the carrier of one more `up`."""
        carrier = AutoCarrier(None, self.hosts, now=lambda: self.now)

        def answering(name: str) -> Callable[..., Awaitable[object]]:
            async def connect(*_: object) -> object:
                self.tried.append(name)
                if error := getattr(self, name):
                    raise error
                return MADE

            return connect

        self.monkeypatch.setattr(carrier._stream, "connect", answering("stream"))
        self.monkeypatch.setattr(carrier._w, "connect", answering("w"))
        return carrier

    def connect(self, carrier: AutoCarrier | None = None) -> str:
        """Connect once; return what was tried for it, in its order."""
        carrier = carrier or self.carrier()
        self.tried.clear()

        async def story() -> object:
            device: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            return await carrier.connect(PROFILE, "label", device, None)

        assert asyncio.run(story()) is MADE
        return ", ".join(self.tried)


@pytest.fixture
def site(hosts: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(hosts, monkeypatch)


def test_a_refusal_is_a_reason_to_take_the_other_and_to_remember_it(site: Site) -> None:
    site.stream = StreamRefusedError("no python3")
    assert site.connect() == "stream, w"
    assert json.loads(site.hosts.read_text()) == {"stream alice@gpu:22": "w 1000000"}
    carrier = site.carrier()
    assert site.connect(carrier) == "w"
    assert carrier.reason == "stream did not go with this server before"


def test_after_a_day_it_is_asked_again_however_often_the_other_went(site: Site) -> None:
    site.stream = StreamRefusedError("no python3")
    site.connect()
    for _ in range(4):
        site.now += 20_000
        assert site.connect() == "w"
    site.now += 20_000
    assert site.connect() == "stream, w"
    assert site.connect() == "w"
    site.now += 100_000
    site.stream = None  # somebody has installed it
    assert site.connect() == "stream"
    assert site.connect() == "stream"


def test_what_was_remembered_without_a_time_is_asked_again(site: Site) -> None:
    site.hosts.write_text('{"stream alice@gpu:22": "w"}')
    assert site.connect() == "stream"


@pytest.mark.parametrize(
    "known", [None, "", "w", "stream", "w -5", "w 1000", "w 2000000", "w x", f"w {'9' * 5000}"]
)
def test_what_tells_of_no_day_that_was_just_now_is_no_refusal(known: str | None) -> None:
    assert not is_refused(known, 1_000_000.0)
    assert is_refused(refusal(1_000_000.7), 1_000_000.7)


@pytest.mark.parametrize(
    "error",
    [
        StreamUnclearError("bash: fork: retry: Resource temporarily unavailable"),
        StreamHinderedError("cannot open sshvpn5600: Device or resource busy"),
        TunnelFailedError("the server says: ip has failed"),
    ],
)
def test_what_may_go_the_next_time_is_not_remembered(site: Site, error: SshvpnError) -> None:
    site.stream = error
    carrier = site.carrier()
    assert site.connect(carrier) == "stream, w"
    assert carrier.reason == f"not stream: {error}"
    assert not site.hosts.exists()
    site.stream = None
    assert site.connect() == "stream"


def test_what_stands_is_not_given_up_for_what_may_go_by_now(site: Site) -> None:
    """The device is made for it, and a new connection takes no longer than it has to."""
    site.stream = StreamUnclearError("not just now")
    carrier = site.carrier()
    assert site.connect(carrier) == "stream, w"
    site.now += 100_000
    assert site.connect(carrier) == "w"
    assert carrier.reason == "not stream: not just now"


def test_a_silence_is_none(site: Site) -> None:
    site.stream = SilentAgentError("not a word")
    with pytest.raises(SilentAgentError) as silent:
        site.connect()
    assert silent.value.retry is Retry.FOREVER
    assert not site.hosts.exists()
