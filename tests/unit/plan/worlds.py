"""States to draw from, and a kernel that is only a set of things; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from hypothesis import HealthCheck, settings, strategies as st

from sshvpn.plan import marks, steps
from sshvpn.plan.state import (
    MAIN_TABLE,
    Accept,
    Address,
    Firewall,
    ForeignChain,
    Gate,
    Link,
    NetworkState,
    PolicyRule,
    ProxyNeighbour,
    Route,
    Setting,
    Sysctl,
    nothing,
)
from sshvpn.plan.steps import Step

LABEL = marks.label_of(1000, "office")
UNIT = 2
DEVICE = marks.device_name(UNIT)

calm = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""For tests that draw states: a busy machine must not fail them."""

_prefixes = st.sampled_from(["10.20.0.0/16", "10.21.0.0/24", "fd20::/48", "fd21::/64"])


@st.composite
def states(draw: st.DrawFn) -> NetworkState:
    """Draw a state; without a device it has neither addresses nor routes."""
    routes = {Route(p, None, marks.twin_metric(UNIT)) for p in draw(st.sets(_prefixes))}
    link = draw(
        st.none()
        | st.builds(
            Link,
            st.just(UNIT),
            st.just(LABEL),
            st.sampled_from([1000, 1001]),
            st.sampled_from([1500, 16380]),
        )
    )
    addresses: set[Address] = set()
    if link:
        routes |= {Route(p, DEVICE, marks.METRIC) for p in draw(st.sets(_prefixes))}
        cidrs = draw(st.sets(st.sampled_from(["100.64.0.1/30", "fd00::1/126"])))
        addresses = {Address(DEVICE, cidr) for cidr in cidrs}
    settings = draw(
        st.sets(
            st.sampled_from(
                [
                    (Setting.FORWARDING4, "lan0"),
                    (Setting.RP_FILTER, "wan0"),
                    (Setting.ACCEPT_RA, "wan0"),
                    (Setting.FORWARDING6, "all"),
                ]
            )
        )
    )
    return NetworkState(
        LABEL,
        link,
        frozenset(addresses),
        frozenset(routes),
        frozenset(draw(st.sets(_rules))),
        frozenset(draw(st.sets(st.builds(ProxyNeighbour, st.just("lan0"), _hosts)))),
        draw(
            st.none() | st.builds(Firewall, st.just(LABEL), st.just(DEVICE), _gates, st.booleans())
        ),
        frozenset(Sysctl(setting, name, "1", "0") for setting, name in settings),
        frozenset(draw(st.sets(st.builds(Accept, _chains, st.just("lan0"), st.just(DEVICE))))),
    )


_rules = st.builds(
    PolicyRule,
    st.sampled_from([marks.rule_priority(UNIT, place) for place in range(3)]),
    st.booleans(),
    st.sampled_from([MAIN_TABLE, marks.routing_table(UNIT)]),
)
_hosts = st.sampled_from(["192.168.77.50", "fd77::50"])
_gates = st.sampled_from(list(Gate))
_chains = st.sampled_from(list(ForeignChain))


class ModelKernel:
    """What a kernel does with steps: things are there once, and gone with their device."""

    def __init__(self, things: Iterable[object] = ()) -> None:
        self.things: set[object] = set(things)
        """Links (by what they are), addresses, routes, … and what is foreign."""

    def load(self, state: NetworkState) -> None:
        for field in dataclasses.fields(state):
            value = getattr(state, field.name)
            if isinstance(value, frozenset):
                self.things |= value
            elif value is not None and field.name != "label":
                self.things.add(value)

    def read(self, foreign: set[object]) -> NetworkState:
        """Return what there is besides ``foreign``."""

        def all_of(kind: type) -> frozenset[object]:
            return frozenset(t for t in self.things - foreign if isinstance(t, kind))

        def one(kind: type) -> object:
            found = all_of(kind)
            assert len(found) <= 1
            return next(iter(found), None)

        state = nothing(LABEL)
        values = {
            "link": one(Link),
            "addresses": all_of(Address),
            "routes": all_of(Route),
            "rules": all_of(PolicyRule),
            "neighbours": all_of(ProxyNeighbour),
            "table": one(Firewall),
            "sysctls": all_of(Sysctl),
            "accepts": all_of(Accept),
        }
        return dataclasses.replace(state, **values)  # type: ignore[arg-type]

    def make(self, step: Step) -> None:  # noqa: C901 (a table of cases)
        """Make one step; a thing that is there is not added again, nor one deleted that is not."""
        match step:
            case steps.AddLink():
                self._add(dataclasses.replace(step.link, is_up=False))
            case steps.DeleteLink():
                self._delete(step.link)
                self.things -= {t for t in self.things if getattr(t, "device", None) == DEVICE
                                and isinstance(t, Address | Route)}  # fmt: skip
            case steps.SetLink():
                self._delete(step.before)
                self._add(step.link)
            case steps.LoadTable():
                if step.before is not None:
                    self._delete(step.before)
                self._add(step.table)
            case steps.DropTable():
                self._delete(step.table)
            case steps.SetSysctl():
                if step.held is not None:
                    self._delete(step.held)
                self._add(step.sysctl)
            case steps.RestoreSysctl():
                self._delete(step.sysctl)
            case _:
                thing = getattr(step, dataclasses.fields(step)[0].name)
                if type(step).__name__.startswith("Add"):
                    self._add(thing)
                else:
                    self._delete(thing)

    def _add(self, thing: object) -> None:
        assert thing not in self.things, f"{thing} is there"
        if isinstance(thing, Address) or (isinstance(thing, Route) and thing.device):
            links = [t for t in self.things if isinstance(t, Link)]
            assert links, f"{thing} without a device"
        self.things.add(thing)

    def _delete(self, thing: object) -> None:
        assert thing in self.things, f"{thing} is not there"
        self.things.remove(thing)
