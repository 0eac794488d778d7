"""What the LAN is told: from snapshots and addresses, and over lost connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sshvpn.model import InterfaceAddress, LanWishes
from sshvpn.presence import (
    LONGEST_LABEL,
    Adapter,
    Place,
    Presence,
    Shown,
    from_json,
    label_of,
    presence,
    to_json,
)

LAN0 = (
    InterfaceAddress("lan0", "192.168.77.1", 24, 3),
    InterfaceAddress("lan0", "fd77::1", 64, 3),
)
LAN1 = (InterfaceAddress("lan1", "192.168.78.1", 24, 4),)


def tunnel(state: str = "running", **changes: Any) -> dict[str, Any]:
    """Return the snapshot of a tunnel that publishes port 8888 at lan0."""
    record = {
        "host": "alice@gpu-box",
        "since": "2026-11-25T20:00:00.000Z",
        "lan": [{"interface": "lan0", "network": "192.168.77.0/24", "address": "192.168.77.1"}],
        "routes": ["10.20.0.0/24"],
        "published": [
            {
                "listen": "192.168.77.1:8888",
                "target": "127.0.0.1:8888",
                "url": "http://192.168.77.1:8888/",
            }
        ],
        **changes,
    }
    return {"name": "alice@gpu-box", "kind": "tunnel", "state": state, "records": [record]}


def forward(*records: Mapping[str, Any], state: str = "running") -> dict[str, Any]:
    """Return the snapshot of a forward; each of RECORDS changes what is usual."""
    usual = {
        "host": "gpu-box",
        "since": "2026-11-25T20:00:00.000Z",
        "direction": "local",
        "listen": ["192.168.77.1:9999", "[fd77::1]:9999"],
        "target": "localhost:8888",
        "url": "http://192.168.77.1:9999/",
    }
    return {"name": "gpu-box", "state": state, "records": [{**usual, **one} for one in records]}


def told(snapshot: Mapping[str, Any], *shared: InterfaceAddress, **more: Any) -> Presence | None:
    """Return what is told of SNAPSHOT on lan0, or on SHARED."""
    running = snapshot if snapshot["state"] == "running" else more.get("running")
    return presence(LanWishes(), snapshot, shared or LAN0, running)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("gpu-box", "gpu-box"),
        ("GPU_Box.example.com", "gpu-box"),
        ("alice@gpu-box.example.com", "gpu-box"),
        ("ssh://alice@gpu-box.example.com:2222", "gpu-box"),
        ("gpu-box:2222", "gpu-box"),
        ("203.0.113.20", "203-0-113-20"),
        ("alice@203.0.113.20", "203-0-113-20"),
        ("2001:db8::20", "2001-db8-0-20"),
        ("ssh://alice@[2001:db8::20]:2222", "2001-db8-0-20"),
        ("fe80::1%eth0", "fe80-0-1"),
        ("-x-", "x"),
        ("été", "t"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("…", "sshvpn"),
        ("", "sshvpn"),
        ("a" * 80, "a" * 63),
    ],
)
def test_a_name_becomes_a_label(name: str, label: str) -> None:
    assert label_of(name) == label


@given(st.text())
def test_every_name_becomes_a_label(name: str) -> None:
    label = label_of(name)
    assert 1 <= len(label) <= LONGEST_LABEL
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert label[0] != "-"
    assert label[-1] != "-"


def test_a_tunnel_that_runs_is_told_with_its_services() -> None:
    assert told(tunnel()) == Presence(
        label="gpu-box",
        state="running",
        since="2026-11-25T20:00:00.000Z",
        adapters=(Adapter("lan0", 3, ("192.168.77.1/24", "fd77::1/64")),),
        services=(Shown("http", "127.0.0.1:8888", (Place("192.168.77.1", 8888),)),),
        networks=("10.20.0.0/24",),
        has_names=True,
    )


def test_a_forward_is_told_at_each_address_that_is_shared() -> None:
    found = told(forward({}))
    assert found is not None
    places = (Place("192.168.77.1", 9999), Place("fd77::1", 9999))
    assert found.services == (Shown("http", "localhost:8888", places),)


def test_what_listens_elsewhere_or_the_other_way_is_not_told() -> None:
    found = told(
        forward(
            {"listen": ["127.0.0.1:1", "[::1]:1", "192.168.78.1:1"]},
            {"direction": "remote", "listen": ["192.168.77.1:2"]},
            {"listen": ["/run/user/1000/a.sock"], "url": "unix:/run/user/1000/a.sock"},
            {"listen": [], "url": None},
        )
    )
    assert found is not None
    assert found.services == ()


def test_what_listens_on_every_address_is_told_at_the_shared_ones() -> None:
    found = told(forward({"listen": ["0.0.0.0:80", "[::]:80"], "url": "http://localhost:80/"}))
    assert found is not None
    assert found.services[0].places == (Place("192.168.77.1", 80), Place("fd77::1", 80))


def test_a_socks_proxy_and_a_database_keep_their_schemes() -> None:
    found = told(
        forward(
            {"direction": "dynamic", "target": "socks5", "url": "socks5h://192.168.77.1:9999"},
            {"listen": ["192.168.77.1:5432"], "url": "postgresql://192.168.77.1:5432"},
        )
    )
    assert found is not None
    assert [service.scheme for service in found.services] == ["socks5h", "postgresql"]


def test_nothing_is_told_before_it_runs_after_its_end_or_when_nobody_is_shared_with() -> None:
    assert told(tunnel("starting")) is None
    assert told(tunnel("backoff")) is None
    assert told(tunnel("stopping"), running=tunnel()) is None
    assert presence(LanWishes(), tunnel(), (), tunnel()) is None


@pytest.mark.parametrize("state", ["backoff", "starting", "failed"])
def test_a_connection_that_is_away_changes_the_state_alone(state: str) -> None:
    before = told(tunnel())
    away = told(tunnel(state, published=[], lan=[], routes=[]), running=tunnel())
    assert before is not None
    assert away is not None
    assert away.state == state
    assert (away.services, away.networks, away.adapters) == (
        before.services,
        before.networks,
        before.adapters,
    )
    assert away.is_over == (state == "failed")


def test_an_address_that_goes_while_it_is_away_takes_what_was_there_along() -> None:
    away = told(forward({"listen": []}, state="backoff"), LAN0[1], running=forward({}))
    assert away is not None
    assert away.services[0].places == (Place("fd77::1", 9999),)
    assert away.adapters == (Adapter("lan0", 3, ("fd77::1/64",)),)


def test_the_remote_hosts_address_of_the_lan_is_no_network_and_stands_on_its_adapter() -> None:
    snapshot = tunnel(routes=["10.20.0.0/24", "192.168.77.50/32"])
    found = told(snapshot, *LAN0, *LAN1)
    assert found is not None
    assert found.networks == ("10.20.0.0/24",)
    assert [adapter.appears_as for adapter in found.adapters] == ["192.168.77.50", None]
    away = told(tunnel("backoff", routes=[]), *LAN0, *LAN1, running=snapshot)
    assert away is not None
    assert away.adapters == found.adapters


def test_it_survives_the_way_to_the_other_process() -> None:
    found = told(tunnel(routes=["192.168.77.50/32"]), *LAN0, *LAN1)
    assert found is not None
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_a_notebook_has_its_path_and_a_token_only_where_that_is_wished() -> None:
    snapshot = forward({"notebook": {"pid": 1}, "url": "http://localhost:9999/user/alice/"})
    for wishes, token in ((LanWishes(), ""), (LanWishes(portal=0, tokens=True), "s3cret")):
        found = presence(wishes, snapshot, LAN0, snapshot, "s3cret")
        assert found is not None
        (service,) = found.services
        assert (service.title, service.path, service.token) == ("Jupyter", "/user/alice/", token)
        assert "s3cret" not in repr(found)
    plain = presence(LanWishes(portal=0, tokens=True), forward({}), LAN0, forward({}), "s3cret")
    assert plain is not None
    assert plain.services[0].token == ""
