"""What the helper lets through, and that the wire changes nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sshvpn.plan import marks, steps
from sshvpn.plan.codec import from_record, step_from_record, to_record
from sshvpn.plan.diff import diff
from sshvpn.plan.request import Facts
from sshvpn.plan.state import (
    GONE,
    Accept,
    Address,
    Confined,
    Firewall,
    ForeignChain,
    Gate,
    Lan,
    Link,
    NetworkState,
    PolicyRule,
    ProxyNeighbour,
    Published,
    Route,
    Setting,
    Sysctl,
    UnknownTable,
    nothing,
)
from sshvpn.privileged.check import Scope, check
from tests.unit.plan.worlds import DEVICE, LABEL, UNIT, calm, states

SCOPE = Scope(LABEL, UNIT, 1000)
ADAPTERS = ["lo", "lan0", "wan0", DEVICE]
WALL = Firewall(LABEL, DEVICE, Gate.OPEN, is_guarded=True)
LINK = Link(UNIT, LABEL, 1000, 1500)


@calm
@given(states(), states())
def test_whatever_a_plan_asks_for_is_let_through(one: NetworkState, other: NetworkState) -> None:
    for step in diff(one, other):
        owners = {getattr(v, "owner", 1000) for v in vars_of(step)}
        is_read = isinstance(step, steps.SetSysctl) and step.sysctl.setting in (
            Setting.ACCEPT_RA,
            Setting.RP_FILTER,
        )  # the states draw 1 for these, which nobody plans
        if owners == {1000} and not is_read:
            check(step, SCOPE, ADAPTERS)


def vars_of(step: steps.Step) -> list[Any]:
    return [getattr(step, f.name) for f in dataclasses.fields(step)]


@calm
@given(states(), states())
def test_steps_and_states_survive_the_wire(one: NetworkState, other: NetworkState) -> None:
    for step in diff(one, other):
        assert step_from_record(json.loads(json.dumps(to_record(step)))) == step
    assert from_record(NetworkState, json.loads(json.dumps(to_record(one)))) == one


def test_facts_survive_the_wire() -> None:
    facts = Facts(settings={"a": "1"}, chains=frozenset({ForeignChain.DOCKER4}))
    assert from_record(Facts, json.loads(json.dumps(to_record(facts)))) == facts


@pytest.mark.parametrize(
    "step",
    [
        steps.AddLink(dataclasses.replace(LINK, unit=3)),
        steps.AddLink(dataclasses.replace(LINK, owner=0)),
        steps.AddLink(dataclasses.replace(LINK, label="3e8_0000000000")),
        steps.AddLink(dataclasses.replace(LINK, mtu=70000)),
        steps.AddAddress(Address("lan0", "10.0.0.1/30")),
        steps.AddAddress(Address(DEVICE, "127.0.0.1/8")),
        steps.AddAddress(Address(DEVICE, "224.0.0.1/8")),
        steps.AddAddress(Address(DEVICE, "fe80::1%lan0/64")),
        steps.AddAddress(Address(DEVICE, "10.0.0.1/255.0.0.0")),
        steps.AddRoute(Route("10.0.0.0/8", "lan0", 50)),
        steps.AddRoute(Route("10.0.0.0/8", DEVICE, 49)),
        steps.AddRoute(Route("10.0.0.0/8", None, 50)),
        steps.AddRoute(Route("10.0.0.1/8", DEVICE, 50)),
        steps.AddRoute(Route("0.0.0.0/0", DEVICE, 50)),
        steps.AddRoute(Route("10.0.0.0/8", DEVICE, 50, table=255)),
        steps.AddRule(PolicyRule(0, is_ipv6=False, table=254)),
        steps.AddRule(PolicyRule(marks.rule_priority(3, 0), is_ipv6=False, table=254)),
        steps.AddRule(PolicyRule(marks.rule_priority(UNIT, 0), is_ipv6=False, table=255)),
        steps.AddRule(PolicyRule(marks.rule_priority(UNIT, 0), is_ipv6=False, table=254, uid=0)),
        steps.AddRule(
            PolicyRule(marks.rule_priority(UNIT, 0), is_ipv6=False, table=254, is_not=True)
        ),
        steps.AddRule(
            PolicyRule(marks.rule_priority(UNIT, 0), is_ipv6=False, table=254, mark=1 << 32)
        ),
        steps.AddNeighbour(ProxyNeighbour("absent", "192.168.77.5")),
        steps.AddNeighbour(ProxyNeighbour("lan0", "127.0.0.1")),
        steps.LoadTable(dataclasses.replace(WALL, label="3e8_0000000000"), None),
        steps.LoadTable(dataclasses.replace(WALL, device="lan0"), None),
        steps.LoadTable(
            dataclasses.replace(WALL, lans=frozenset({Lan('x" accept', "10.0.0.0/8")})), None
        ),
        steps.LoadTable(
            dataclasses.replace(WALL, lans=frozenset({Lan("lan0", "0.0.0.0/0 accept")})), None
        ),
        steps.LoadTable(dataclasses.replace(WALL, routed=frozenset({"10.0.0.0/8; x"})), None),
        steps.LoadTable(dataclasses.replace(WALL, ssh_cgroup='a" accept', mark=1), None),
        steps.LoadTable(dataclasses.replace(WALL, ssh_cgroup="../x", mark=1), None),
        steps.LoadTable(
            dataclasses.replace(
                WALL, published=frozenset({Published("10.0.0.1", 0, "10.0.0.2", 80)})
            ),
            None,
        ),
        steps.LoadTable(
            dataclasses.replace(WALL, published=frozenset({Published("::2", 1, "10.0.0.2", 80)})),
            None,
        ),
        *(
            steps.LoadTable(dataclasses.replace(WALL, confined=frozenset({confined})), None)
            for confined in (Confined('x" accept', "ip"), Confined("lan0", "ip6 accept"))
        ),
        steps.LoadTable(WALL, UnknownTable("3e8_0000000000")),
        steps.DropTable(UnknownTable("3e8_0000000000")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "all", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "default", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "sshvpn7", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "..", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "lan0/../all", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "lan0", "0", "0")),
        steps.SetSysctl(Sysctl(Setting.RP_FILTER, "lan0", "0", "0")),
        steps.SetSysctl(Sysctl(Setting.ACCEPT_RA, "lan0", "0", "0")),
        steps.SetSysctl(Sysctl(Setting.ADDR_GEN_MODE, "lan0", "1", "0")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "lan0", "1", "x")),
        steps.SetSysctl(Sysctl(Setting.FORWARDING4, "usb0", "1", "0")),
        steps.RestoreSysctl(Sysctl(Setting.FORWARDING4, "../usb0", "1", "0")),
        steps.AddAccept(Accept(ForeignChain.DOCKER4, "lan0", "wan0"), LABEL),
        steps.AddAccept(Accept(ForeignChain.DOCKER4, "lan+", DEVICE), LABEL),
        steps.AddAccept(Accept(ForeignChain.DOCKER4, DEVICE, DEVICE), LABEL),
        steps.AddAccept(Accept(ForeignChain.DOCKER4, "lan0", DEVICE), "3e8_0000000000"),
    ],
    ids=repr,
)
def test_what_is_not_plainly_the_tunnels_is_refused(step: steps.Step) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(step, SCOPE, ADAPTERS)


def test_of_an_adapter_that_has_gone_its_settings_are_let_go() -> None:
    check(steps.RestoreSysctl(Sysctl(Setting.FORWARDING4, "usb0", GONE, "0")), SCOPE, ADAPTERS)


def test_root_may_make_a_device_for_anybody() -> None:
    check(steps.AddLink(LINK), Scope(LABEL, UNIT, 0), ADAPTERS)


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        "AddLink",
        {},
        {"is": "Link"},
        {"is": "AddLink"},
        {"is": "NetworkState", "label": LABEL},
        {"is": "AddAddress", "address": {"is": "Address", "device": 1, "cidr": "::1/128"}},
        {"is": "AddAddress", "address": {"is": "Link", "device": "a", "cidr": "::1/128"}},
        {"is": "AddAddress", "address": {"is": "Address", "device": "a", "cidr": "b", "x": 1}},
        {"is": "DropTable", "table": {"is": "Route"}},
    ],
)
def test_a_record_that_is_not_exactly_a_step_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        step_from_record(record)


def test_a_bool_is_no_number() -> None:
    record = to_record(steps.AddLink(LINK))
    record["link"]["mtu"] = True
    with pytest.raises(ValueError, match="True is not int"):
        step_from_record(record)


@calm
@given(st.text())
def test_only_labels_are_labels(text: str) -> None:
    assert not marks.is_label(text) or marks.owner_of(text) >= 0


@calm
@given(st.integers(0, 2**32 - 1), st.text())
def test_a_label_tells_its_owner(uid: int, name: str) -> None:
    label = marks.label_of(uid, name)
    assert marks.is_label(label)
    assert marks.owner_of(label) == uid
    assert marks.label_in(marks.alias(label)) == label
    assert nothing(label).is_nothing
