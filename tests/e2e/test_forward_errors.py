"""Every way a start can fail: the exit code of cli.md, and one or two lines that help.

gateway ──ssh──> server      known key, unknown key, changed key, no right to log in, nobody there
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.office import HOME, INTERRUPTED, Office, exit_code, tell_end
from tests.lab import key_pair

MODES: tuple[tuple[str, ...], ...] = ((), ("-b",))


@pytest.fixture(autouse=True)
def _nothing_is_left(office: Office) -> Iterator[None]:
    """Assert that a start that failed has left no process, no listener and no directory."""
    yield
    office.wait_gone()


def test_a_changed_host_key(office: Office, engine: str) -> None:
    wrong = key_pair("ed25519", "somebody else").public
    office.gateway.write(f"{HOME}/.ssh/known_hosts", f"server {wrong}")
    for mode in MODES:
        said = office.refused(5, "forward", *mode, "--engine", engine, "server", "9999:8888")
        assert "host key of server is not the known one" in said
        assert f"{HOME}/.ssh/known_hosts" in said
        assert "ssh-keygen" in said


def test_a_host_key_that_is_revoked(office: Office, engine: str) -> None:
    known = office.server.sshd.known_hosts(["server"])
    revoked = "".join(f"@revoked {line}\n" for line in known.splitlines())
    office.gateway.write(f"{HOME}/.ssh/known_hosts", known + revoked)
    said = office.refused(5, "forward", "-b", "--engine", engine, "server", "9999:8888")
    assert "revoked" in said


def test_an_unknown_host_key_without_a_terminal(office: Office, engine: str) -> None:
    office.gateway.write(f"{HOME}/.ssh/known_hosts", "")
    for mode in MODES:
        said = office.refused(5, "forward", *mode, "--engine", engine, "server", "9999:8888")
        assert "no host key is known for server" in said


def test_a_login_that_is_refused(office: Office, engine: str) -> None:
    for mode in MODES:
        said = office.refused(5, "forward", *mode, "--engine", engine, "bob@server", "9999:8888")
        assert "permission denied" in said
        assert "publickey" in said


def test_a_key_file_that_others_can_read(office: Office, engine: str) -> None:
    office.gateway.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{HOME}/open"])
    office.gateway.run(["chmod", "644", f"{HOME}/open"])
    office.server.authorize(key=office.gateway.read(f"{HOME}/open.pub"))
    words = ["forward", "-b", "--engine", engine, "server", "9999:8888", "-i", "open"]
    said = office.refused(5, *words, "-o", "IdentitiesOnly=yes", env={"SSH_AUTH_SOCK": None})
    office.server.authorize()
    assert "chmod 600" in said


def test_a_server_that_does_not_forward(office: Office) -> None:
    office.lab.know(office.server.start_sshd(2222, {"AllowTcpForwarding": "no"}))
    office.refused(7, "forward", "-b", "ssh://alice@server:2222", "-R", "9999:8888")


def test_a_port_that_is_taken(office: Office, engine: str) -> None:
    office.gateway.tcp_server(9999)
    office.gateway.tcp_server(9998, "::1")
    for mode in MODES:
        for port, address in (("9999", "127.0.0.1"), ("9998", "::1")):
            words = ["forward", *mode, "--engine", engine, "server", "9997:1", f"{port}:8888"]
            said = office.refused(7, *words)
            assert f"port {port} is taken on {address}" in said
    assert office.listening() == {"127.0.0.1:9999", "[::1]:9998"}


def test_a_port_of_the_server_that_is_taken(office: Office) -> None:
    # Where one of the server's two loopback addresses is free, sshd takes it and says yes.
    office.server.http_server(9999, "::")
    said = office.refused(7, "forward", "-b", "server", "-R", "9999:8888")
    assert "9999" in said


def test_a_port_that_needs_privilege(office: Office, engine: str) -> None:
    office.gateway.run(["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"], user="root")
    for mode in MODES:
        said = office.refused(4, "forward", *mode, "--engine", engine, "server", "80:8888")
        assert "80" in said
        assert "1024" in said


def test_a_port_of_the_server_that_needs_privilege(office: Office) -> None:
    said = office.refused(7, "forward", "-b", "server", "-R", "80:8888")
    assert "80" in said


def test_a_socket_in_a_directory_of_somebody_elses(office: Office) -> None:
    said = office.refused(4, "forward", "-b", "server", "/etc/a.sock:localhost:8888")
    assert "/etc/a.sock" in said


def test_a_socket_in_a_directory_that_is_not_there(office: Office) -> None:
    said = office.refused(2, "forward", "-b", "server", "/nowhere/a.sock:localhost:8888")
    assert "mkdir -p /nowhere" in said


def test_an_address_of_another_machine(office: Office, engine: str) -> None:
    words = ["forward", "-b", "--engine", engine, "server"]
    assert "192.168.77.10" in office.refused(2, *words, "192.168.77.10:9999:8888")
    assert "192.168.77.10" in office.refused(2, *words, "9999:8888", "--bind", "192.168.77.10")


def test_an_adapter_that_is_not_there(office: Office) -> None:
    said = office.refused(2, "forward", "-b", "server", "9999:8888", "--bind", "wlan7")
    assert "wlan7" in said
    assert "lan0" in said, "those that are there are named"


ELSEWHERE = {
    "nobody listens": ("ssh://alice@server:2", "refused"),
    "nobody is there": ("203.0.113.99", "the server did not answer within the time"),
    "no such name": ("no-such-host.invalid", "no-such-host.invalid"),
    "silence": ("ssh://alice@203.0.113.20:3", ""),
    "another protocol": ("ssh://alice@203.0.113.20:4", ""),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_server_that_cannot_be_reached(office: Office, engine: str, where: str) -> None:
    office.server.tcp_server(3, "0.0.0.0", kind="sink")
    office.server.http_server(4, "0.0.0.0")
    host, word = ELSEWHERE[where]
    words = ["forward", "-b", "--engine", engine, host, "9999:8888", "--timeout", "1.5"]
    assert word in office.refused(6, *words)


def test_a_server_that_comes_within_the_time_given(own_office: Office, engine: str) -> None:
    office = own_office
    office.web()
    office.server.sshd.stop()
    child = office.foreground("--engine", engine, "server", "9999:8888", "--timeout", "60")
    assert child.stdout is not None
    while "backoff" not in (line := child.stdout.readline()):
        assert line
    office.server.sshd.start()
    office.wait_state("running")
    assert "notebook" in office.fetch("http://localhost:9999/")
    child.terminate()
    assert tell_end(child)[0] == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, INTERRUPTED)], ids=["TERM", "INT"]
)
def test_a_signal_ends_the_foreground_in_order(
    office: Office, engine: str, number: int, code: int
) -> None:
    child = office.foreground("--engine", engine, "server", "9999:8888")
    office.wait_state("running")
    child.send_signal(number)
    ended, _, stderr = tell_end(child)
    assert (ended, stderr) == (code, "")


def test_ctrl_c_at_a_terminal(office: Office) -> None:
    terminal = office.at_terminal("server", "9999:8888")
    office.wait_state("running")
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED


def test_ctrl_c_while_it_starts_in_the_background(office: Office) -> None:
    terminal = office.at_terminal("-b", "203.0.113.99", "9999:8888")
    office.wait_state("starting")
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED


def test_term_ends_the_background_in_order(office: Office) -> None:
    office.forward("server", "9999:8888")
    office.gateway.kill(office.only()["pid"], signal.SIGTERM)
    office.wait_gone()
    assert office.logs().endswith("ended\n")


def test_a_terminal_that_is_closed_ends_the_foreground(office: Office) -> None:
    terminal = office.at_terminal("server", "9999:8888")
    office.wait_state("running")
    terminal.close()
    office.wait_gone()


def test_what_is_not_up(office: Office) -> None:
    for words in (["status", "office"], ["down", "office"], ["logs", "office"], ["down"]):
        office.refused(3, *words)
    assert office.sshvpn("status").stdout == "nothing is up\n"
    assert office.sshvpn("down", "--all").returncode == 0


def test_bare_down_takes_the_only_one_and_never_one_of_several(office: Office) -> None:
    office.forward("server", "9999:8888")
    office.forward("alice@server", "9998:8888")
    said = office.refused(2, "down")
    assert "alice@server, server" in said
    assert len(office.status()) == 2
    office.refused(2, "down", "server", "--all")
    assert office.sshvpn("down", "--all").returncode == 0
    assert office.status() == []


def test_bad_words_are_told_with_what_they_are(office: Office) -> None:
    for words, told in (
        (["server", "99999:8888"], "99999"),
        (["server", "a:b:c:d:e"], "a:b:c:d:e"),
        (["server"], "what should be forwarded"),
        (["server", "8888", "--timeout", "nan"], "nan"),
        (["server", "8888", "--timeout", "0"], "0"),
        (["server", "8888", "--engine", "dropbear"], "dropbear"),
        (["server", "8888", "-i", "nowhere"], "nowhere"),
        (["server", "8888", "-F", "nowhere"], "nowhere"),
        (["server", "8888", "-o", "Wibble=1"], "ibble"),
    ):
        assert told in office.refused(2, "forward", "-b", *words)
