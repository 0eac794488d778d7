"""Who runs while a tunnel is up, with which rights, and what is left when one of them ends.

alice's terminal ── sshvpn up ── sudo (asks, ends)
                        │           ╲
                        │            helper        root, CAP_NET_ADMIN, until its socket ends
                        │               └ guard    the same, a shell; sweeps if that is killed
                        └ supervisor ═══╝          alice, nothing
                              └ ssh ══ server:22   alice, nothing; ends with the supervisor
                                       server:2222 takes passwords
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Collection
from typing import Any, Final

import pytest

from sshvpn.control import tunnel_id
from tests.e2e.office import HOME, INTERRUPTED, exit_code
from tests.e2e.sessions import RUNTIME
from tests.e2e.vpn import SHARED, Vpn
from tests.lab import ALICE_PASSWORD, Lab, LabMachine, Terminal, wait_until

CAP_NET_ADMIN = 1 << 12
WHY = "sshvpn makes a network device, routes and firewall rules; [sudo] password for alice: "
SUPERVISOR, HELPER, SSH = "sshvpn.background", "privileged/main.py", "ssh -"
GUARD = "privileged/guard.py"
EVERYTHING = (*SHARED, "--lan-address", "192.168.77.200")
DEFAULT = ("server", "--no-lan", "--transport", "w")
"""Of the two transports the one with the fewest processes; the other's are in a test of its own."""
PASSWORDS = {
    "PasswordAuthentication": "yes", "PubkeyAuthentication": "no", "PermitTunnel": "yes",
}  # fmt: skip
BY_PASSWORD = "ssh://alice@server:2222"


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office where alice's sudo wants her password."""
    return Vpn(lab, sudo=False)


def at_terminal(vpn: Vpn, *args: str, password: str = ALICE_PASSWORD) -> Terminal:
    """Start `sshvpn up ARGS` at a terminal, and give sudo the password it asks for."""
    terminal = vpn.lab.sshvpn_pty("up", *(args or DEFAULT))
    terminal.expect_exact(WHY)
    terminal.sendline(password)
    return terminal


def up(vpn: Vpn, *args: str) -> dict[str, Any]:
    """Bring it up at a terminal that is closed then, and return its status."""
    terminal = at_terminal(vpn, *args)
    assert exit_code(terminal, 30) == 0, terminal.before
    return vpn.record()


def pids(machine: LabMachine, word: str) -> list[int]:
    """Return the processes of MACHINE with WORD in their command lines, sudo's own aside."""
    return machine.pids(word, but="sudo ")


def connection(machine: LabMachine) -> list[int]:
    """Return the processes of ssh that carry something; not those that tell its configuration."""
    lines = machine.processes().items()
    return [pid for pid, line in lines if SSH in line and " -G " not in line]


def only(machine: LabMachine, word: str) -> int:
    """Return the one process of MACHINE with WORD in its command line.

    The helper is two for a moment: the one that sudo started ends once the other, its child,
    lives. And again, whenever it has just forked another program.
    """
    found: list[int] = []

    def is_one() -> bool:
        lines = machine.processes().items()
        found[:] = [pid for pid, line in lines if word in line and "sudo " not in line]
        return len(found) == 1

    wait_until(is_one, what=f"not one {word}")
    return found[0]


def rights(machine: LabMachine, pid: int) -> tuple[set[int], dict[str, int]]:
    """Return the user numbers of a process (all four kinds), and its sets of capabilities."""
    text = machine.read(f"/proc/{pid}/status")
    (users,) = re.findall(r"^Uid:(.*)$", text, re.MULTILINE)
    sets = re.findall(r"^Cap(Eff|Prm|Inh|Amb):\t(\w+)$", text, re.MULTILINE)
    return {int(user) for user in users.split()}, {kind: int(bits, 16) for kind, bits in sets}


NOTHING: Final = dict.fromkeys(("Eff", "Prm", "Inh", "Amb"), 0)


def entitled(machine: LabMachine, but: Collection[int]) -> dict[int, str]:
    """Return the processes of MACHINE that are not alice's, or may do more than she; BUT apart.

    What a root of ours runs for a moment (nft, ip) is among them while it runs.
    """
    found = {}
    for pid, line in machine.processes().items():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if pid not in but and rights(machine, pid) != ({1000}, NOTHING):
                found[pid] = line
    return found


def is_bare(lab: Lab) -> bool:
    """Whether nothing of a tunnel is in the kernels, and no process of ours runs."""
    kernels = "ip -o link; ip rule; ip -6 rule; ip route show table all; nft list tables"
    for machine in (lab.gateway, lab.server):
        seen = machine.run(["sh", "-c", kernels], user="root").stdout
        if "sshvpn" in seen or "tun" in seen or "proto 83" in seen:
            return False
    return not any(pids(lab.gateway, word) for word in (SUPERVISOR, HELPER, GUARD, SSH))


def tidy(vpn: Vpn) -> None:
    """Remove the files that a killed supervisor cannot remove, as a person would."""
    vpn.lab.sshvpn("clean")


# Rights ---------------------------------------------------------------------------------------


def test_only_the_helper_and_its_guard_have_a_right_and_just_one(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    before = set(gateway.processes())
    record = up(vpn)
    ours = {only(gateway, word) for word in (SUPERVISOR, HELPER, GUARD, SSH)}
    wait_until(lambda: set(gateway.processes()) - before == ours, what="there are others of ours")
    assert record["pid"] == only(gateway, SUPERVISOR)
    for word in (SUPERVISOR, SSH):
        assert rights(gateway, only(gateway, word)) == ({1000}, NOTHING)
    net_admin = {**NOTHING, "Eff": CAP_NET_ADMIN, "Prm": CAP_NET_ADMIN}
    for word in (HELPER, GUARD):
        assert rights(gateway, only(gateway, word)) == ({0}, net_admin)
    vpn.down()


def test_all_of_a_shared_tunnel_runs_with_no_right_but_its_roots(vpn: Vpn, transport: str) -> None:
    gateway, server = vpn.lab.gateway, vpn.lab.server
    server.allow_sudo("alice")
    before = [set(machine.processes()) for machine in (gateway, server)]
    login = ("-o", "User=alice")
    up(vpn, *EVERYTHING, "--portal", "--transport", transport, *login)
    roots = {only(gateway, HELPER), only(gateway, GUARD)}
    ours = set(gateway.processes()) - before[0]
    shared = {only(gateway, word) for word in (SUPERVISOR, "sshvpn.lan.main")}
    assert len(ours) > len(roots | shared)
    wait_until(lambda: set(entitled(gateway, before[0])) == roots, what="others have rights")
    # At the server sshd's own, and the agent that sudo started: a shell. What reads packets is
    # alice's.
    words = ("sshd: alice [priv]", "sudo -n /bin/sh", "/bin/sh -c", "sleep ")
    wait_until(
        lambda: (
            (theirs := entitled(server, before[1]).values())
            and all(any(word in line for word in words) for line in theirs)
        ),
        what="others have rights at the server",
    )
    # Another python3, which tunes sshd's TCP connection, is there for a moment.
    count = 1 if transport == "stream" else 0
    wait_until(
        lambda: (
            len(pumps := set(pids(server, "python3 ")) - before[1]) == count
            and pumps.isdisjoint(entitled(server, before[1]))
        ),
        what="not the one pump that it may have, or it has a right",
    )
    vpn.down()
    assert is_bare(vpn.lab)


def test_the_helper_has_nothing_of_the_caller(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    up(vpn)
    helper = f"/proc/{only(gateway, HELPER)}"
    variables = gateway.read(f"{helper}/environ").split("\0")
    status = gateway.read(f"{helper}/status")
    assert "NoNewPrivs:\t1" in status
    opened = [str(path.readlink()) for path in gateway.host_path(f"{helper}/fd").iterdir()]
    assert not [path for path in opened if "/pts/" in path], "the terminal is not held"
    assert not [word for word in variables if word.startswith("SSH_AUTH_SOCK")]
    vpn.down()


def test_it_outlives_its_terminal(vpn: Vpn) -> None:
    record = up(vpn)  # the terminal is closed: what held it would have had a hang-up
    assert vpn.record()["pid"] == record["pid"]
    address = record["remote_address"].partition("/")[0]
    assert "server" in vpn.lab.gateway.run(["curl", "-sS", f"http://{address}:8080/"]).stdout
    vpn.down()


# Ends -----------------------------------------------------------------------------------------


def test_a_supervisor_that_is_killed_takes_all_with_it(vpn: Vpn) -> None:
    # Its own two files it cannot remove any more; `clean` does.
    place = f"{RUNTIME}/tunnel-{tunnel_id('server')}"
    with vpn.lab.unchanged(but=(f"{place}/control", f"{place}/lock")):
        record = up(vpn, "server", "--lan", "--publish", "8888", "--route", "10.20.0.0/24")
        vpn.lab.gateway.kill(record["pid"])
        wait_until(lambda: is_bare(vpn.lab), 5)
    assert vpn.lab.sshvpn("status").stdout.strip() == "nothing is up"
    tidy(vpn)
    vpn.lab.check()


def test_a_helper_that_is_killed_ends_it_where_sudo_would_ask_for_another(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        up(vpn, *EVERYTHING)
        gateway.kill(only(gateway, HELPER))
        wait_until(lambda: is_bare(vpn.lab), 10, what="something is left")
        assert "the privileged helper was killed" in vpn.log()
        assert "sudo wants a password" in vpn.log()
        assert vpn.lab.sshvpn("status").stdout.strip() == "nothing is up"
        assert vpn.lab.sshvpn("down", "server", check=False).returncode == 3
        assert vpn.lab.sshvpn("clean").stdout == "nothing was left behind\n"
        up(vpn)
        vpn.down()
    assert is_bare(vpn.lab)


def test_in_the_foreground_a_helper_that_is_killed_is_exit_code_4(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        terminal = at_terminal(vpn, *EVERYTHING, "--foreground")
        wait_until(lambda: state(vpn) == "running", 30, every=0.1)
        gateway.run(["rm", "-rf", "/run/sudo/ts"], user="root")  # its ticket is of this terminal
        gateway.kill(only(gateway, HELPER))
        assert exit_code(terminal) == 4, terminal.before
        assert "the privileged helper was killed" in terminal.before
        assert "sshvpn up" in terminal.before
        assert "Traceback" not in terminal.before
        wait_until(lambda: is_bare(vpn.lab), what="something is left")


def state(vpn: Vpn) -> str | None:
    """Return the state of the only tunnel, None where there is none."""
    tunnels = json.loads(vpn.lab.sshvpn("status", "--json").stdout)["tunnels"]
    return str(tunnels[0]["state"]) if tunnels else None


@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_helper_that_is_killed_is_replaced_where_nobody_need_be_asked(
    lab: Lab, user: str
) -> None:
    vpn = Vpn(lab)
    gateway = lab.gateway
    if user == "root":
        gateway.run(["cp", "-r", f"{HOME}/.ssh", "/root/"], user="root")
        gateway.run(["chown", "-R", "root:root", "/root/.ssh"], user="root")
        lab.checkpoint()
    with lab.unchanged():
        lab.sshvpn("up", *EVERYTHING, user=user, env={"SSH_AUTH_SOCK": f"{HOME}/.ssh/agent.sock"})
        ssh, before = connection(gateway), gateway.dump()
        killed = only(gateway, HELPER)
        gateway.kill(killed)
        wait_until(lambda: pids(gateway, HELPER) not in ([], [killed]), 10, what="no other helper")
        wait_until(lambda: len(pids(gateway, GUARD)) == 1, 10, what="the first guard is left")
        # What is ours is seen to as before, by the one that has taken over.
        gateway.ip("route", "delete", "10.20.0.0/24", "dev", "sshvpn0")
        wait_until(lambda: gateway.dump() == before, 10, what="the route does not come back")
        assert vpn.unreachable({**vpn.published(), **vpn.inner()}) == []
        assert connection(gateway) == ssh, "the connection has nothing to do with it"
        lab.sshvpn("down", user=user)
        assert is_bare(lab)


def test_a_helper_that_is_killed_and_its_guard_too_is_swept_by_the_next_up(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        up(vpn, *EVERYTHING)
        gateway.kill(only(gateway, GUARD))
        gateway.kill(only(gateway, HELPER))
        wait_until(lambda: not pids(gateway, SUPERVISOR), 10, what="it lives on")
        refused = vpn.lab.sshvpn("clean", check=False)
        assert refused.returncode == 4, refused  # nobody there who could give sudo a password
        up(vpn)
        vpn.down()


def test_an_ssh_that_is_killed_is_started_anew_without_a_question(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    before = up(vpn)
    gateway.kill(only(gateway, SSH))
    wait_until(lambda: vpn.record()["reconnects"] == 1, 20, every=0.1)
    wait_until(lambda: vpn.record()["state"] == "running", 20, every=0.1)
    assert vpn.record()["pid"] == before["pid"]
    vpn.down()


# sudo -----------------------------------------------------------------------------------------


def test_a_wrong_password_for_sudo_is_no_privilege(vpn: Vpn) -> None:
    terminal = at_terminal(vpn, password="wrong")
    for _ in range(2):  # sudo asks three times
        terminal.expect_exact(WHY)
        terminal.sendline("wrong")
    assert exit_code(terminal) == 4
    assert "no privilege to change the network" in terminal.before
    assert is_bare(vpn.lab)


def test_without_a_terminal_sudo_that_asks_is_no_privilege(vpn: Vpn) -> None:
    result = vpn.lab.sshvpn("up", "server", check=False)
    assert result.returncode == 4, result
    assert "password" in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not vpn.lab.gateway.exists(RUNTIME)


def test_under_sudo_it_is_the_callers_tunnel(lab: Lab) -> None:
    vpn = Vpn(lab)
    gateway = lab.gateway
    sudo = ["sudo", "-n", "--preserve-env=SSH_AUTH_SOCK", sys.executable, "-m", "sshvpn"]
    gateway.run([*sudo, "up", *DEFAULT])
    for word in (SUPERVISOR, SSH):
        users, sets = rights(gateway, only(gateway, word))
        assert (users, sets["Eff"], sets["Prm"]) == ({1000}, 0, 0)
    users, sets = rights(gateway, only(gateway, HELPER))
    assert (users, sets["Eff"]) == ({0}, CAP_NET_ADMIN)
    assert vpn.record()["uid"] == 1000, "alice sees it without sudo"
    for place in (HOME, RUNTIME):
        strangers = gateway.run(["find", place, "!", "-user", "alice"], user="root").stdout
        assert strangers == ""
    vpn.down()
    assert is_bare(lab)


def test_a_second_up_says_so_and_asks_nobody(vpn: Vpn) -> None:
    first = up(vpn)
    result = vpn.lab.sshvpn("up", "server", "--no-lan")  # without a terminal sudo would refuse
    assert "server is up already" in result.stderr
    terminal = vpn.lab.sshvpn_pty("up", "server")
    assert exit_code(terminal) == 0
    assert "is up already" in terminal.before
    assert "password" not in terminal.before
    assert vpn.record()["pid"] == first["pid"]
    vpn.down()


# Interrupted ----------------------------------------------------------------------------------


def test_ctrl_c_at_sudos_prompt_leaves_nothing(vpn: Vpn) -> None:
    terminal = vpn.lab.sshvpn_pty("up", "server")
    terminal.expect_exact(WHY)
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    assert "Traceback" not in terminal.before
    wait_until(lambda: not pids(vpn.lab.gateway, "sudo"))
    assert is_bare(vpn.lab)


def test_ctrl_c_while_ssh_logs_in_leaves_nothing(vpn: Vpn) -> None:
    vpn.lab.server.tcp_server(2200, "203.0.113.20", kind="mute")
    terminal = at_terminal(vpn, "ssh://server:2200")
    wait_until(lambda: pids(vpn.lab.gateway, SSH), what="no ssh")
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    assert "Traceback" not in terminal.before
    wait_until(lambda: is_bare(vpn.lab), what="something is left")
    assert json.loads(vpn.lab.sshvpn("status", "--json").stdout)["tunnels"] == []


# Logins that ask ------------------------------------------------------------------------------


def test_the_servers_password_is_asked_at_the_terminal(lab: Lab) -> None:
    vpn = Vpn(lab, login="alice", sudo=False)
    lab.know(lab.server.start_sshd(2222, PASSWORDS), lab.server.sshd)
    terminal = at_terminal(vpn, BY_PASSWORD, "--no-lan")
    # Without root's rights there are two logins: one has the device made, one opens it.
    while terminal.expect_exact(["alice@server's password: ", "is up\r\n"], timeout=30) == 0:
        terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal) == 0, terminal.before
    assert vpn.record()["state"] == "running"
    vpn.down()


def test_ctrl_c_at_the_servers_prompt_leaves_nothing(lab: Lab) -> None:
    vpn = Vpn(lab, login="alice", sudo=False)
    sshd = lab.server.start_sshd(2222, PASSWORDS)
    lab.know(sshd, lab.server.sshd)
    terminal = at_terminal(vpn, BY_PASSWORD, "--no-lan")
    terminal.expect_exact("alice@server's password: ")
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    wait_until(lambda: is_bare(lab), what="something is left")
    assert "Failed password" not in sshd.log, "an empty one was tried"
