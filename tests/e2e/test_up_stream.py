"""`up --transport stream`: what only this transport does, and its own faults.

alice, lan ── gateway ══ ssh: agent │ pump ══ server (PermitTunnel no) ── inner
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.office import Office
from tests.e2e.vpn import INNER_HOSTS, SHARED, Vpn, answers_ping
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.contents import ALICE
from tests.lab.process import read_line

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
@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "plain"])
def test_every_kind_of_packet_arrives_whole_with_the_right_checksums(
    lab: Lab, mtu: int, offloads: bool
) -> None:
    adapters = [
        (lab.lan, "eth0"), (lab.gateway, "lan0"), (lab.server, "inner0"), (lab.inner, "eth0")
    ]  # fmt: skip
    for machine, adapter in adapters:
        machine.run([*WIRE, "offloads", adapter, str(int(offloads))], user="root")
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
    if not offloads:
        assert max(there["unready"], here["unready"]) == 0
        assert here["largest"] <= mtu
    vpn.down()


# Servers that are not as they should be -------------------------------------------------------

SHIM = "/run/shim"
ABSENT = "#!/bin/sh\nexit 127\n"
# Of any Python it is told that it is too old; and a kernel that has no offloads for a tun.
TOO_OLD = '#!/bin/sh\nexec /usr/bin/python3 "$1" "$(echo "$2" | sed "s/(3,6)/(9,9)/")" "$3" "$4"\n'
NO_OFFLOADS = """#!/bin/sh
boot=$(echo "$2" | sed "s/sys.exit(serve/_offload=lambda *_: False;sys.exit(serve/")
option=$1; shift 2
exec /usr/bin/python3 "$option" "$boot" "$@"
"""


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


def test_a_server_that_permits_neither_is_told_both(lab: Lab) -> None:
    Vpn(lab)
    with_python(lab, ABSENT)
    lab.server.sshd.restart(PermitTunnel="no")
    lab.checkpoint()
    refused = lab.sshvpn("up", "server", "--no-lan", check=False)
    assert refused.returncode == 5
    assert "no python3" in refused.stderr
    assert "PermitTunnel" in refused.stderr


def test_a_kernel_without_offloads_carries_the_same(lab: Lab) -> None:
    vpn = stream(lab)
    with_python(lab, NO_OFFLOADS)
    lab.checkpoint()
    vpn.up(*SHARED, "--transport", "stream")
    tcp, udp = lab.inner.tcp_server(7000, "::").port, lab.inner.udp_server(7007, "::").port
    with watched(lab.inner, "eth0") as there, watched(lab.lan, "eth0") as here:
        for host in INNER_HOSTS:
            words = [*WIRE, "send", host, str(tcp), str(udp), "3000000"]
            assert lab.lan.run(words, user="root", timeout=60).stdout == "ok\n"
    assert (there["wrong"], here["wrong"]) == ([], [])
    vpn.down()


def test_noise_of_the_login_is_passed_over(lab: Lab) -> None:
    vpn = stream(lab, "alice")
    noise = "head -c 30000 /dev/urandom; echo; seq 2000\n"
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
    # Who opens it next need not know of segments.
    vpn.down()
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
    assert lab.gateway.run(["cat", f"/proc/{pid}/environ"], user="root").stdout == ""
    vpn.down()
