"""Ways from the LAN machine to the server: ours, and those that people would take instead.

::

    lan ──1500── gateway ══ the way ══ server (load.py serve)

Each is a context manager over an office that is prepared (:func:`prepare`). It yields the address
of the server that leads through it, and takes all away at its end. Only one stands at a time:
none changes what another one's packets meet. What is not installed, or not there yet, is a
NotHereError.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.office import Office
from tests.lab import Child, LabMachine, refused, wait_until
from tests.lab.contents import ALICE
from tests.lab.process import CommandError

PEER_UNIT = 9
PEER_NET = "10.83.0"
HERE, THERE = f"{PEER_NET}.1", f"{PEER_NET}.2"
LAN = "192.168.77.0/24"
SERVER = "203.0.113.20"
BEHIND_SERVER = "10.20.0.1"
"""The server's address in the network behind it: sshuttle leaves out the one it logs in to."""
CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"

Way = Callable[[Office], AbstractContextManager[str]]


class NotHereError(Exception):
    """A way that this machine, or this version, does not have."""


def prepare(office: Office) -> None:
    """Let alice log in as root at the server, which permits tunnels, and use sudo here."""
    lab = office.lab
    lab.server.sshd.restart(PermitTunnel="yes")
    lab.server.authorize("root")
    lab.gateway.allow_sudo()
    lab.gateway.write(f"{ALICE.home}/.ssh/config", "Host server\n  User root\n")


# Ours ---------------------------------------------------------------------------------------


@contextmanager
def ours(
    office: Office, transport: str = "auto", *, streams: int = 1, is_handed_over: bool = False
) -> Iterator[str]:
    """Bring our tunnel up, for the LAN too; with ssh handed a connection of ours where asked for.

    Both machines are set to reno meanwhile, so that what paces ssh's connection is our choice.
    """
    words = ["up", "server", "--lan", "--transport", transport]
    if streams > 1:
        words.append(f"--streams={streams}")
    with paced_by("reno", office.lab.gateway, office.lab.server):
        try:
            if is_handed_over:
                refused.sshvpn(office.lab, *words)
            else:
                office.lab.sshvpn(*words)
        except CommandError as error:
            raise NotHereError(error.result.stderr.strip().partition("\n")[0]) from error
    try:
        yield addresses(office)[0]
    finally:
        office.lab.sshvpn("down")


def addresses(office: Office) -> list[str]:
    """Return the server's addresses in our tunnel, IPv4 first."""
    (record,) = json.loads(office.lab.sshvpn("status", "--json").stdout)["tunnels"]
    return [address.partition("/")[0] for address in record["remote_addresses"]]


@contextmanager
def paced_by(name: str, *machines: LabMachine) -> Iterator[None]:
    """Let MACHINES pace by NAME the TCP connections that are made meanwhile."""
    with ExitStack() as stack:
        for machine in machines:
            stack.callback(_write, machine, CONTROL, machine.read(CONTROL).strip())
            _write(machine, CONTROL, name)
        yield


# ssh -w -------------------------------------------------------------------------------------


@contextmanager
def ssh_w(office: Office, congestion_control: str | None = None) -> Iterator[str]:
    """Make a tunnel as ssh(1) shows it: MTU 1500, OpenSSH's own cipher.

    CONGESTION_CONTROL paces its TCP connection at both ends; by default the kernel's own.
    """
    lab, device = office.lab, f"tun{PEER_UNIT}"
    lab.gateway.ip("tuntap", "add", "dev", device, "mode", "tun", "user", ALICE.name)
    child = lab.gateway.popen(
        ["ssh", "-N", "-o", "ControlPath=none", "-o", "Tunnel=point-to-point",
         "-w", f"{PEER_UNIT}:{PEER_UNIT}", "server"]
    )  # fmt: skip
    try:
        _configure(lab.server, device, THERE, HERE, child)
        _configure(lab.gateway, device, HERE, THERE, child)
        if congestion_control is not None:
            pace_ssh(lab.gateway, congestion_control)
            pace_ssh(lab.server, congestion_control)
        with _routed(office, device):
            yield THERE
    finally:
        child.end()
        lab.gateway.ip("link", "delete", device)
        wait_until(lambda: not _has_device(lab.server, device), 10)


_PACE = """
import socket, sys
from contextlib import closing
from sshvpn.remote import tcp_socket
from sshvpn.system.network.sockets import ProcessSockets
found = 0
for pid in map(int, sys.argv[2:]):
    with closing(ProcessSockets(pid)) as process:
        for _, sock in process.borrow_all():
            try:
                ports = {sock.getpeername()[1], sock.getsockname()[1]}
            except OSError:
                continue
            if 22 in ports:
                tcp_socket.choose(sock, sys.argv[1])
                found += 1
sys.exit(not found)
"""


def pace_ssh(machine: LabMachine, congestion_control: str) -> None:
    """Let the SSH connections of MACHINE be paced so, also by what the kernel keeps to root."""
    pids = map(str, machine.processes())
    machine.run(
        [*_python(), "-c", _PACE, congestion_control, *pids], user="root", cwd=str(_checkout())
    )


# Peers that are not SSH, and sshuttle ---------------------------------------------------------


@contextmanager
def openvpn(office: Office) -> Iterator[str]:
    """OpenVPN over UDP, AES-128-GCM, point to point, with a certificate at each end."""
    _need("openvpn", "openssl")
    device = "tunovpn"
    with tempfile.TemporaryDirectory(prefix="openvpn-") as made, ExitStack() as stack:
        prints = {end: _certificate(Path(made), end) for end in ("here", "there")}
        ends = (
            (office.lab.server, "there", "here", ("--tls-server", "--dh", "none")),
            (office.lab.gateway, "here", "there", ("--tls-client", "--remote", SERVER)),
        )
        for machine, own, other, words in ends:
            for kind in ("key", "crt"):
                text = (Path(made) / f"{own}.{kind}").read_text()
                machine.write(f"/root/openvpn.{kind}", text, owner="root")
            addresses = (THERE, HERE) if own == "there" else (HERE, THERE)
            child = machine.popen(
                ["openvpn", "--dev", device, "--dev-type", "tun", "--ifconfig", *addresses,
                 "--proto", "udp", "--port", "1194", "--key", "/root/openvpn.key",
                 "--cert", "/root/openvpn.crt", "--peer-fingerprint", prints[other],
                 "--data-ciphers", "AES-128-GCM", "--disable-dco", "--verb", "1", *words],
                user="root",
            )  # fmt: skip
            stack.callback(child.end)
        with _waited(office, device):
            yield THERE


def _certificate(directory: Path, name: str) -> str:
    """Make NAME.key and NAME.crt, and return the certificate's SHA-256 fingerprint."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "30", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return shown.stdout.strip().partition("=")[2]


@contextmanager
def wireguard_go(office: Office) -> Iterator[str]:
    """WireGuard in user space, as wireguard-go has it, MTU 1420."""
    _need("wireguard-go", "wg")
    with ExitStack() as stack:
        keys = {end: _wg("genkey") for end in ("here", "there")}
        public = {end: _wg("pubkey", keys[end]) for end in keys}
        ends = ((office.lab.server, "there", "here"), (office.lab.gateway, "here", "there"))
        for machine, own, other in ends:
            device = f"wg{own}"
            child = machine.popen(["wireguard-go", "--foreground", device], user="root")
            stack.callback(child.end)
            wait_until(lambda m=machine, d=device: _has_device(m, d), 10)  # type: ignore[misc]
            machine.write("/root/wg.key", keys[own], owner="root")
            where = ["endpoint", f"{SERVER}:51820"] if own == "here" else []
            machine.run(
                ["wg", "set", device, "private-key", "/root/wg.key", "listen-port", "51820",
                 "peer", public[other], "allowed-ips", "0.0.0.0/0", *where],
                user="root",
            )  # fmt: skip
            addresses = (THERE, HERE) if own == "there" else (HERE, THERE)
            _up(machine, device, *addresses, mtu=1420)
        with _routed(office, "wghere", "wgthere"):
            yield THERE


def _wg(verb: str, text: str = "") -> str:
    done = subprocess.run(["wg", verb], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def sshuttle(office: Office) -> Iterator[str]:
    """TCP alone: redirected at the gateway, and made anew at the server, over an ssh in Python."""
    _need("sshuttle")
    child = office.lab.gateway.popen(
        ["sshuttle", "--listen", "0.0.0.0", "--method", "nat",
         "--ssh-cmd", "ssh -o ControlPath=none", "-r", "server", f"{BEHIND_SERVER}/32"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    try:
        wait_until(
            lambda: _answers(office, BEHIND_SERVER, child), 20, what="sshuttle does not answer"
        )
        yield BEHIND_SERVER
    finally:
        child.end()
        flush = "iptables -t nat -F; iptables -t nat -X; ip6tables -t nat -F; ip6tables -t nat -X"
        office.lab.gateway.run(["sh", "-c", flush], user="root", check=False)


PEERS: Mapping[str, Way] = {
    "ssh -w": ssh_w,
    "OpenVPN": openvpn,
    "wireguard-go": wireguard_go,
    "sshuttle": sshuttle,
}


def transports() -> Mapping[str, Way]:
    """Return our own ways by their names."""
    return {name: partial(ours, transport=name) for name in ("stream", "w")}


# What they have in common -------------------------------------------------------------------


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise NotHereError(f"{program} is not installed")


def _python() -> tuple[str, ...]:
    import sys

    return (sys.executable,)


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent


def _answers(office: Office, address: str, child: Child) -> bool:
    if child.poll() is not None:
        raise NotHereError(f"it ended: {child.communicate()[1].strip()[-300:]}")
    try:
        office.transfer_to(office.lab.lan, address, "push", 1)
    except CommandError:
        return False
    return True


def _has_device(machine: LabMachine, device: str) -> bool:
    return f": {device}:" in machine.ip("-o", "link")


def _up(machine: LabMachine, device: str, own: str, other: str, mtu: int | None = None) -> None:
    machine.ip("address", "add", own, "peer", other, "dev", device)
    machine.ip("link", "set", device, *(("mtu", str(mtu)) if mtu else ()), "up")


def _configure(machine: LabMachine, device: str, own: str, other: str, child: Child) -> None:
    def is_there() -> bool:
        if child.poll() is not None:
            raise RuntimeError(f"ssh -w ended: {child.communicate()[1]}")
        return _has_device(machine, device)

    wait_until(is_there, 10, what=f"{machine.name} has no {device}")
    _up(machine, device, own, other)


@contextmanager
def _waited(office: Office, device: str) -> Iterator[None]:
    """Wait until both ends have DEVICE and a packet crosses, with the LAN routed over it."""
    lab = office.lab
    for machine in (lab.server, lab.gateway):
        wait_until(lambda m=machine: _has_device(m, device), 15)  # type: ignore[misc]
    with _routed(office, device):
        ping = ["ping", "-n", "-c1", "-W1", THERE]
        wait_until(lambda: lab.lan.run(ping, check=False).returncode == 0, 20)
        yield


@contextmanager
def _routed(office: Office, device: str, at_server: str = "") -> Iterator[None]:
    """Let the LAN use DEVICE of the gateway; the server answers by its own of that name."""
    lab, there = office.lab, at_server or device
    for adapter in ("lan0", device):
        _write(lab.gateway, _forwarding(adapter), "1")
    lab.server.ip("route", "replace", LAN, "dev", there)
    try:
        yield
    finally:
        _write(lab.gateway, _forwarding("lan0"), "0")


def _forwarding(adapter: str) -> str:
    return f"/proc/sys/net/ipv4/conf/{adapter}/forwarding"


def _write(machine: LabMachine, path: str, value: str) -> None:
    machine.run(["sh", "-c", f"echo {value} >{path}"], user="root")
