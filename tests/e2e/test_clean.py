"""What a crash leaves: `up`, `down` and `clean` after processes were killed with -9.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
            supervisor (alice), helper and its guard (root): killed
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator

import pytest

from tests.e2e.office import exit_code
from tests.e2e.test_up_default import DEFAULT, far_away, group, up_in
from tests.e2e.test_up_many import call_it, records
from tests.e2e.test_up_processes import GUARD, HELPER, SUPERVISOR, WHY, only, pids
from tests.e2e.vpn import SHARED, Vpn, fetch
from tests.lab import ALICE_PASSWORD, Lab, wait_until

EVERYTHING = (*SHARED, "--lan-address", "192.168.77.200")
NOTHING = "nothing was left behind\n"
__all__ = ["group"]


@pytest.fixture
def vpn(lab: Lab) -> Iterator[Vpn]:
    """Return an office; at the end there is nothing more to clean."""
    vpn = Vpn(lab)
    yield vpn
    assert lab.sshvpn("clean").stdout == NOTHING


def kill(vpn: Vpn, *words: str, but: Collection[int] = ()) -> None:
    """Kill what has one of WORDS in its command line, in this order, and wait for ssh's end.

    The processes BUT are spared. A supervisor that shall die, too, starts no other helper.
    """
    gateway = vpn.lab.gateway
    killed = {word: [pid for pid in pids(gateway, word) if pid not in but] for word in words}
    for pid in killed.get(SUPERVISOR, ()):
        gateway.kill(pid, signal.SIGSTOP)
    for word in words:
        for pid in killed[word]:
            gateway.kill(pid)
    if SUPERVISOR in words:
        lives = len(pids(gateway, SUPERVISOR))
        wait_until(lambda: len(pids(gateway, "mux -o")) == lives, 10)


def is_left(vpn: Vpn) -> bool:
    """Whether the gateway has a device and a table of ours."""
    script = "ip -o link | grep -q ': sshvpn0:' && nft list tables | grep -q sshvpn_"
    return vpn.lab.gateway.run(["sh", "-c", script], user="root", check=False).returncode == 0


ALL = (GUARD, HELPER, SUPERVISOR)


@pytest.mark.parametrize("killed", [ALL, (SUPERVISOR,)], ids=["all", "supervisor"])
@pytest.mark.parametrize("command", ["clean", "up", "down"])
def test_nothing_is_left_after(vpn: Vpn, command: str, killed: tuple[str, ...]) -> None:
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        kill(vpn, *killed)
        assert is_left(vpn) or killed != ALL
        if command == "clean":
            assert "removed" in vpn.lab.sshvpn("clean").stdout
        elif command == "up":
            vpn.up(*EVERYTHING)
            assert vpn.unreachable(vpn.everything()) == []
            vpn.down()
        else:
            assert vpn.lab.sshvpn("down", check=False).returncode == 3
            vpn.lab.sshvpn("clean")


@pytest.mark.parametrize("killed", [(HELPER,), (GUARD, HELPER)], ids=["helper", "guard, too"])
def test_down_removes_what_a_killed_helper_cannot(vpn: Vpn, killed: tuple[str, ...]) -> None:
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        kill(vpn, *killed)
        assert vpn.unreachable(vpn.everything()) == [], "it carries on"
        vpn.down()
        assert not is_left(vpn)


def test_clean_spares_a_tunnel_whose_helper_was_killed_while_it_runs(vpn: Vpn) -> None:
    """Its supervisor lives, and has another one soon, so it is not touched: `down` ends it."""
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        kill(vpn, HELPER)
        assert vpn.lab.sshvpn("clean").stdout == NOTHING
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


def test_a_default_route_and_its_cgroup_go_too(lab: Lab, group: str) -> None:
    vpn = far_away(lab)
    up_in(group, lab, *DEFAULT)
    kill(vpn, *ALL)
    lab.sshvpn("clean")
    left = lab.gateway.run(["find", group, "-mindepth", "1", "-type", "d"], user="root").stdout
    assert left == ""


def test_clean_spares_it_beside_one_that_is_swept(vpn: Vpn) -> None:
    call_it(vpn, "first", "second")
    vpn.up("first", "--no-lan")
    vpn.up("second", "--no-lan")
    kill(vpn, *ALL, but={records(vpn)["second"]["pid"]})
    said = vpn.lab.sshvpn("clean").stdout
    assert "removed sshvpn0" in said
    assert "sshvpn1" not in said
    page = f"http://{records(vpn)['second']['remote_address'].partition('/')[0]}:8080/"
    assert "server" in fetch(vpn.lab.gateway, page)
    vpn.lab.sshvpn("down")


def test_what_lives_is_not_touched(vpn: Vpn) -> None:
    call_it(vpn, "first", "second")
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        vpn.up("second", "--lan", "--route", "10.20.0.0/24")
        before = gateway.dump()
        vpn.up("first", "--lan", "--publish", "8888")
        second = {min(pids(gateway, HELPER)), min(pids(gateway, GUARD))}
        kill(vpn, *ALL, but={*second, records(vpn)["second"]["pid"]})
        assert "sshvpn1" in vpn.lab.sshvpn("clean").stdout
        assert gateway.dump().count("sshvpn") == before.count("sshvpn")
        assert "inner" in fetch(vpn.lab.lan, "http://10.20.0.10:8000/")
        vpn.lab.sshvpn("down")


FOREIGN = """
ip link add sshvpnx type bridge
ip route add 10.77.0.0/24 dev lo metric 51 proto static
ip rule add priority 5302 lookup main
nft add table inet sshvpn_mine
iptables -A INPUT -m comment --comment sshvpn -j ACCEPT
"""
FOREIGN_GONE = """
ip link delete sshvpnx
ip route delete 10.77.0.0/24 dev lo metric 51
ip rule delete priority 5302
nft delete table inet sshvpn_mine
iptables -D INPUT -m comment --comment sshvpn -j ACCEPT
"""


def test_what_only_looks_like_ours_stays(vpn: Vpn) -> None:
    root = {"user": "root"}
    vpn.lab.gateway.run(["iptables", "-S"], **root)  # type: ignore[arg-type]
    vpn.lab.gateway.run(["sh", "-ec", FOREIGN], **root)  # type: ignore[arg-type]
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        kill(vpn, *ALL)
        vpn.lab.sshvpn("clean")
    vpn.lab.gateway.run(["sh", "-ec", FOREIGN_GONE], **root)  # type: ignore[arg-type]
    vpn.lab.checkpoint()


# Asking ---------------------------------------------------------------------------------------


def test_sudo_is_asked_at_the_terminal_and_only_if_there_is_something(lab: Lab) -> None:
    vpn = Vpn(lab, sudo=False)
    assert lab.sshvpn("clean").stdout == NOTHING, "nobody was asked"
    terminal = lab.sshvpn_pty("up", "server", "--no-lan")
    terminal.expect_exact(WHY)
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal, 30) == 0, terminal.before
    assert lab.sshvpn("clean").stdout == NOTHING, "what lives is nothing left"
    kill(vpn, *ALL)
    refused = lab.sshvpn("clean", check=False)
    assert refused.returncode == 4, refused
    assert "password" in refused.stderr
    assert is_left(vpn)
    terminal = lab.sshvpn_pty("clean")
    terminal.expect_exact(WHY)
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal, 30) == 0, terminal.before
    assert "removed sshvpn0" in terminal.before
    assert lab.sshvpn("clean").stdout == NOTHING


def test_root_cleans_for_all(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        kill(vpn, *ALL)
        assert "removed sshvpn0" in vpn.lab.sshvpn("clean", user="root").stdout
        assert not is_left(vpn)
        vpn.lab.sshvpn("clean")


def test_another_users_is_left_to_him(vpn: Vpn) -> None:
    vpn.up("server", "--no-lan")
    helper = only(vpn.lab.gateway, HELPER)
    kill(vpn, *ALL)
    assert helper not in pids(vpn.lab.gateway, HELPER)
    vpn.lab.gateway.allow_sudo("bob")
    told = vpn.lab.sshvpn("clean", user="bob", check=False)
    assert told.returncode == 1, told
    assert "another user's are left: sshvpn0" in told.stderr
    assert is_left(vpn)
    vpn.lab.sshvpn("clean")
