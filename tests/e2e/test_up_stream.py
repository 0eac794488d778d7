"""`up --transport stream`: what only this transport does, and its own faults.

alice, lan ── gateway ══ ssh: agent │ pump ══ server (PermitTunnel no) ── inner
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.office import Office
from tests.e2e.vpn import INNER_HOSTS, SHARED, Vpn, answers_ping
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.contents import ALICE
from tests.lab.offloads import has_offloads
from tests.lab.process import read_line

KNOWS_UDP = [int(word) for word in os.uname().release.split(".")[:2]] >= [6, 2]
"""Whether this kernel's tun takes whole segments of UDP."""
OLD_KERNEL = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_old_kernel.py"))]
WIRE = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_wire.py"))]


def stream(lab: Lab, login: str = "root") -> Vpn:
    vpn = Vpn(lab, login=login)
    lab.server.sshd.restart(PermitTunnel="no")
    lab.checkpoint()
    return vpn


@pytest.mark.parametrize("words", [(), ("--streams", "3")], ids=["one", "three"])
@pytest.mark.parametrize("login", ["root", "alice"])
def test_it_needs_no_permission_to_tunnel(lab: Lab, login: str, words: tuple[str, ...]) -> None:
    vpn = stream(lab, login)
    vpn.up(*SHARED, "--transport", "stream", *words)
    record = vpn.record()
    assert (record["transport"], record["mtu"]) == ("stream", 1500)
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()


# What crosses it ------------------------------------------------------------------------------


@contextlib.contextmanager
def watched(machine: LabMachine, adapter: str) -> Iterator[dict[str, Any]]:
    """Look at what comes in; what was seen is there at the end."""
    child = machine.popen([*WIRE, "watch", adapter], user="root", stdin=-1)
    assert read_line(child, 10) == "ready\n"
    seen: dict[str, Any] = {}
    yield seen
    seen |= json.loads(child.communicate(timeout=20)[0])


@pytest.mark.parametrize("mtu", [1500, 9000, 576])
@pytest.mark.parametrize(
    ("ends", "between"),
    [("all", "all"), ("tx", "no"), ("no", "no")],
    ids=["offloads", "offloads of the senders", "plain"],
)
def test_every_kind_of_packet_arrives_whole_with_the_right_checksums(
    lab: Lab, mtu: int, ends: str, between: str
) -> None:
    """Who sends leaves segments and checksums to its adapter, or not; so does who hands them on.

    Where it does not, the kernel behind the tunnel cuts them, and fills the checksums in.
    """
    adapters = [
        (lab.lan, "eth0", ends), (lab.gateway, "lan0", between),
        (lab.server, "inner0", between), (lab.inner, "eth0", ends),
    ]  # fmt: skip
    for machine, adapter, offloads in adapters:
        machine.run([*WIRE, "offloads", adapter, offloads], user="root")
        if adapter != "inner0" and machine is not lab.inner:
            machine.ip("link", "set", adapter, "mtu", str(mtu))
    vpn = stream(lab)
    vpn.up(*SHARED, "--transport", "stream")
    services = [(lab.inner.tcp_server(7000, "::").port, lab.inner.udp_server(7007, "::").port)]
    hosts = INNER_HOSTS if mtu >= 1280 else INNER_HOSTS[:1]
    with watched(lab.inner, "eth0") as there, watched(lab.lan, "eth0") as here:
        for host in hosts:
            for tcp, udp in services:
                words = [*WIRE, "send", host, str(tcp), str(udp), "8000000"]
                assert lab.lan.run(words, user="root", timeout=60).stdout == "ok\n"
    for seen in (there, here):
        assert seen["wrong"] == []
        assert seen["count"] > 50
        if between == "all":
            assert seen["unready"] > 50
            assert seen["largest"]["4"] > 30_000, "segments travel whole"
            assert len(hosts) == 1 or seen["largest"]["6"] > 30_000
            assert seen is here or not KNOWS_UDP or seen["largest"]["udp"] > 4000
        else:
            assert seen["unready"] == 0
    if between == "no":
        assert max(here["largest"].values()) <= mtu
    vpn.down()


@pytest.mark.parametrize("login", ["root", "alice"])
def test_flows_stay_in_order_over_several_connections(lab: Lab, login: str) -> None:
    """Each flow has one of them; all of them carry some."""
    vpn = stream(lab, login)
    vpn.up(*SHARED, "--transport", "stream", "--streams", "3")
    for host in INNER_HOSTS:
        child = lab.inner.popen([*WIRE, "order", "7100"], user="root", stdin=-1)
        assert read_line(child, 10) == "ready\n"
        lab.lan.run([*WIRE, "flows", host, "7100", "12"], timeout=60)
        told = json.loads(child.communicate(timeout=20)[0])
        assert told["late"] == []
        assert len(told["came"]) == 12
        assert min(told["came"].values()) > 1000
    said = lab.gateway.run(["ss", "-tinHO", "state", "established", "dport", "=", "22"]).stdout
    carried = [int(count) for count in re.findall(r"bytes_acked:(\d+)", said)]
    assert len(carried) == 3
    assert min(carried) > 500_000
    vpn.down()


# Servers that are not as they should be -------------------------------------------------------

SHIM = "/run/shim"
ABSENT = "#!/bin/sh\nexit 127\n"
# Of any Python it is told that it is too old.
TOO_OLD = '#!/bin/sh\nexec /usr/bin/python3 "$1" "$(echo "$2" | sed "s/(3,6)/(9,9)/")" "$3" "$4"\n'


def with_python(lab: Lab, text: str) -> None:
    """Let logins at the server find another python3."""
    lab.server.write(f"{SHIM}/python3", text, "root", 0o755)
    lab.server.run(["chmod", "755", SHIM], user="root")
    lab.server.sshd.restart(SetEnv=f"PATH={SHIM}:/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.mark.parametrize(
    ("python", "reason"),
    [(ABSENT, "the server has no python3"), (TOO_OLD, "the server's Python is too old: 3.")],
    ids=["absent", "too old"],
)
def test_a_server_without_a_fit_python_gets_ssh_s_own_tunnel_and_status_says_why(
    lab: Lab, python: str, reason: str
) -> None:
    vpn = Vpn(lab)
    with_python(lab, python)
    lab.checkpoint()
    refused = lab.sshvpn("up", "server", "--no-lan", "--transport", "stream", check=False)
    assert refused.returncode == 5
    assert reason in refused.stderr
    assert "--transport w" in refused.stderr
    vpn.up()
    record = vpn.record()
    assert record["transport"] == "w"
    assert record["transport_reason"].startswith(f"not stream: {reason}")
    assert "transport w (not stream:" in lab.sshvpn("status", "server").stdout
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()
    # The next time it is known.
    vpn.up("server", "--no-lan")
    assert vpn.record()["transport_reason"] == "stream did not go with this server before"
    vpn.down()
    # A day later it is asked again, and has one by now.
    memory = f"{ALICE.home}/.local/state/sshvpn/hosts.json"
    known, count = re.subn(r'"w (\d+)"', _a_day_before, lab.gateway.read(memory))
    assert count == 1
    lab.gateway.write(memory, known)
    with_python(lab, '#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    vpn.up("server", "--no-lan")
    assert "transport stream (the server can)" in lab.sshvpn("status", "server").stdout
    vpn.down()


def _a_day_before(told: re.Match[str]) -> str:
    return f'"w {int(told[1]) - 86400}"'


def test_a_server_that_permits_neither_is_told_both(lab: Lab) -> None:
    Vpn(lab)
    with_python(lab, ABSENT)
    lab.server.sshd.restart(PermitTunnel="no")
    lab.checkpoint()
    refused = lab.sshvpn("up", "server", "--no-lan", check=False)
    assert refused.returncode == 5
    assert "no python3" in refused.stderr
    assert "PermitTunnel" in refused.stderr


@pytest.mark.parametrize("lacks", ["all", "udp"])
@pytest.mark.parametrize("side", ["gateway", "server"])
def test_a_kernel_without_offloads_carries_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, side: str, lacks: str
) -> None:
    """What it hands over is cut; so is UDP where either end does not know its segments."""
    old, argv = lab.machines[side], lab.machines[side].argv
    monkeypatch.setattr(
        old, "argv", lambda *words, **how: [*OLD_KERNEL, lacks, *argv(*words, **how)]
    )
    vpn = stream(lab)
    vpn.up(*SHARED, "--transport", "stream")
    device = "sshvpn0" if side == "gateway" else vpn.far_device()
    assert has_offloads(old, device) == (lacks == "udp")
    tcp, udp = lab.inner.tcp_server(7000, "::").port, lab.inner.udp_server(7007, "::").port
    with watched(lab.inner, "eth0") as there, watched(lab.lan, "eth0") as here:
        for host in INNER_HOSTS:
            words = [*WIRE, "send", host, str(tcp), str(udp), "3000000"]
            assert lab.lan.run(words, user="root", timeout=60).stdout == "ok\n"
    assert (there["wrong"], here["wrong"]) == ([], [])
    assert there["largest"]["udp"] <= 1500
    far = there if side == "gateway" else here
    for seen in (there, here):
        tcp_sizes = (seen["largest"]["4"], seen["largest"]["6"])
        if lacks == "all" and seen is far:
            assert max(tcp_sizes) <= 1500
        else:
            assert min(tcp_sizes) > 15_000
    vpn.down()


def test_noise_of_the_login_is_passed_over(lab: Lab) -> None:
    vpn = stream(lab, "alice")
    noise = 'head -c 30000 /dev/urandom; echo; seq 2000; echo "$BASH_EXECUTION_STRING"\n'
    lab.server.write(f"{ALICE.home}/.bashrc", noise)
    lab.server.run(["usermod", "-s", "/bin/bash", "alice"], user="root", check=False)
    lab.server.write("/etc/banner", "Hello!\n" * 99, "root", 0o644)
    lab.server.sshd.restart(Banner="/etc/banner")
    lab.checkpoint()
    vpn.up("server", "--no-lan", "--transport", "stream")
    vpn.down()


def test_a_login_without_rights_uses_the_administrator_s_tun(lab: Lab) -> None:
    vpn = stream(lab, "alice")
    server = lab.server
    server.run(["rm", "-f", "/etc/sudoers.d/alice"], user="root")
    server.ip("tuntap", "add", "dev", "vpn0", "mode", "tun", "user", "alice")
    server.ip("address", "add", "10.83.0.2/30", "dev", "vpn0")
    server.ip("link", "set", "vpn0", "up")
    config = '[tunnels.office]\nhost = "server"\nremote_device = "vpn0"\n'
    lab.gateway.write(f"{ALICE.home}/.config/sshvpn/config.toml", config)
    vpn.up("office", "--no-lan")
    record = vpn.record()
    assert (record["transport"], record["remote_address"]) == ("stream", "10.83.0.2/30")
    assert answers_ping(lab.gateway, "10.83.0.2")
    assert has_offloads(server, "vpn0")
    # Who opens it next need not know of segments, however the pump has ended.
    vpn.down()
    assert not has_offloads(server, "vpn0")
    vpn.up("office", "--no-lan")
    (pump,) = pumps(server)
    server.kill(pump)
    vpn.down()
    wait_until(lambda: not has_offloads(server, "vpn0"))
    server.ip("link", "delete", "vpn0")


# Ends -----------------------------------------------------------------------------------------


def pumps(machine: LabMachine) -> list[int]:
    """Return the pumps that run on MACHINE."""
    words = ("pump_local", "zlib.decompress")
    found = machine.processes().items()
    return [pid for pid, line in found if "-IS" in line.replace("-I -S", "-IS")
            and any(word in line for word in words)
            and "ssh -" not in line]  # fmt: skip


@pytest.mark.parametrize("side", ["gateway", "server"])
@pytest.mark.parametrize("words", [(), ("--streams", "2")], ids=["one", "two"])
def test_a_pump_that_is_killed_comes_back_and_connections_live_on(
    lab: Lab, side: str, words: tuple[str, ...]
) -> None:
    vpn = stream(lab)
    vpn.up(*SHARED, "--transport", "stream", *words)
    lab.inner.tcp_server(7000, "::")
    talks = [Office(lab).talk(host, 7000, machine=lab.lan) for host in INNER_HOSTS]
    assert all(talk.is_answered("before") for talk in talks)
    lab.machines[side].kill(pumps(lab.machines[side])[-1])
    wait_until(lambda: vpn.record()["reconnects"] == 1 and vpn.record()["state"] == "running", 30)
    assert all(talk.is_answered("after") for talk in talks)
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_a_pump_whose_peer_reads_nothing_takes_no_more_memory_for_it(lab: Lab, side: str) -> None:
    """What cannot go is dropped, at either end."""
    vpn = stream(lab)
    vpn.up("server", "--no-lan", "--transport", "stream")
    here, there = (vpn.record()[f"{end}_address"].split("/")[0] for end in ("local", "remote"))
    machine, other, address = (
        (lab.gateway, lab.server, there) if side == "gateway" else (lab.server, lab.gateway, here)
    )
    (pump,), (stopped,) = pumps(machine), pumps(other)
    before = resident_mb(machine, pump)
    other.kill(stopped, signal.SIGSTOP)
    machine.run([*WIRE, "flows", address, "7100", "12"], timeout=60)
    assert resident_mb(machine, pump) > before + 2, "the queue is full"
    assert resident_mb(machine, pump) < 30
    other.kill(stopped, signal.SIGCONT)
    vpn.down()


def resident_mb(machine: LabMachine, pid: int) -> float:
    """Return the most memory that process PID has had so far."""
    (told,) = re.findall(r"^VmHWM:\s*(\d+) kB$", machine.read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(told) / 1000


def test_the_pump_on_this_machine_has_no_right_at_all(lab: Lab) -> None:
    vpn = stream(lab)
    vpn.up("server", "--no-lan", "--transport", "stream")
    (pid,) = pumps(lab.gateway)
    status = dict(
        line.split(":\t", 1)
        for line in lab.gateway.read(f"/proc/{pid}/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [str(lab.gateway.uid("alice"))] * 4
    assert status["NoNewPrivs"] == "1"
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
    environment = lab.gateway.run(["cat", f"/proc/{pid}/environ"], user="root").stdout
    assert environment == "MALLOC_TRIM_THRESHOLD_=8388608\0"
    vpn.down()
