"""The helper over a real kernel: what it makes, and that it leaves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from sshvpn.plan import marks
from sshvpn.plan.diff import diff
from sshvpn.plan.render import render
from sshvpn.plan.state import Gate, NetworkState, Route, nothing
from sshvpn.plan.steps import AddRoute
from tests.contract.gateway import (
    ALICE,
    FOREIGN_PREFIX,
    Driver,
    Refused,
    full_state,
    make_gateway,
)
from tests.lab import LabMachine, wait_until
from tests.lab.dump import difference

pytestmark = pytest.mark.lab
HELPER, GUARD = "privileged/main.py", "privileged/guard.py"


@pytest.fixture
def gateway() -> Iterator[LabMachine]:
    machine = make_gateway()
    yield machine
    machine.close()


def settled_dump(machine: LabMachine) -> str:
    """Return the dump once the kernel has noticed that nobody holds the device.

    A device made anew has another number, which says nothing.
    """
    show = ["ip", "link", "show", "dev", "sshvpn0"]
    wait_until(lambda: "NO-CARRIER" in machine.run(show).stdout, 10)
    return re.sub(r"\d+: sshvpn0", "N: sshvpn0", machine.dump())


def same(machine: LabMachine, before: str) -> None:
    """Wait until the machine is as it was; a helper that lost its client is still at work."""

    def is_same() -> bool:
        return machine.dump() == before and not any(
            HELPER in line for line in machine.processes().values()
        )

    try:
        wait_until(is_same, 10)
    except TimeoutError:
        left = [line for line in machine.processes().values() if HELPER in line]
        pytest.fail(f"{difference(before, machine.dump(), machine.name)}\n{left}")


def is_reached(client: Driver, wanted: NetworkState) -> bool:
    return diff(client.read(), wanted) == ()


@pytest.mark.parametrize("user", ["alice", "root"])
def test_it_makes_all_that_is_wanted_and_twice_is_once(
    gateway: LabMachine, driver: Callable[..., Driver], user: str
) -> None:
    before = gateway.dump()
    client = driver(user)
    label = ALICE if user == "alice" else marks.label_of(0, "office")
    unit = client.open(label)
    wanted = full_state(client, unit, label)
    client.apply(diff(nothing(label), wanted))
    assert diff(client.read(), wanted) == ()
    made = settled_dump(gateway)
    assert "sshvpn0" in made
    assert f"sshvpn_{label}" in made
    client.apply(diff(client.read(), wanted))
    assert difference(made, settled_dump(gateway), "gateway") == ""
    assert client.close() == []
    same(gateway, before)


def test_the_commands_typed_by_hand_make_the_same(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    unit = client.open()
    steps = diff(nothing(ALICE), full_state(client, unit))
    client.apply(steps)
    twin = make_gateway()
    try:
        before = twin.dump()
        typed = "\n".join(map(render, steps))
        twin.run(["sh", "-e"], user="root", input=typed)
        made = difference(settled_dump(gateway), settled_dump(twin), "helper / by hand")
        assert not made, made
        undone = diff(client.read(), nothing(ALICE))
        twin.run(["sh", "-e"], user="root", input="\n".join(map(render, undone)))
        assert difference(before, twin.dump(), "by hand") == ""
    finally:
        twin.close()


def test_a_client_killed_with_9_leaves_nothing(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    client.kill()
    same(gateway, before)


def test_a_failure_at_any_step_undoes_those_before(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    unit = client.open()
    steps = diff(nothing(ALICE), full_state(client, unit, exclude=()))
    taken = AddRoute(Route(FOREIGN_PREFIX, None, marks.twin_metric(unit)))
    before = gateway.dump()
    for count in range(len(steps) + 1):
        with pytest.raises(Refused, match=f"{FOREIGN_PREFIX} is there already") as refused:
            client.apply([*steps[:count], taken])
        assert refused.value.code == "taken"
        assert client.read() == nothing(ALICE), steps[:count][-1:]
        if count % 6 == 0 or count >= len(steps) - 1:
            assert difference(before, gateway.dump(), f"after {count} steps") == ""


def test_a_change_that_fails_leaves_the_tunnel_as_it_was(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    unit = client.open()
    wanted = full_state(client, unit)
    client.apply(diff(nothing(ALICE), wanted))
    before = settled_dump(gateway)
    taken = AddRoute(Route(FOREIGN_PREFIX, None, marks.twin_metric(unit)))
    with pytest.raises(Refused):
        client.apply([*diff(client.read(), nothing(ALICE)), taken])
    assert difference(before, settled_dump(gateway), "gateway") == ""


def test_what_somebody_removes_comes_back(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    wanted = full_state(client, client.open())
    client.apply(diff(nothing(ALICE), wanted))
    for damage in (
        "ip link set sshvpn0 down; ip link set sshvpn0 alias '' mtu 1400",
        "ip link property del dev sshvpn0 altname tun5300",
        "ip link delete sshvpn0",
        "ip route flush proto 83; ip -6 route flush proto 83",
        "ip rule delete priority 5302; ip -6 rule delete priority 5301",
        "ip neigh delete proxy 192.168.77.50 dev lan0",
        f"nft flush chain inet sshvpn_{ALICE} to_server",
        f"nft delete table inet sshvpn_{ALICE}",
        "sysctl -qw net/ipv4/conf/lan0/forwarding=0 net/ipv6/conf/lan0/proxy_ndp=0",
        "iptables -F DOCKER-USER; ip6tables -F FORWARD",
    ):
        gateway.run(["sh", "-ec", damage], user="root")
        assert diff(client.read(), wanted), damage
        client.apply(diff(client.read(), wanted))
        assert diff(client.read(), wanted) == (), damage


@pytest.mark.usefixtures("gateway")
def test_closing_and_opening_is_one_transaction_of_the_table(
    driver: Callable[..., Driver],
) -> None:
    client = driver()
    unit = client.open()
    for gate in (Gate.AWAY, Gate.PROBING, Gate.OPEN, Gate.AWAY):
        wanted = full_state(client, unit, gate=gate)
        steps = diff(client.read(), wanted)
        assert len(steps) == 1 or gate is Gate.AWAY
        client.apply(steps)
        assert diff(client.read(), wanted) == ()


def test_tunnels_share_settings_and_the_last_one_puts_them_back(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    forwarding = ["sysctl", "-n", "net/ipv4/conf/lan0/forwarding"]
    one, two = driver(), driver()
    labels = [marks.label_of(1000, name) for name in ("one", "two")]
    units = [client.open(label) for client, label in zip((one, two), labels, strict=True)]
    assert units == [0, 1]
    for client, unit, label in zip((one, two), units, labels, strict=True):
        wanted = full_state(client, unit, label, has_default=False, published=())
        client.apply(diff(nothing(label), wanted))
    assert one.close() == []
    assert gateway.run(forwarding, user="root").stdout == "1\n"
    two.kill()
    same(gateway, before)


def test_a_setting_that_somebody_changed_is_theirs(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    gateway.run(["sysctl", "-qw", "net/ipv4/conf/wan0/rp_filter=0"], user="root")
    assert client.close() == []
    assert (
        gateway.run(["sysctl", "-n", "net/ipv4/conf/wan0/rp_filter"], user="root").stdout == "0\n"
    )


def test_forwarding_that_somebody_switched_on_for_all_is_theirs(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    gateway.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], user="root")
    assert client.close() == []
    off = "grep -L 1 /proc/sys/net/ipv4/conf/*/forwarding"
    assert gateway.run(["sh", "-c", off], user="root", check=False).stdout == ""


def test_without_force_forwarding_the_one_switch_is_put_back_exactly(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    from dataclasses import replace

    from sshvpn.plan.desired import desired
    from tests.contract.gateway import full_plan

    # An adapter that forwarded before must forward after, though the switch resets them all.
    gateway.run(["sysctl", "-qw", "net/ipv6/conf/wan0-peer/forwarding=1"], user="root")
    before = gateway.dump()
    client = driver()
    unit = client.open()
    facts = client.facts()
    older = {k: v for k, v in facts.settings.items() if "force_forwarding" not in k}
    plan = full_plan(unit, appearances=())
    wanted = desired(plan, replace(facts, settings=older))
    client.apply(diff(nothing(ALICE), wanted))
    assert (
        gateway.run(["sysctl", "-n", "net/ipv6/conf/all/forwarding"], user="root").stdout == "1\n"
    )
    assert client.close() == []
    same(gateway, before)


def test_a_helper_killed_with_9_is_swept_by_the_next(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    for action in ("open", "sweep"):
        client = driver()
        client.apply(diff(nothing(ALICE), full_state(client, client.open())))
        kill(gateway, HELPER, GUARD)
        client.kill()
        assert difference(before, gateway.dump(), "gateway")
        next_one = driver()
        if action == "open":
            assert next_one.open() == 0
            assert next_one.read() == nothing(ALICE)
        else:
            assert next_one.sweep() == [[ALICE], []]
            assert next_one.sweep() == [[], []]
        assert difference(before, gateway.dump(), "gateway") == ""
        next_one.kill()
        same(gateway, before)


def test_who_only_looks_sweeps_nothing_and_is_told_the_unit_that_it_would_have(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    with pytest.raises(Refused, match="up already"):
        driver().look()
    kill(gateway, HELPER, GUARD)
    client.kill()
    left = settled_dump(gateway)
    looker = driver()
    assert looker.look() == 0
    assert looker.look(marks.label_of(1000, "other")) == 1
    with pytest.raises(Refused, match="not open"):
        looker.read()
    with pytest.raises(Refused, match="another user's label"):
        looker.look(marks.label_of(0, "office"))
    assert looker.close() == []
    assert difference(left, settled_dump(gateway), "gateway") == ""
    assert driver().sweep() == [[ALICE], []]


def kill(machine: LabMachine, *words: str) -> None:
    for pid, line in machine.processes().items():
        if any(word in line for word in words):
            machine.kill(pid)


@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_helper_killed_with_9_is_swept_by_its_guard_when_its_client_lets_go(
    gateway: LabMachine, driver: Callable[..., Driver], how: str
) -> None:
    before = gateway.dump()
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    made = settled_dump(gateway)
    kill(gateway, HELPER)
    assert difference(made, settled_dump(gateway), "gateway") == "", "it has been left the time"
    if how == "kill":
        client.kill()
    else:
        assert client.close() == []
        assert difference(before, gateway.dump(), "gateway") == ""
    same(gateway, before)
    wait_until(lambda: not any(GUARD in line for line in gateway.processes().values()))


def test_a_helper_killed_with_9_is_succeeded_by_one_that_changes_nothing(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    client = driver()
    wanted = full_state(client, client.open())
    client.apply(diff(nothing(ALICE), wanted))
    made = settled_dump(gateway)
    kill(gateway, HELPER)
    successor = driver()
    with pytest.raises(Refused, match="nothing to take over"):
        successor.open(ALICE, unit=7)
    assert successor.open(ALICE, unit=0) == 0
    client.kill()  # whose guard finds that it lives
    wait_until(lambda: sum(GUARD in line for line in gateway.processes().values()) == 1)
    assert difference(made, settled_dump(gateway), "gateway") == ""
    successor.apply(diff(successor.read(), wanted))
    assert is_reached(successor, wanted)
    assert successor.close() == []
    same(gateway, before)


def test_a_sweep_leaves_what_is_up_alone(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    made = settled_dump(gateway)
    other = driver()
    assert other.sweep() == [[], []]
    with pytest.raises(Refused, match="up already") as refused:
        other.open(ALICE)
    assert refused.value.code == "taken"
    assert difference(made, settled_dump(gateway), "gateway") == ""


def test_what_another_tunnel_publishes_is_taken(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    one, two = driver(), driver()
    labels = [marks.label_of(1000, name) for name in ("one", "two")]
    states = [
        full_state(client, client.open(label), label, has_default=False)
        for client, label in zip((one, two), labels, strict=True)
    ]
    one.apply(diff(nothing(labels[0]), states[0]))
    made = settled_dump(gateway)
    with pytest.raises(Refused, match="is published by another tunnel") as refused:
        two.apply(diff(nothing(labels[1]), states[1]))
    assert refused.value.code == "taken"
    assert difference(made, settled_dump(gateway), "gateway") == ""
    one.close()
    two.apply(diff(nothing(labels[1]), states[1]))
    assert is_reached(two, states[1])


def test_twenty_tunnels_stand_side_by_side(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    clients = [driver("root") for _ in range(20)]
    for number, client in enumerate(clients):
        label = marks.label_of(0, f"host{number}")
        assert client.open(label) == number
        wanted = full_state(client, number, label, has_default=False, appearances=(), published=())
        client.apply(diff(nothing(label), wanted))
    assert clients[7].close() == []
    for number, client in enumerate(clients):
        if number != 7:
            assert client.read().link is not None
    for client in clients:
        client.kill()
    same(gateway, before)
