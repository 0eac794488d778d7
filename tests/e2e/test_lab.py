"""The laboratory itself: what other tests lean on. Its topology is drawn in tests/lab."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pexpect
import pytest

from tests.lab import (
    ALICE_PASSWORD,
    PASSPHRASE,
    WORLD,
    WORLD6,
    CommandError,
    Lab,
    LabMachine,
    Wan,
    wait_until,
)

ROOT = pathlib.Path(__file__).parents[2]


def answers(machine: LabMachine, address: str) -> bool:
    return machine.run(["ping", "-c1", "-W0.3", address], check=False).returncode == 0


# -- who reaches whom --------------------------------------------------------------------------


def test_neighbours_reach_each_other_by_name_and_in_both_families(lab: Lab) -> None:
    for machine, *addresses in (
        (lab.lan, "gateway", lab.gateway.address, lab.gateway.address6),
        (lab.gateway, "server", lab.server.address, lab.server.address6),
        (lab.server, "203.0.113.10", "2001:db8:113::10"),
        (lab.inner, "10.20.0.1", "fd20::1"),
        (lab.server, "inner", lab.inner.address, lab.inner.address6),
    ):
        for address in addresses:
            assert answers(machine, address), f"{machine.name} -> {address}"


def test_nobody_forwards(lab: Lab) -> None:
    for machine, address in (
        (lab.lan, lab.server.address),
        (lab.lan, lab.server.address6),
        (lab.lan, lab.inner.address),
        (lab.gateway, lab.inner.address),
        (lab.inner, lab.lan.address),
    ):
        assert not answers(machine, address), f"{machine.name} -> {address}"


def test_the_gateways_default_route_leads_to_the_world(lab: Lab) -> None:
    assert answers(lab.gateway, WORLD)
    assert answers(lab.gateway, WORLD6)
    assert not answers(lab.lan, WORLD)


def test_machines_on_demand_are_there_when_used(lab: Lab) -> None:
    assert answers(lab.lan2, "192.168.78.1")
    assert answers(lab.lan2, "fd78::1")
    assert answers(lab.gateway, lab.jump.address)
    hop = lab.gateway.run(["ssh", "-J", "jump", "server", "hostname"])
    assert hop.stdout == "server\n"
    wait_until(lambda: not lab.differences(), what="sshd's processes end after their client")
    other = lab.add_server("other", 41)
    assert other.address == "203.0.113.41"
    assert lab.gateway.run(["ssh", "other", "hostname"]).stdout == "other\n"
    assert lab.server.run(["getent", "hosts", "jump"]).returncode == 0


def test_in_the_home_the_lan_and_the_server_are_behind_the_same_adapter(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(home=True)
    assert lab.gateway.address == "192.168.77.1"
    for machine, *addresses in (
        (lab.lan, lab.gateway.address, lab.gateway.address6, lab.router.address),
        (lab.gateway, lab.lan.address6, lab.server.address, lab.server.address6, WORLD, WORLD6),
        (lab.lan, lab.server.address, lab.server.address6),
    ):
        for address in addresses:
            assert answers(machine, address), f"{machine.name} -> {address}"
        assert not answers(machine, lab.inner.address)
    way = lab.gateway.ip("route", "get", lab.server.address)
    assert "via 192.168.77.254 dev lan0 src 192.168.77.1" in way
    assert not answers(lab.server, lab.gateway.address), "behind the router's NAT"
    assert lab.gateway.run(["ssh", "server", "echo $SSH_CLIENT"]).stdout.startswith("203.0.113.10 ")
    lab.shape(Wan(delay_ms=10))
    assert rtt_ms(lab.gateway, "server") >= 20
    lab.cut()
    assert not answers(lab.gateway, "server")
    assert answers(lab.gateway, lab.lan.address)


# -- people and logins -------------------------------------------------------------------------


def test_alice_logs_in_with_the_key_in_her_agent(lab: Lab) -> None:
    assert lab.gateway.run(["ssh", "server", "whoami; hostname"]).stdout == "alice\nserver\n"
    assert "Accepted publickey for alice" in lab.server.sshd.log
    with pytest.raises(CommandError, match="Permission denied"):
        lab.gateway.run(["ssh", "-o", "BatchMode=yes", "root@server", "true"])


def test_alices_key_is_encrypted(lab: Lab) -> None:
    terminal = lab.gateway.pty(["ssh", "server", "echo", "in"], env={"SSH_AUTH_SOCK": None})
    terminal.expect("Enter passphrase for key '/home/alice/.ssh/id_ed25519': ")
    terminal.sendline(PASSPHRASE)
    terminal.expect("in\r\n")
    terminal.expect(pexpect.EOF)


def test_an_sshd_takes_options_and_passwords(lab: Lab) -> None:
    sshd = lab.server.start_sshd(
        2222,
        {"PasswordAuthentication": "yes", "PubkeyAuthentication": "no", "Banner": "/etc/banner"},
        key_types=["ed25519"],
    )
    lab.server.write("/etc/banner", "Be kind.\n", "root", 0o644)
    lab.know(sshd, hashed=True)
    terminal = lab.gateway.pty(["ssh", "-p", "2222", "server", "echo", "in"])
    terminal.expect_exact("Be kind.")
    terminal.expect("password: ")
    terminal.sendline(ALICE_PASSWORD)
    terminal.expect("in\r\n")
    assert lab.gateway.read("/home/alice/.ssh/known_hosts").startswith("|1|")


def test_a_keyboard_interactive_login_asks(lab: Lab) -> None:
    sshd = lab.server.start_sshd(
        2222,
        {
            "UsePAM": "yes",
            "KbdInteractiveAuthentication": "yes",
            "AuthenticationMethods": "publickey,keyboard-interactive",
        },
    )
    lab.know(sshd)
    terminal = lab.gateway.pty(["ssh", "-p", "2222", "server", "echo", "in"])
    terminal.expect("Password: ")
    terminal.sendline(ALICE_PASSWORD)
    terminal.expect("in\r\n")


def test_root_may_log_in_where_asked_for(lab: Lab) -> None:
    lab.server.authorize("root")
    assert lab.gateway.run(["ssh", "root@server", "id", "-u"]).stdout == "0\n"


def test_sudo_asks_alice_for_her_password_at_her_terminal(lab: Lab) -> None:
    refused = lab.gateway.run(["sudo", "-n", "id", "-u"], check=False)
    assert refused.returncode != 0
    terminal = lab.gateway.pty(["sudo", "sh", "-c", "tty; id -u"])
    terminal.expect("password for alice")
    terminal.sendline(ALICE_PASSWORD)
    terminal.expect(r"/dev/pts/\d+\r\n0\r\n")
    terminal.expect(pexpect.EOF)


def test_sudo_asks_nothing_where_it_is_allowed_to(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    assert lab.gateway.run(["ssh", "server", "sudo", "-n", "id", "-u"]).stdout == "0\n"


def test_open_sessions_can_be_killed_and_survive_a_restart(lab: Lab) -> None:
    session = lab.gateway.popen(["ssh", "server", "echo on; sleep 60"])
    assert session.stdout is not None
    assert session.stdout.readline() == "on\n"
    lab.server.sshd.restart()
    assert session.poll() is None
    assert lab.gateway.run(["ssh", "server", "true"]).returncode == 0
    wait_until(lambda: len(lab.server.sshd.sessions()) == 1, what="the second one has not ended")
    assert lab.server.sshd.kill_sessions() == 1
    assert session.wait(10) == 255
    session.communicate()
    lab.server.run(["pkill", "sleep"], check=False)


def test_a_changed_host_key_is_noticed(lab: Lab) -> None:
    lab.server.sshd.change_host_keys()
    result = lab.gateway.run(["ssh", "server", "true"], check=False)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in result.stderr


# -- commands ----------------------------------------------------------------------------------


def test_signals_reach_the_command_and_its_end_is_told(lab: Lab) -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        child = lab.gateway.popen(["sh", "-c", "echo on; exec sleep 60"])
        assert child.stdout is not None
        assert child.stdout.readline() == "on\n"
        child.send_signal(sig)
        child.communicate(timeout=10)
        # A killed command looks killed; only a process that was killed itself could say it so.
        assert child.returncode in (-sig, 128 + sig)


def test_a_timeout_takes_all_that_the_command_started(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.gateway.run(["sh", "-c", "sleep 61 & sleep 62 & wait"], timeout=0.3)
    wait_until(lambda: not any("sleep" in line for line in lab.gateway.processes().values()))


def test_a_terminal_belongs_to_the_command(lab: Lab) -> None:
    terminal = lab.gateway.pty(["bash", "--norc", "-i"], env={"PS1": "ready> "})
    terminal.expect_exact("ready> ")
    terminal.sendline("stty size; tty; sleep 60")
    terminal.expect_exact("40 120\r\n/dev/pts/")
    wait_until(lambda: "1000 sleep 60" in lab.gateway.processes().values())
    terminal.sendintr()
    terminal.expect_exact("ready> ")
    terminal.sendline("exit 7")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 7


def test_the_interpreter_and_the_checkout_are_usable_by_alice(lab: Lab) -> None:
    code = "import click, pathlib, os; print(pathlib.Path('pyproject.toml').exists(), os.getuid())"
    result = lab.gateway.run([sys.executable, "-c", code], cwd=str(ROOT))
    assert result.stdout == "True 1000\n"
    touched = lab.gateway.run(["touch", f"{ROOT}/tests/x"], user="root", check=False)
    assert touched.returncode != 0


def test_alice_can_open_the_tun_device_but_not_make_one(lab: Lab) -> None:
    lab.gateway.run(["sh", "-c", "exec 3<>/dev/net/tun"])
    add = ["ip", "tuntap", "add", "tun9", "mode", "tun"]
    assert lab.gateway.run(add, check=False).returncode != 0
    lab.gateway.run(add, user="root")
    lab.gateway.run(["ip", "tuntap", "del", "tun9", "mode", "tun"], user="root")


# -- services ----------------------------------------------------------------------------------


def test_services_listen_when_they_are_returned(lab: Lab) -> None:
    web = lab.server.http_server(8080, "::", title="Hello")
    hashing = lab.server.tcp_server(0, lab.server.address, kind="hash")
    udp = lab.server.udp_server(5353, lab.server.address)
    unix = lab.server.unix_server("/home/alice/echo.sock")
    page = lab.gateway.run(["curl", "-s", f"http://server:{web.port}/"]).stdout
    assert "<title>Hello</title>" in page
    peer = lab.gateway.run(["curl", "-s", f"http://[{lab.server.address6}]:8080/peer"]).stdout
    assert peer == "2001:db8:113::10"
    talk = textwrap.dedent("""
        import socket, sys
        s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
        s.sendall(b"x" * 100000); s.shutdown(socket.SHUT_WR)
        print(len(s.recv(100)))
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
        u.sendto(b"hello", (sys.argv[1], int(sys.argv[3]))); print(u.recv(100).decode())
    """)
    out = lab.gateway.python(talk, lab.server.address, str(hashing.port), str(udp.port))
    assert out == "64\nhello\n"
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    lab.server.python(code, unix.address)


# -- the WAN -----------------------------------------------------------------------------------


def test_a_silent_cut_looks_like_nothing_and_an_unplugged_cable_does_not(lab: Lab) -> None:
    lab.cut()
    assert not answers(lab.gateway, "server")
    assert "LOWER_UP" in lab.gateway.ip("link", "show", "wan0")
    lab.restore()
    wait_until(lambda: answers(lab.gateway, "server"))
    lab.cut(silent=False)
    assert "NO-CARRIER" in lab.gateway.ip("link", "show", "wan0")
    lab.restore()
    wait_until(lambda: answers(lab.gateway, "server"))


def rtt_ms(machine: LabMachine, address: str, count: int = 5) -> float:
    out = machine.run(["ping", "-c", str(count), "-i", "0.05", address]).stdout
    return float(out.rsplit("=", 1)[1].split("/")[0])


def test_the_emulator_delays_and_can_be_changed(wan_lab: Callable[[Wan], Lab]) -> None:
    lab = wan_lab(Wan(delay_ms=20))
    assert rtt_ms(lab.gateway, "server") >= 40
    assert rtt_ms(lab.gateway, WORLD) >= 40
    lab.shape(Wan(delay_ms=5), back=Wan(delay_ms=10))
    assert 15 <= rtt_ms(lab.gateway, "server") < 40
    lab.cut()
    assert not answers(lab.gateway, "server")
    lab.restore()
    wait_until(lambda: answers(lab.gateway, "server"))
    assert lab.gateway.run(["ssh", "server", "hostname"]).stdout == "server\n"


def test_the_emulator_loses_the_same_packets_for_the_same_seed(lab: Lab) -> None:
    lab.shape(Wan())
    wait_until(lambda: answers(lab.gateway, "server"))  # neighbours are known from here on

    def lost(seed: int) -> set[str]:
        lab.shape(Wan(seed=0))  # the dice start again with another seed
        lab.shape(Wan(loss=0.3, seed=seed), back=Wan())
        out = lab.gateway.run(
            ["ping", "-c", "40", "-i", "0.002", "-W", "1", "server"], check=False, user="root"
        ).stdout
        got = {part.split("=")[1] for part in out.split() if part.startswith("icmp_seq=")}
        return {str(number) for number in range(1, 41)} - got

    first = lost(1)
    assert 0 < len(first) < 40
    assert lost(1) == first
    assert lost(2) != first


def test_the_emulator_limits_the_rate_and_the_queue(wan_lab: Callable[[Wan], Lab]) -> None:
    lab = wan_lab(Wan(rate_mbit=8))
    lab.server.http_server(8080, lab.server.address)
    started = time.monotonic()
    lab.gateway.run(["curl", "-sSo", "/dev/null", "http://server:8080/bytes/500000"])
    assert time.monotonic() - started >= 0.5  # 500 kB at 1 MB/s
    # Twenty big packets at once meet a queue of three: one on the wire, three wait.
    lab.shape(Wan(rate_mbit=1, queue_packets=3))
    burst = ["ping", "-c", "20", "-i", "0.001", "-s", "1400", "-W", "1", "server"]
    out = lab.gateway.run(burst, check=False, user="root").stdout
    assert int(out.split(" received")[0].rsplit(" ", 1)[1]) < 20
