"""The line before a key in authorized_keys: what the service needs, and no more."""

from __future__ import annotations

from sshvpn.model import Destination, Direction, ForwardProfile, TunnelProfile
from sshvpn.services import limits
from sshvpn.spec import parse_dynamic, parse_forward, parse_publish

GPU = Destination("gpu")


def test_a_forward_opens_its_targets_and_runs_nothing() -> None:
    specs = (parse_forward("9999:8888"), parse_forward("5432:db:5432"))
    assert limits(ForwardProfile("web", "gpu", GPU, specs)) == (
        'restrict,port-forwarding,permitopen="localhost:8888",permitopen="db:5432",'
        'permitlisten="localhost:1",command="/bin/false"'
    )


def test_the_other_way_round_it_listens_and_opens_nothing() -> None:
    specs = (parse_forward("8080:3000", Direction.REMOTE),)
    assert limits(ForwardProfile("web", "gpu", GPU, specs)) == (
        'restrict,port-forwarding,permitopen="localhost:1",permitlisten="localhost:8080",'
        'command="/bin/false"'
    )


def test_a_proxy_opens_whatever_is_asked_and_runs_nothing() -> None:
    specs = (parse_dynamic("1080"),)
    told = limits(ForwardProfile("web", "gpu", GPU, specs))
    assert told == 'restrict,port-forwarding,command="/bin/false"'


def test_a_tunnel_to_a_device_made_for_it_opens_that_device_alone() -> None:
    profile = TunnelProfile("o", "gpu", GPU, remote_device="tun8", address="10.83.0.1/30")
    told = limits(profile)
    assert told == (
        'tunnel="8",command="/bin/false",no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc,'
        'permitopen="localhost:1",permitlisten="localhost:1"'
    )


def test_any_other_tunnel_runs_its_agent() -> None:
    for profile in (
        TunnelProfile("o", "gpu", GPU, publish=(parse_publish("8888"),)),
        TunnelProfile("o", "gpu", GPU, remote_device="tun8"),
    ):
        assert "command=" not in limits(profile)
        assert "no-pty" in limits(profile)
