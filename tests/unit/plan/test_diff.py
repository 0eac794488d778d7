"""The steps between any two states."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given

from sshvpn.plan import marks, steps
from sshvpn.plan.diff import diff
from sshvpn.plan.state import (
    GONE,
    MAIN_TABLE,
    Firewall,
    Gate,
    Link,
    NetworkState,
    Route,
    Setting,
    UnknownTable,
    nothing,
)
from sshvpn.plan.steps import inverse
from tests.unit.plan.worlds import DEVICE, LABEL, UNIT, ModelKernel, calm, states

FOREIGN: set[object] = {
    Route("10.20.0.0/16", "eth0", 100),
    Route("0.0.0.0/0", "eth0", 100),
    "rule 32766",
    "table inet theirs",
}


@calm
@given(states(), states())
def test_the_steps_lead_from_any_state_to_any_other(
    before: NetworkState, wanted: NetworkState
) -> None:
    kernel = ModelKernel(FOREIGN)
    kernel.load(before)
    for step in diff(before, wanted):
        kernel.make(step)
    assert kernel.read(FOREIGN) == wanted
    assert kernel.things >= FOREIGN


@calm
@given(states())
def test_what_is_wanted_and_there_needs_no_step(state: NetworkState) -> None:
    assert diff(state, state) == ()


@calm
@given(states(), states())
def test_the_inverses_in_opposite_order_lead_back(
    before: NetworkState, wanted: NetworkState
) -> None:
    planned = diff(before, wanted)
    for count in range(len(planned) + 1):
        kernel = ModelKernel(FOREIGN)
        kernel.load(before)
        for step in planned[:count]:
            kernel.make(step)
        for step in reversed(planned[:count]):
            undo = inverse(step)
            assert undo is not None
            kernel.make(undo)
        assert kernel.read(FOREIGN) == before


@calm
@given(states(), states())
def test_no_prefix_is_ever_without_a_way_or_a_wall(
    before: NetworkState, wanted: NetworkState
) -> None:
    # What has a twin before and after has a route or a twin at every moment between.
    if before.link and wanted.link and before.link.owner != wanted.link.owner:
        return  # another device is another tunnel
    kept = {r.prefix for r in before.routes if not r.device}
    kept &= {r.prefix for r in wanted.routes if not r.device}
    kernel = ModelKernel()
    kernel.load(before)
    for step in diff(before, wanted):
        kernel.make(step)
        assert kept <= {r.prefix for r in kernel.things if isinstance(r, Route)}


@calm
@given(states())
def test_a_route_never_stands_where_its_twin_is_yet_to_come(wanted: NetworkState) -> None:
    added = [s.route for s in diff(nothing(LABEL), wanted) if isinstance(s, steps.AddRoute)]
    kinds = [route.device is None for route in added]
    assert kinds == sorted(kinds, reverse=True)


@calm
@given(states())
def test_access_is_settled_before_anything_can_pass(wanted: NetworkState) -> None:
    if wanted.table is None:
        return
    up = [type(step) for step in diff(nothing(LABEL), wanted)]
    early = up[: up.index(steps.LoadTable)]
    assert set(early) <= {steps.AddLink}
    down = diff(wanted, nothing(LABEL))
    assert isinstance(down[-1], steps.DropTable)


@calm
@given(states())
def test_routers_advertisements_are_kept_before_forwarding_would_forget_them(
    wanted: NetworkState,
) -> None:
    order = [
        s.sysctl.setting for s in diff(nothing(LABEL), wanted) if isinstance(s, steps.SetSysctl)
    ]
    if {Setting.ACCEPT_RA, Setting.FORWARDING6} <= set(order):
        assert order.index(Setting.ACCEPT_RA) < order.index(Setting.FORWARDING6)


def test_a_device_that_exists_is_changed_not_made_anew() -> None:
    old = NetworkState(LABEL, Link(UNIT, LABEL, 1000, 1500))
    new = NetworkState(LABEL, Link(UNIT, LABEL, 1000, 16380))
    assert old.link
    assert new.link
    assert diff(old, new) == (steps.SetLink(new.link, old.link),)


def test_another_owner_is_another_device() -> None:
    old = NetworkState(LABEL, Link(UNIT, LABEL, 1000, 1500))
    new = NetworkState(LABEL, Link(UNIT, LABEL, 1001, 1500))
    kinds = [type(step).__name__ for step in diff(old, new)]
    assert kinds == ["SetLink", "DeleteLink", "AddLink", "SetLink"]


def test_a_table_that_holds_something_else_is_loaded_again() -> None:
    wall = Firewall(LABEL, DEVICE, Gate.OPEN, is_guarded=True)
    unknown = NetworkState(LABEL, table=UnknownTable(LABEL))
    steps_ = diff(unknown, NetworkState(LABEL, table=wall))
    assert steps_ == (steps.LoadTable(wall, UnknownTable(LABEL)),)
    assert inverse(steps_[0]) is None
    assert diff(unknown, nothing(LABEL)) == (steps.DropTable(UnknownTable(LABEL)),)
    with pytest.raises(ValueError, match="unknown table"):
        diff(nothing(LABEL), unknown)


def test_a_setting_that_drifted_is_set_again() -> None:
    from sshvpn.plan.state import Sysctl

    held = Sysctl(Setting.FORWARDING4, "lan0", "0", "0")
    wanted = dataclasses.replace(held, value="1")
    made = diff(
        NetworkState(LABEL, sysctls=frozenset({held})),
        NetworkState(LABEL, sysctls=frozenset({wanted})),
    )
    assert made == (steps.SetSysctl(wanted, held),)
    assert inverse(made[0]) == steps.SetSysctl(held, wanted)


def test_a_setting_whose_adapter_has_gone_is_let_go_of_and_never_set() -> None:
    from sshvpn.plan.state import Sysctl

    gone = Sysctl(Setting.FORWARDING4, "usb0", GONE, "0")
    held = NetworkState(LABEL, sysctls=frozenset({gone}))
    still = NetworkState(LABEL, sysctls=frozenset({dataclasses.replace(gone, value="1")}))
    assert diff(held, still) == ()
    released = diff(held, nothing(LABEL))
    assert released == (steps.RestoreSysctl(gone),)
    assert inverse(released[0]) is None


def test_a_device_that_somebody_made_too_small_for_ipv6_is_set_up_as_at_the_start() -> None:
    from sshvpn.plan.state import Sysctl

    link = Link(UNIT, LABEL, 1000, 1500)
    own = Sysctl(Setting.ADDR_GEN_MODE, DEVICE, "1", "0")
    small = dataclasses.replace(link, mtu=1000)
    gone = dataclasses.replace(own, value=GONE)
    down = dataclasses.replace(link, is_up=False)
    made = diff(
        NetworkState(LABEL, small, sysctls=frozenset({gone})),
        NetworkState(LABEL, link, sysctls=frozenset({own})),
    )
    assert made == (
        steps.SetLink(down, small), steps.SetSysctl(own, gone), steps.SetLink(link, down),
    )  # fmt: skip


def test_two_tunnels_have_no_difference() -> None:
    with pytest.raises(ValueError, match="two tunnels"):
        diff(nothing(LABEL), nothing(marks.label_of(1000, "other")))


def test_a_default_route_is_caught_last_and_let_go_first() -> None:
    from sshvpn.plan.state import PolicyRule

    rules = [
        PolicyRule(marks.rule_priority(UNIT, place), is_ipv6=False, table=MAIN_TABLE)
        for place in range(3)
    ]
    state = NetworkState(LABEL, rules=frozenset(rules))
    up = [s.rule for s in diff(nothing(LABEL), state) if isinstance(s, steps.AddRule)]
    down = [s.rule for s in diff(state, nothing(LABEL)) if isinstance(s, steps.DeleteRule)]
    assert up == rules
    assert down == rules[::-1]
