"""From the words of ``sshvpn up`` and the configuration to profiles, or to the exact error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.errors import UsageError
from sshvpn.model import Destination, SshOptions, Transport, TunnelProfile
from sshvpn.spec import parse_publish
from tests.unit.cli.conftest import Begin

pytestmark = pytest.mark.usefixtures("home")

PLAIN = TunnelProfile("gpu", "gpu", Destination("gpu"))
OFFICE = TunnelProfile(
    name="office",
    host="alice@vpn.example.com",
    destination=Destination("vpn.example.com", user="alice"),
    routes=("10.20.0.0/16", "fd20::/48"),
    exclude=("10.20.9.0/24",),
    lan=True,
    lan_interfaces=("eth1",),
    publish=(parse_publish("8888"),),
    nat=False,
    mtu=1400,
    remote_device="tun8",
    ssh=SshOptions(options=(("ConnectTimeout", "5"),)),
    timeout_s=12.0,
)


def built(*hosts: str, **typed: Any) -> tuple[TunnelProfile, ...]:
    return build_profiles(TunnelWords(hosts, **typed))


def publish(*texts: str) -> tuple[Any, ...]:
    return tuple(parse_publish(text) for text in texts)


GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"lan": True}, {"lan": True, "lan_trusts": True}),
    ({"lan": False}, {"lan": False}),
    ({"lan_interfaces": ("eth0", "eth0")}, {"lan": True, "lan_interfaces": ("eth0",)}),
    ({"lan_address": "192.168.1.77"}, {"lan": True, "lan_address": "192.168.1.77"}),
    ({"lan_address": "FD00::0:77"}, {"lan": True, "lan_address": "fd00::77"}),
    (
        {"publish": ("8888", "0:8888", "0:80", "db:5432")},
        {"publish": publish("8888", "0:8888", "0:80", "db:5432")},
    ),
    ({"routes": ("default",)}, {"routes": ("default",)}),
    ({"routes": ("10.0.0.1",)}, {"routes": ("10.0.0.1/32",)}),
    ({"routes": ("10.20.0.0/16",) * 2}, {"routes": ("10.20.0.0/16",)}),
    (
        {"routes": ("10.20.0.0/16", "fd20::/48", "10.0.0.0/8")},
        {"routes": ("fd20::/48", "10.0.0.0/8")},
    ),
    # a default route leaves to other routes of this machine what is theirs
    ({"routes": ("default", "10.0.0.0/8")}, {"routes": ("default", "10.0.0.0/8")}),
    (
        {"routes": ("10.0.0.0/8",), "exclude": ("10.1.0.0/16",) * 2},
        {"routes": ("10.0.0.0/8",), "exclude": ("10.1.0.0/16",)},
    ),
    ({"nat": False}, {"nat": False}),
    ({"transport": Transport.W, "streams": 1}, {"transport": Transport.W, "streams": 1}),
    ({"transport": Transport.STREAM, "streams": 4}, {"transport": Transport.STREAM, "streams": 4}),
    ({"mtu": 576}, {"mtu": 576}),
    ({"mtu": 16380}, {"mtu": 16380}),
    ({"address": "10.99.0.1/30"}, {"address": "10.99.0.1/30"}),
    ({"timeout_s": 5.0, "default_timeout_s": 30.0}, {"timeout_s": 5.0}),
    ({"default_timeout_s": 30.0}, {"timeout_s": 30.0}),
    ({"name": "a-name-of-many-letters"}, {"name": "a-name-of-many-letters"}),
    ({"ssh": SshOptions(jump="bastion")}, {"ssh": SshOptions(jump="bastion")}),
]


@pytest.mark.parametrize(("typed", "meant"), GOOD)
def test_what_is_typed_is_meant(typed: dict[str, Any], meant: dict[str, Any]) -> None:
    assert built("gpu", **typed) == (replace(PLAIN, **meant),)


def test_a_profile_beats_an_alias_and_has_all_that_it_says() -> None:
    assert built("office", default_timeout_s=30.0) == (OFFICE,)


TYPED_FIRST: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"routes": ("10.20.0.0/24",)}, {"routes": ("10.20.0.0/24",)}),
    ({"exclude": ("10.20.8.0/24",)}, {"exclude": ("10.20.8.0/24",)}),
    ({"lan": True}, {"lan_trusts": True}),
    ({"lan": False}, {"lan": False, "lan_interfaces": ()}),
    ({"lan_interfaces": ("eth2",)}, {"lan_interfaces": ("eth2",)}),
    ({"publish": ("9000",)}, {"publish": publish("9000")}),
    ({"nat": True}, {"nat": True}),
    ({"mtu": 1500}, {"mtu": 1500}),
    ({"timeout_s": 3.0}, {"timeout_s": 3.0}),
    ({"name": "work"}, {"name": "work"}),
    (
        {"ssh": SshOptions(options=(("ConnectTimeout", "9"),))},
        {"ssh": SshOptions(options=(("ConnectTimeout", "9"), ("ConnectTimeout", "5")))},
    ),
]


@pytest.mark.parametrize(("typed", "meant"), TYPED_FIRST)
def test_what_is_typed_goes_before_the_profile(
    typed: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert built("office", **typed) == (replace(OFFICE, **meant),)


def test_the_profile_of_a_forward_says_where_to_log_in() -> None:
    assert built("notebook") == (
        TunnelProfile(
            name="notebook",
            host="alice@gpu",
            destination=Destination("gpu", user="alice"),
            ssh=SshOptions(options=(("Port", "2222"),)),
        ),
    )


def test_several_hosts_are_several_tunnels() -> None:
    both = built("office", "gpu", lan=True)
    assert both == (
        replace(OFFICE, lan_trusts=True),
        replace(PLAIN, lan=True, lan_trusts=True),
    )


WRONG: list[tuple[tuple[str, ...], dict[str, Any], str, str]] = [
    (("gpu", "gpu"), {}, "HOST twice: gpu", "say it once"),
    (("8888",), {}, "'8888' is no HOST", "to forward a port: sshvpn forward HOST 8888"),
    (
        ("gpu", "9999:8888"),
        {},
        "'9999:8888' is no HOST",
        "to forward a port: sshvpn forward HOST 9999:8888",
    ),
    (("-x",), {}, "HOST '-x': a host does not begin with '-'", ""),
    (
        ("gpu",),
        {"name": "a b"},
        "--name 'a b': not a name",
        "letters, digits and . _ - @ : +, up to 64 of them",
    ),
    (
        ("gpu",),
        {"routes": ("10.20.0.5/16",)},
        "--route: '10.20.0.5/16' has bits set behind its prefix",
        "the network is 10.20.0.0/16",
    ),
    (
        ("gpu",),
        {"routes": ("10.20.0.0/33",)},
        "--route: '10.20.0.0/33' is no network",
        "write PREFIX/LENGTH, like 10.20.0.0/16 or fd20::/48",
    ),
    (
        ("gpu",),
        {"routes": ("everything",)},
        "--route: 'everything' is no network",
        "write PREFIX/LENGTH, like 10.20.0.0/16 or fd20::/48",
    ),
    (
        ("gpu",),
        {"routes": ("0.0.0.0/0",)},
        "--route: '0.0.0.0/0' is everything",
        "write default, for IPv4 and IPv6",
    ),
    (("gpu",), {"routes": ("default", "default")}, "--route default twice", "say it once"),
    (
        ("gpu",),
        {"routes": ("10.0.0.0/8",), "exclude": ("10.1/16",)},
        "--exclude: '10.1/16' is no network",
        "write PREFIX/LENGTH, like 10.20.0.0/16 or fd20::/48",
    ),
    (
        ("gpu",),
        {"exclude": ("10.0.0.0/8",)},
        "--exclude 10.0.0.0/8 without --route",
        "say what is routed: --route CIDR",
    ),
    (
        ("gpu",),
        {"routes": ("10.1.0.0/16",), "exclude": ("10.0.0.0/8",)},
        "--exclude 10.0.0.0/8 leaves nothing of --route 10.1.0.0/16",
        "leave out one of them",
    ),
    (
        ("gpu",),
        {"lan_address": "eth0"},
        "--lan-address: 'eth0' is no IP address",
        "write one, like 192.168.1.77",
    ),
    (
        ("gpu",),
        {"lan_address": "192.168.1.77/24"},
        "--lan-address: '192.168.1.77/24' is a network",
        "write the address alone: 192.168.1.77",
    ),
    (
        ("gpu",),
        {"lan_address": "224.0.0.1"},
        "--lan-address: '224.0.0.1' is no address that a machine",
        "write a free one of your network, like 192.168.1.77",
    ),
    (
        ("gpu",),
        {"lan": False, "lan_interfaces": ("eth0",)},
        "--no-lan and --lan-interface exclude each other",
        "say one of them",
    ),
    (
        ("gpu",),
        {"lan": False, "lan_address": "192.168.1.77"},
        "--no-lan and --lan-address exclude each other",
        "say one of them",
    ),
    (
        ("gpu",),
        {"lan_interfaces": ("eth0:1",)},
        "--lan-interface: 'eth0:1' is no name of an adapter",
        "names are like eth0; see: ip link",
    ),
    (("gpu",), {"mtu": 575}, "--mtu 575 is not from 576 to 16380", "leave it out for the best"),
    (("gpu",), {"mtu": 16381}, "--mtu 16381 is not from 576 to 16380", "leave it out for the best"),
    (
        ("gpu",),
        {"mtu": 1000, "routes": ("fd20::/48",)},
        "--mtu 1000 is too small for fd20::/48",
        "IPv6 wants 1280 at least (RFC 8200)",
    ),
    (
        ("gpu",),
        {"address": "10.99.0.1"},
        "--address: '10.99.0.1' has no room for both ends",
        "a tunnel wants a /30 or /31, IPv6 /126 or /127",
    ),
    (
        ("gpu",),
        {"publish": ("8888", "8888:db:80")},
        "8888 and 8888:db:80 would listen at the same place",
        "give one of them another port",
    ),
    (
        ("gpu",),
        {"publish": ("/run/a:80",)},
        "--publish: '/run/a:80' names a unix socket",
        "a published service has a port",
    ),
    (
        ("gpu",),
        {"transport": Transport.W, "streams": 2},
        "--transport w and --streams 2 exclude each other",
        "--streams is of the transport stream",
    ),
    (("gpu",), {"streams": 0}, "--streams 0: not that many", "name a number from 1 to 64"),
    (("gpu",), {"streams": 65}, "--streams 65: not that many", "name a number from 1 to 64"),
    (
        ("later",),
        {},
        "profile later: portal_tokens is not in this version",
        "take it out: sshvpn config edit",
    ),
    (
        ("a", "b"),
        {"routes": ("10.0.0.0/8",)},
        "--route is for one HOST, and there are 2",
        "start them one by one",
    ),
    (("a", "b"), {"name": "c"}, "--name is for one HOST, and there are 2", "start them one by one"),
    (
        (),
        {},
        "no HOST: none was said, and there is no default",
        "name one of: later, office, stream",
    ),
]


@pytest.mark.parametrize(("hosts", "typed", "message", "hint"), WRONG)
def test_what_is_wrong_is_told_with_the_way_out(
    hosts: tuple[str, ...], typed: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        built(*hosts, **typed)
    assert raised.value.exit_code == 2
    assert raised.value.message.startswith(message)
    assert raised.value.hint.startswith(hint)


# Without HOST ------------------------------------------------------------------------------


def test_without_host_the_environment_then_the_configuration_says_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "config.toml"
    file.write_text(f'default_host = "gpu"\n{file.read_text()}')
    assert [profile.name for profile in built()] == ["gpu"]
    monkeypatch.setenv("SSHVPN_HOST", "office")
    assert [profile.name for profile in built()] == ["office"]


def test_without_host_it_is_the_one_tunnel_that_is_up(begin: Begin) -> None:
    begin("forward", "box")
    begin("tunnel", "office", {"host": "alice@vpn.example.com"})
    assert [profile.name for profile in built()] == ["office"]
    begin("tunnel", "other", {"host": "other"})
    with pytest.raises(UsageError) as raised:
        built()
    assert raised.value.hint == "name one of: later, office, other, stream"


def test_a_tunnel_s_own_name_is_no_host_for_ssh(begin: Begin) -> None:
    begin("tunnel", "work", {"host": "alice@gpu"})
    [profile] = built()
    assert profile.destination == Destination("gpu", user="alice")


def test_without_a_configuration_the_ways_are_told(home: Path) -> None:
    (home / "config.toml").unlink()
    with pytest.raises(UsageError) as raised:
        built()
    assert raised.value.hint == "say it: sshvpn up HOST, $SSHVPN_HOST or default_host"
