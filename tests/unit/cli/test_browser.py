"""The URLs by which the LAN's machines reach a forward, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from sshvpn.cli.browser import LanUrls, print_qr
from tests.unit.fakes import FakeInterfaces


def urls(*listen: str, **changes: Any) -> list[str]:
    interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
    record = {"direction": "local", "url": "http://localhost:9999/lab", "listen": list(listen)}
    return LanUrls(interfaces).of([{**record, **changes}])


def test_each_adapter_has_one() -> None:
    assert urls("127.0.0.1:9999", "192.168.1.5:9999", "[fd01::5]:9999", "10.0.0.5:9999") == [
        "http://192.168.1.5:9999/lab",
        "http://10.0.0.5:9999/lab",
    ]


def test_ipv6_where_there_is_no_other() -> None:
    assert urls("[::1]:9999", "[fd01::5]:9999", "[fd02::5]:9999") == ["http://[fd01::5]:9999/lab"]


@pytest.mark.parametrize("everywhere", ["0.0.0.0:9999", "[::]:9999"])
def test_on_all_addresses_it_is_the_first_of_the_lan(everywhere: str) -> None:
    assert urls(everywhere) == ["http://192.168.1.5:9999/lab"]


def test_what_is_here_alone_or_no_page_has_none() -> None:
    assert urls("127.0.0.1:9999", "/run/a.sock") == []
    assert urls("192.168.1.5:9999", direction="remote") == []
    assert urls("192.168.1.5:5432", url=None) == []


def test_a_url_that_no_code_holds_is_printed_without(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://192.168.1.5:9999/{'x' * 5000}"
    print_qr([url, "http://192.168.1.5:9999/"])
    said = capsys.readouterr()
    assert "too long for a QR code" in said.err
    assert url in said.out
    assert "█" in said.out
