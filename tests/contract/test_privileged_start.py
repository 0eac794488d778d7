"""Who may start the helper, what it keeps of root's power, and what it takes from nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sshvpn.plan import marks
from sshvpn.plan.codec import to_record
from sshvpn.plan.diff import diff
from sshvpn.plan.state import nothing
from sshvpn.system.privilege.sudo import PROMPT
from tests.contract.gateway import (
    ALICE,
    Driver,
    Refused,
    full_state,
    machine_python,
    make_gateway,
)
from tests.lab import LabMachine, wait_until
from tests.lab.dump import difference
from tests.lab.machine import CHECKOUT

pytestmark = pytest.mark.lab
HELPER = "privileged/main.py"
NET_ADMIN = 1 << 12


@pytest.fixture(scope="module")
def gateway() -> Iterator[LabMachine]:
    machine = make_gateway()
    yield machine
    machine.close()


def status_of(machine: LabMachine, pid: int) -> dict[str, str]:
    text = machine.host_path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def helpers(machine: LabMachine) -> list[int]:
    """Return the helpers themselves: neither the sudo around them nor what they just forked."""
    return machine.pids(HELPER, but="sudo ")


@pytest.mark.parametrize("user", ["alice", "root"])
def test_it_keeps_one_capability_and_gets_no_more(
    gateway: LabMachine, driver: Callable[..., Driver], user: str
) -> None:
    client = driver(user)
    (pid,) = helpers(gateway)
    status = status_of(gateway, pid)
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[kind], 16) == NET_ADMIN, kind
    for kind in ("CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"
    assert status["Uid"].split() == ["0"] * 4
    root = gateway.host_path(f"/proc/{pid}")
    assert str((root / "cwd").readlink()) == "/"
    with pytest.raises(Refused):  # once it answers it has loaded all that it needs
        client.read()
    # Nothing of the caller's is open in it.
    names = {re.sub(r"[:/]?\[.*", "", str(fd.readlink())) for fd in (root / "fd").iterdir()}
    assert names <= {"/dev/null", "socket", "anon_inode"}
    assert client.close() == []


def test_what_it_starts_has_no_more_either(driver: Callable[..., Driver]) -> None:
    # Kept for good: a root process that runs a program gets what its bounding set holds.
    client = driver("root")
    label = marks.label_of(0, "x")
    wanted = full_state(client, client.open(label), label)
    client.apply(diff(nothing(label), wanted))  # nft, iptables and /proc/sys do with that
    assert client.close() == []


@pytest.mark.parametrize("askpass", [None, "wrong", "absent"])
def test_without_the_password_it_is_a_clear_no(gateway: LabMachine, askpass: str | None) -> None:
    with pytest.raises(Refused, match="no privilege to change the network") as refused:
        Driver(gateway, "bob" if askpass == "absent" else "alice", askpass=askpass)
    assert refused.value.code == "privilege"
    assert helpers(gateway) == []


def test_the_prompt_says_why(gateway: LabMachine) -> None:
    gateway.write(
        "/home/alice/noting", '#!/bin/sh\necho "$1" >>~/asked\necho tulip-4-fields\n', mode=0o700
    )
    client = Driver(gateway, askpass="noting")
    client.end()
    assert gateway.read("/home/alice/asked").strip() == PROMPT.strip().replace("%p", "alice")


@pytest.mark.parametrize("user", ["alice", "root"])
def test_it_cannot_be_run_by_hand(gateway: LabMachine, user: str) -> None:
    main = str(CHECKOUT / "sshvpn" / "privileged" / "main.py")
    done = gateway.run(machine_python("-I", main), user=user, check=False)
    assert done.returncode == 2
    assert "sshvpn" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminated_helper_tears_down_first(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    before = gateway.dump()
    client = driver()
    client.apply(diff(nothing(ALICE), full_state(client, client.open())))
    (pid,) = helpers(gateway)
    gateway.kill(pid, 15)
    # A question that comes at the same time may still be answered.
    wait_until(lambda: not helpers(gateway), 10)
    with pytest.raises(Refused, match="has ended"):
        client.read()
    assert difference(before, gateway.dump(), "gateway") == ""


def test_another_users_tunnel_is_out_of_reach(driver: Callable[..., Driver]) -> None:
    client = driver()
    for label in (marks.label_of(0, "x"), marks.label_of(1001, "x"), "x", "../../etc", ""):
        with pytest.raises(Refused, match="label"):
            client.open(label)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def hostile(steps: list[dict[str, object]]) -> st.SearchStrategy[str]:
    """Lines of which none is right: noise, wrong requests, steps that are bent somewhere."""
    words: st.SearchStrategy[object] = st.sampled_from(
        ["lo", "lan0", "sshvpn9", "all", "../x", 'a"b', "x;y", "-j", "0.0.0.0/0", -1, 1 << 70,
         None, True, [], {}, "\n", "ip filter INPUT", "net/ipv4/ip_forward"]
    )  # fmt: skip

    @st.composite
    def bent(draw: st.DrawFn) -> str:
        record = json.loads(json.dumps(draw(st.sampled_from(steps))))
        place = record
        while True:
            key = draw(st.sampled_from(sorted(place)))
            if isinstance(place[key], dict) and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(words)
            break
        # Behind it stands one that is never let through: nothing of the request may be made.
        last = {"is": "AddAddress", "address": {"is": "Address", "device": "lo", "cidr": "::1/128"}}
        return json.dumps({"op": "apply", "steps": [record, last]})

    noise = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60)
    request = st.fixed_dictionaries({"op": st.sampled_from(["apply", "open", "x"]) | _json})
    filled = st.builds(
        lambda head, key, value: json.dumps({**head, key: value}),
        request,
        st.sampled_from(["steps", "label", "x"]),
        _json,
    )
    return noise | filled | bent()


def test_hostile_lines_change_nothing_and_do_not_end_it(
    gateway: LabMachine, driver: Callable[..., Driver]
) -> None:
    client = driver()
    unit = client.open()
    steps = [to_record(step) for step in diff(nothing(ALICE), full_state(client, unit))]
    before = gateway.dump()

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(hostile(steps))
    def try_one(line: str) -> None:
        answer = client.raw(line)
        if answer["ok"]:
            assert json.loads(line)["steps"] == [], line  # nothing asked for, nothing made
            return
        assert answer["error"]["code"] in ("usage", "taken"), (line, answer)

    try_one()
    assert client.read() == nothing(ALICE)
    assert difference(before, gateway.dump(), "gateway") == ""
    assert client.close() == []


def test_a_line_without_end_ends_it(gateway: LabMachine, driver: Callable[..., Driver]) -> None:
    client = driver()
    client.open()
    with pytest.raises((Refused, AssertionError)):
        client.raw("x" * (2 << 20))
    wait_until(lambda: not helpers(gateway), 10)
