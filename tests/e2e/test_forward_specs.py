"""What a SPEC listens on and where it leads, through a real sshd.

                 gateway                       server
curl ──> 127.0.0.1:9999, ::1, *, a.sock ═══ssh═══ localhost:8888, b.sock ──> inner
         -R: localhost:8888 <── ══════════════ 127.0.0.1:9999, *, b.sock <── curl
"""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.office import HOME, Office
from tests.lab import wait_until

SOCKET_TALK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])
s.sendall(b"hello"); s.shutdown(socket.SHUT_WR); print(s.recv(100).decode())
"""

BOTH = ["127.0.0.1:{}", "[::1]:{}"]
EVERY = ["0.0.0.0:{}", "[::]:{}"]

# SPEC: where it is then reached at the gateway, which addresses it listens on. All at once.
LOCAL = {
    "8888": ("http://localhost:8888/", BOTH),
    "9001:8888": ("http://[::1]:9001/", BOTH),
    "9002:localhost:8888": ("http://127.0.0.1:9002/", BOTH),
    "9003:[::1]:8886": ("http://localhost:9003/", BOTH),
    "9004:inner:8889": ("http://localhost:9004/", BOTH),
    "9005:[fd20::10]:8889": ("http://localhost:9005/", BOTH),
    "192.168.77.1:9006:8888": ("http://192.168.77.1:9006/", ["192.168.77.1:{}"]),
    "192.168.77.1:9007:localhost:8888": ("http://192.168.77.1:9007/", ["192.168.77.1:{}"]),
    "[fd77::1]:9008:localhost:8888": ("http://[fd77::1]:9008/", ["[fd77::1]:{}"]),
    "[::1]:9009:8888": ("http://[::1]:9009/", ["[::1]:{}"]),
    "localhost:9010:localhost:8888": ("http://localhost:9010/", BOTH),
    "*:9011:localhost:8888": ("http://203.0.113.10:9011/", EVERY),
    ":9012:localhost:8888": ("http://[2001:db8:113::10]:9012/", EVERY),
    "0.0.0.0:9013:localhost:8888": ("http://203.0.113.10:9013/", ["0.0.0.0:{}"]),
}
BIND = ["--bind", "192.168.77.1", "--bind", "fd77::1"]


@pytest.fixture
def services(office: Office) -> None:
    """Run one page at every place that a SPEC below leads to."""
    office.web()
    office.server.http_server(8886, "::1", title="notebook")
    office.lab.inner.http_server(8889, "::", title="notebook")


@pytest.mark.usefixtures("services")
def test_every_local_spec_leads_to_its_service(office: Office, engine: str) -> None:
    office.forward("--engine", engine, "server", *LOCAL)
    told = {}
    for record, (spec, (url, places)) in zip(office.status(), LOCAL.items(), strict=True):
        assert "<title>notebook</title>" in office.fetch(url), spec
        port = url.rstrip("/").rpartition(":")[2]
        assert record["spec"] == spec
        assert record["listen"] == [place.format(port) for place in places], spec
        assert record["engine"] == engine
        told[spec] = record["listen"]
    assert office.listening() == {where for listen in told.values() for where in listen}
    office.sshvpn("down")
    assert office.listening() == set()


@pytest.mark.usefixtures("services")
def test_bind_is_for_the_specs_that_say_no_address(office: Office, engine: str) -> None:
    office.forward(
        "--engine", engine, "server", *BIND, "9001:8888", "-L", "[::1]:9002:localhost:8888"
    )
    assert office.listening() == {"192.168.77.1:9001", "[fd77::1]:9001", "[::1]:9002"}
    for url in ("http://192.168.77.1:9001/", "http://[fd77::1]:9001/", "http://[::1]:9002/"):
        assert "<title>notebook</title>" in office.fetch(url)
    assert "notebook" in office.fetch("http://gateway:9001/", machine=office.lab.lan)
    office.sshvpn("down")


def test_any_free_port_is_printed_and_works(office: Office, engine: str) -> None:
    office.web()
    printed = office.forward("--engine", engine, "server", "0:8888").stdout
    found = re.match(r"http://localhost:(\d+)/ -> server localhost:8888\n$", printed)
    assert found is not None, printed
    port = found[1]
    assert "notebook" in office.fetch(f"http://localhost:{port}/")
    assert "notebook" in office.fetch(f"http://[::1]:{port}/")
    assert office.only()["listen"] == [f"127.0.0.1:{port}", f"[::1]:{port}"]
    office.sshvpn("down")


def test_unix_sockets_on_either_side(office: Office) -> None:
    office.server.unix_server(f"{HOME}/b.sock")
    office.server.tcp_server(7000)
    talk = "import socket; s = socket.create_connection(('localhost', 9999), 10)"
    office.forward(
        "server", f"{HOME}/one.sock:{HOME}/b.sock", f"{HOME}/two.sock:localhost:7000",
        f"9999:{HOME}/b.sock",
    )  # fmt: skip
    for path in ("one", "two"):
        assert office.gateway.python(SOCKET_TALK, f"{HOME}/{path}.sock") == "hello\n"
    talk += "\ns.sendall(b'hello'); print(s.recv(100).decode())"
    assert office.gateway.python(talk) == "hello\n"
    mode = office.gateway.host_path(f"{HOME}/one.sock").stat().st_mode & 0o777
    assert mode == 0o600, "others must not use a socket of alice's"
    assert office.status()[0]["url"] == f"unix:{HOME}/one.sock"
    office.sshvpn("down")
    assert not office.gateway.exists(f"{HOME}/one.sock"), "ssh leaves its sockets; we do not"


def test_a_unix_socket_that_nobody_listens_on_any_more_is_replaced(office: Office) -> None:
    office.server.tcp_server(7000)
    path = f"{HOME}/a.sock"
    office.gateway.python("import socket, sys; socket.socket(1).bind(sys.argv[1])", path)
    office.forward("server", f"{path}:localhost:7000")
    assert office.gateway.python(SOCKET_TALK, path) == "hello\n"
    office.sshvpn("down")


def test_what_is_at_the_path_of_a_unix_socket_is_never_removed(office: Office) -> None:
    office.gateway.write(f"{HOME}/thesis.txt", "years of work")
    said = office.refused(7, "forward", "-b", "server", f"{HOME}/thesis.txt:localhost:7000")
    assert f"{HOME}/thesis.txt" in said
    assert office.gateway.read(f"{HOME}/thesis.txt") == "years of work"
    office.gateway.unix_server(f"{HOME}/live.sock")
    office.refused(7, "forward", "-b", "server", f"{HOME}/live.sock:localhost:7000")
    assert office.gateway.python(SOCKET_TALK, f"{HOME}/live.sock") == "hello\n"


def test_remote_specs_lead_here(office: Office) -> None:
    office.gateway.http_server(8888, title="at the gateway")
    office.lab.lan.http_server(8889, office.lab.lan.address, title="in the lan")
    office.forward("server", "-R", "9999:8888", "-R", "9998:lan:8889", "-R", "*:9997:8888")
    fetch = office.fetch
    assert "at the gateway" in fetch("http://localhost:9999/", machine=office.server)
    assert "at the gateway" in fetch("http://[::1]:9999/", machine=office.server)
    assert "in the lan" in fetch("http://localhost:9998/", machine=office.server)
    first = office.status()[0]
    assert (first["direction"], first["target"]) == ("remote", "localhost:8888")
    office.sshvpn("down")
    wait_until(lambda: not office.answers("http://localhost:9999/", machine=office.server))


def test_any_free_port_of_the_server_is_printed_and_works(office: Office) -> None:
    office.gateway.http_server(8888, title="at the gateway")
    printed = office.forward("server", "-R", "0:8888").stdout
    found = re.match(r"server localhost:(\d+) -> localhost:8888 here\n$", printed)
    assert found is not None, printed
    assert "at the gateway" in office.fetch(f"http://localhost:{found[1]}/", machine=office.server)
    assert office.only()["listen"] == [f"localhost:{found[1]}"]
    office.sshvpn("down")


def test_a_remote_port_survives_a_new_connection(office: Office) -> None:
    office.gateway.http_server(8888, title="at the gateway")
    printed = office.forward("server", "-R", "0:8888").stdout
    office.server.sshd.kill_sessions()
    office.wait_state("running", reconnects=1)
    port = office.only()["listen"][0].rpartition(":")[2]
    assert f":{port} " in printed, "the port that was printed is the port that works"
    assert "at the gateway" in office.fetch(f"http://localhost:{port}/", machine=office.server)
    office.sshvpn("down")


def test_a_remote_unix_socket_survives_a_new_connection(office: Office) -> None:
    office.gateway.tcp_server(7000)
    path = f"{HOME}/far.sock"
    office.forward("server", "-R", f"{path}:localhost:7000")
    assert office.server.python(SOCKET_TALK, path) == "hello\n"
    office.server.sshd.kill_sessions()  # sshd leaves the socket behind
    assert office.server.exists(path)
    office.wait_state("running", reconnects=1)
    assert office.server.python(SOCKET_TALK, path) == "hello\n"
    office.sshvpn("down")
    assert not office.server.exists(path)


def test_a_remote_unix_socket_that_nobody_has_open_is_replaced_and_no_other(
    office: Office,
) -> None:
    office.gateway.tcp_server(7000)
    path = f"{HOME}/far.sock"
    office.server.python("import socket, sys; socket.socket(1).bind(sys.argv[1])", path)
    office.forward("server", "-R", f"{path}:localhost:7000")
    assert office.server.python(SOCKET_TALK, path) == "hello\n"
    office.sshvpn("down")
    office.server.unix_server(path)
    office.refused(7, "forward", "-b", "server", "-R", f"{path}:localhost:7000")
    assert office.server.python(SOCKET_TALK, path) == "hello\n"


def test_a_file_at_the_path_of_a_remote_socket_is_left_alone(office: Office) -> None:
    office.server.write(f"{HOME}/thesis.txt", "years of work")
    office.refused(7, "forward", "-b", "server", "-R", f"{HOME}/thesis.txt:localhost:7000")
    assert office.server.read(f"{HOME}/thesis.txt") == "years of work"


def test_a_socks_proxy_resolves_names_at_the_server(office: Office) -> None:
    office.lab.inner.http_server(8080, "::", title="inside")
    hosts = office.server.read("/etc/hosts")
    office.server.write("/etc/hosts", f"{hosts}10.20.0.10 only.known.there\n", "root", 0o644)
    office.forward("server", "-D", "1080", "-D", "192.168.77.1:1081")
    for proxy in ("localhost:1080", "192.168.77.1:1081"):
        words = ["--socks5-hostname", proxy]
        assert "inside" in office.fetch("http://only.known.there:8080/", *words)
        assert "inside" in office.fetch(f"http://[{office.lab.inner.address6}]:8080/", *words)
    first, second = office.status()
    assert (first["direction"], first["target"]) == ("dynamic", "socks5")
    assert first["url"] == "socks5h://localhost:1080"
    assert second["listen"] == ["192.168.77.1:1081"]
    office.sshvpn("down")
    office.server.write("/etc/hosts", hosts, "root", 0o644)


def test_several_forwards_share_one_connection(office: Office, engine: str) -> None:
    office.web()
    office.web(8887, "the other")
    before = office.sessions()
    office.forward("--engine", engine, "server", "9999:8888", "9998:8887", "-L", "9997:inner:1")
    assert office.sessions() == before + 1
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert "the other" in office.fetch("http://localhost:9998/")
    records = office.status()
    assert [record["spec"] for record in records] == ["9999:8888", "9998:8887", "9997:inner:1"]
    assert len({record["pid"] for record in records}) == 1
    office.sshvpn("down")
    wait_until(lambda: office.sessions() == before)


@pytest.mark.parametrize(
    "line",
    [
        "-b -nNT -L 9999:localhost:8888 alice@server",
        "-fnNT -L 9999:localhost:8888 alice@server",
        "-f -N -T -L9999:localhost:8888 -p 22 -l alice server",
    ],
)
def test_the_classic_line_pastes(office: Office, line: str) -> None:
    office.web()
    office.sshvpn("forward", *line.split())
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert office.only()["name"] in line.split()
    office.sshvpn("down")


def test_a_port_that_is_typed_is_the_servers(office: Office, engine: str) -> None:
    office.forward("server", "9999:8888", "-p", "22", "-o", "Port=2222", "--engine", engine)
    office.sshvpn("down")
    assert "2222" in office.refused(6, "forward", "-b", "-p", "2222", "server", "9999:8888")


def test_the_foreground_prints_the_url_and_ends_in_order(office: Office) -> None:
    office.web()
    child = office.foreground("server", "9999:8888")
    assert child.stdout is not None
    while "http://localhost:9999/ -> server localhost:8888" not in (
        line := child.stdout.readline()
    ):
        assert line, "it ended"
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert json.loads(office.sshvpn("status", "--json").stdout)["forwards"][0]["state"] in (
        "starting", "running",
    )  # fmt: skip
    child.terminate()
    stdout, stderr = child.communicate(timeout=20)
    assert (child.returncode, stderr) == (0, "")
    assert "running" in stdout
    assert office.listening() == set()


def test_what_an_engine_cannot_do_names_the_one_that_can(office: Office) -> None:
    for words in (["-R", "9999:8888"], ["-D", "1080"]):
        said = office.refused(2, "forward", "-b", "--engine", "sshtunnel", "server", *words)
        assert "--engine openssh" in said
        assert words[0] in said
