"""What is to be found on an adapter, by mDNS."""

from __future__ import annotations

from dataclasses import replace

from sshvpn.lan.link import Announced
from sshvpn.lan.responder import numbered, services_on
from sshvpn.presence import Adapter, Place, Presence, Shown

LAN = Adapter("lan0", 3, ("192.168.77.1/24",))
HERE = (Place("192.168.77.1", 9999),)
PRESENCE = Presence(
    label="gpu",
    state="running",
    since="2026-11-25T20:00:00.000Z",
    adapters=(LAN,),
    services=(
        Shown("http", "localhost:8888", HERE, "/user/alice/", "Jupyter", "s3cret"),
        Shown("https", "localhost:443", (Place("192.168.77.1", 443),)),
        Shown("socks5h", "socks5", (Place("192.168.77.1", 1080),)),
        Shown("http", "localhost:80", (Place("192.168.78.1", 80),)),
    ),
    networks=(),
    has_names=True,
)
PORTAL = Announced("gpu", "_http._tcp", "gpu.local.", 7748)


def test_each_page_of_the_adapter_is_found_at_its_port_and_path() -> None:
    assert list(services_on(LAN, PRESENCE, "gpu", 7748)) == [
        PORTAL,
        Announced("gpu 9999", "_http._tcp", "gpu.local.", 9999, "/user/alice/"),
        Announced("gpu 443", "_https._tcp", "gpu.local.", 443),
    ]


def test_no_token_is_announced() -> None:
    assert "s3cret" not in repr(list(services_on(LAN, PRESENCE, "gpu", None)))


def test_what_has_failed_leaves_the_portal() -> None:
    failed = replace(PRESENCE, state="failed")
    assert list(services_on(LAN, failed, "gpu", 7748)) == [PORTAL]
    assert list(services_on(LAN, failed, "gpu", None)) == []


def test_where_the_remote_host_has_the_name_this_machine_has_another() -> None:
    appears = replace(LAN, appears_as="192.168.77.50")
    hosts = {one.host for one in services_on(appears, PRESENCE, "gpu", 7748)}
    assert hosts == {"gpu-gateway.local."}


def test_a_name_with_a_number_is_still_a_label() -> None:
    assert (numbered("gpu", 1), numbered("gpu", 3)) == ("gpu", "gpu-3")
    assert len(numbered("x" * 63, 12) + "-gateway") <= 63
