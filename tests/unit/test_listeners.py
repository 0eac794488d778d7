"""Which sockets a forward wants, for which addresses."""

from __future__ import annotations

import pytest

from sshvpn.listeners import Addresses, follows_adapters, url_of, wanted_listeners
from sshvpn.model import (
    Destination,
    Direction,
    ForwardProfile,
    ForwardSpec,
    InterfaceAddress,
    TcpEndpoint,
)
from sshvpn.spec import parse_dynamic, parse_forward

ETH0 = (InterfaceAddress("eth0", "192.168.1.5", 24), InterfaceAddress("eth0", "fd00::5", 64))
ETH1 = (InterfaceAddress("eth1", "10.0.0.5", 8),)
HERE = Addresses(interfaces={"eth0": ETH0, "eth1": ETH1}, lan=ETH0)


def profile(
    *specs: str | ForwardSpec, binds: tuple[str, ...] = (), lan: bool = False
) -> ForwardProfile:
    parsed = tuple(parse_forward(s) if isinstance(s, str) else s for s in specs)
    return ForwardProfile("gpu", "gpu", Destination("gpu"), parsed, binds, lan)


def places(wanted: ForwardProfile, addresses: Addresses = HERE, **ports: int) -> list[str]:
    numbered = {int(key[1:]): port for key, port in ports.items()}
    return [
        f"{listener.listen}%{listener.interface}" if listener.interface else str(listener.listen)
        for listener in wanted_listeners(wanted, addresses, numbered)
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (profile("9999:8888"), ["127.0.0.1:9999", "[::1]:9999"]),
        (profile("localhost:9999:8888"), ["127.0.0.1:9999", "[::1]:9999"]),
        (profile("127.0.0.1:9999:8888"), ["127.0.0.1:9999"]),
        (profile("[::1]:9999:localhost:8888"), ["[::1]:9999"]),
        (profile("*:9999:8888"), ["0.0.0.0:9999", "[::]:9999"]),
        (profile(":9999:8888"), ["0.0.0.0:9999", "[::]:9999"]),
        (profile("1:1", "2:2", binds=("10.0.0.5",)), ["10.0.0.5:1", "10.0.0.5:2"]),
        (profile("9999:8888", binds=("eth0",)), ["192.168.1.5:9999%eth0", "[fd00::5]:9999%eth0"]),
        (
            profile("9999:8888", binds=("eth1", "eth0")),
            ["10.0.0.5:9999%eth1", "192.168.1.5:9999%eth0", "[fd00::5]:9999%eth0"],
        ),
        (profile("9999:8888", lan=True), ["192.168.1.5:9999%eth0", "[fd00::5]:9999%eth0"]),
        (
            profile("9999:8888", binds=("eth0", "192.168.1.5"), lan=True),
            ["192.168.1.5:9999%eth0", "[fd00::5]:9999%eth0"],
        ),
        (profile("127.0.0.1:9999:8888", lan=True), ["127.0.0.1:9999"]),
        (profile("/run/a.sock:8888", lan=True), ["/run/a.sock"]),
        (profile("9999:8888", binds=("wlan0",)), []),
        (
            profile(parse_dynamic("1080"), lan=True),
            ["192.168.1.5:1080%eth0", "[fd00::5]:1080%eth0"],
        ),
        (profile(parse_forward("9999:8888", Direction.REMOTE), lan=True), ["localhost:9999"]),
        (profile(parse_forward("*:9999:8888", Direction.REMOTE)), ["*:9999"]),
    ],
    ids=str,
)
def test_every_spec_listens_where_it_should(wanted: ForwardProfile, expected: list[str]) -> None:
    assert places(wanted) == expected


def test_a_machine_without_ipv6_listens_on_ipv4_alone() -> None:
    no_ipv6 = Addresses(has_ipv6_loopback=False)
    assert places(profile("9999:8888"), no_ipv6) == ["127.0.0.1:9999"]
    assert places(profile("*:9999:8888"), no_ipv6) == ["0.0.0.0:9999"]


def test_any_free_port_stays_the_same_once_it_was_found() -> None:
    wanted = profile("0:8888", "0:9999")
    assert places(wanted) == ["127.0.0.1:0", "[::1]:0"] * 2
    assert places(wanted, s0=4711) == ["127.0.0.1:4711", "[::1]:4711", "127.0.0.1:0", "[::1]:0"]


def test_the_same_listener_is_wanted_once() -> None:
    assert len(wanted_listeners(profile("9999:8888", binds=("eth0", "eth0")), HERE, {})) == 2


@pytest.mark.parametrize(
    ("wanted", "follows"),
    [
        (profile("9999:8888"), False),
        (profile("9999:8888", binds=("192.168.1.5",)), False),
        (profile("9999:8888", binds=("eth0",)), True),
        (profile("9999:8888", lan=True), True),
        (profile("127.0.0.1:9999:8888", lan=True), False),
        (profile("/run/a.sock:8888", binds=("eth0",)), False),
    ],
    ids=str,
)
def test_only_adapters_are_followed(wanted: ForwardProfile, follows: bool) -> None:
    assert follows_adapters(wanted) is follows


@pytest.mark.parametrize(
    ("spec", "host", "url"),
    [
        ("9999:8888", "127.0.0.1", "http://localhost:9999/"),
        ("9999:8888", "192.168.1.5", "http://192.168.1.5:9999/"),
        ("9999:8888", "fd00::5", "http://[fd00::5]:9999/"),
        ("9999:db:5432", "127.0.0.1", "postgresql://localhost:9999"),
        ("9999:web:443", "127.0.0.1", "https://localhost:9999/"),
        ("*:9999:8888", "0.0.0.0", "http://localhost:9999/"),
        ("9999:/run/b.sock", "127.0.0.1", "http://localhost:9999/"),
    ],
)
def test_the_url_is_what_a_person_would_type(spec: str, host: str, url: str) -> None:
    assert url_of(parse_forward(spec), TcpEndpoint(host, 9999)) == url


def test_an_adapter_that_was_made_anew_wants_new_listeners() -> None:
    wanted = profile("9999:8888", binds=("eth0",))
    before, after = (
        Addresses(interfaces={"eth0": (InterfaceAddress("eth0", "192.168.1.5", 24, number),)})
        for number in (4, 5)
    )
    assert places(wanted, before) == places(wanted, after)
    assert wanted_listeners(wanted, before, {}) != wanted_listeners(wanted, after, {})
