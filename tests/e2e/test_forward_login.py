"""Logins that ask a person: at her terminal, in the foreground and for the background; never else.

alice's terminal ──> sshvpn forward [-b] ══ssh══ server:22    keys
                                                server:2222  passwords, or a second factor
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pexpect
import pytest

from tests.e2e.office import HOME, INTERRUPTED, Office, exit_code
from tests.lab import ALICE_PASSWORD, PASSPHRASE, Sshd, Terminal, wait_until

PASSWORDS = {"PasswordAuthentication": "yes", "PubkeyAuthentication": "no"}
HOST = "ssh://alice@server:2222"
PASSWORD_PROMPT = "password: "
NO_AGENT = {"SSH_AUTH_SOCK": None}


@pytest.fixture
def passwords(office: Office) -> Sshd:
    """Return an sshd on the server's port 2222 that takes passwords only."""
    sshd = office.server.start_sshd(2222, PASSWORDS)
    office.lab.know(sshd, office.server.sshd)
    office.web()
    return sshd


def finish(office: Office, terminal: Terminal) -> None:
    """Assert that the forward in TERMINAL works, in the foreground or the background; end it."""
    background = terminal.background
    if background:
        assert exit_code(terminal) == 0
    else:
        office.wait_state("running")
    assert "notebook" in office.fetch("http://localhost:9999/")
    if background:
        office.sshvpn("down")
    else:
        terminal.sendintr()
        assert exit_code(terminal) == INTERRUPTED


Open = Callable[..., Terminal]


@pytest.fixture(params=["openssh -b", "sshtunnel"])
def open_terminal(office: Office, request: pytest.FixtureRequest) -> Open:
    """Return a function that starts `sshvpn forward` at a terminal.

    How a question comes to the terminal is the engine's, or -b's, each on its own: two of the
    four pairs show all of it.
    """

    def start(*words: str, **options: Any) -> Terminal:
        terminal = office.at_terminal(
            "--engine", *request.param.split(), *words, "9999:8888", **options
        )
        terminal.background = request.param.endswith("-b")
        return terminal

    return start


@pytest.mark.usefixtures("passwords")
def test_a_password_is_asked_at_the_terminal(office: Office, open_terminal: Open) -> None:
    terminal = open_terminal(HOST)
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendline(ALICE_PASSWORD)
    finish(office, terminal)
    assert ALICE_PASSWORD not in terminal.before, "it is not echoed"
    assert ALICE_PASSWORD not in office.logs(HOST)


def test_a_second_factor_is_asked_after_the_key(office: Office, open_terminal: Open) -> None:
    options = {
        "UsePAM": "yes",
        "KbdInteractiveAuthentication": "yes",
        "AuthenticationMethods": "publickey,keyboard-interactive",
    }
    office.lab.know(office.server.start_sshd(2222, options))
    office.web()
    terminal = open_terminal(HOST)
    terminal.expect_exact("Password: ")
    terminal.sendline(ALICE_PASSWORD)
    finish(office, terminal)


def test_what_a_server_says_at_a_login_cannot_steer_the_terminal(
    office: Office, open_terminal: Open
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jto log in\x9b2J\ntype it\n"
    office.server.write("/etc/evil", evil, "root", 0o644)
    office.server.write("/etc/banner", evil.replace("to log in", "welcome"), "root", 0o644)
    options = {
        "UsePAM": "yes",
        "KbdInteractiveAuthentication": "yes",
        "PubkeyAuthentication": "no",
        "Banner": "/etc/banner",
    }
    office.lab.know(office.server.start_sshd(2222, options))
    pam = office.server.read("/etc/pam.d/sshd")
    office.server.write(
        "/etc/pam.d/sshd", f"auth optional pam_echo.so file=/etc/evil\n{pam}", "root", 0o644
    )
    terminal = open_terminal(HOST)
    terminal.expect_exact("to log in")
    terminal.expect_exact("Password: ")
    shown = terminal.before
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    shown += terminal.before + office.logs(HOST)
    for sequence in ("\x1b]0;", "\x07", "\x1b[2J", "\x9b"):
        assert sequence not in shown


def test_a_passphrase_is_asked_where_no_agent_is(office: Office, open_terminal: Open) -> None:
    office.web()
    terminal = open_terminal("server", env=NO_AGENT)
    terminal.expect_exact(f"passphrase for key '{HOME}/.ssh/id_ed25519': ")
    terminal.sendline(PASSPHRASE)
    finish(office, terminal)


def test_an_unknown_host_key_that_is_accepted_is_remembered(
    office: Office, open_terminal: Open
) -> None:
    office.web()
    office.gateway.write(f"{HOME}/.ssh/known_hosts", "")
    terminal = open_terminal("server")
    terminal.expect_exact("authenticity of host")
    terminal.expect(r"SHA256:\S+")
    terminal.expect_exact("(yes/no/[fingerprint])? ")
    terminal.sendline("yes")
    finish(office, terminal)
    assert "ssh-ed25519" in office.gateway.read(f"{HOME}/.ssh/known_hosts")
    office.forward("server", "9999:8888")  # nobody is asked any more
    office.sshvpn("down")


def test_an_unknown_host_key_that_is_not_accepted_is_not_remembered(
    office: Office, open_terminal: Open
) -> None:
    office.gateway.write(f"{HOME}/.ssh/known_hosts", "")
    terminal = open_terminal("server")
    terminal.expect_exact("(yes/no/[fingerprint])? ")
    terminal.sendline("no")
    terminal.expect_exact("was not accepted")
    assert exit_code(terminal) == 5
    assert office.gateway.read(f"{HOME}/.ssh/known_hosts") == ""


def test_a_wrong_password_three_times_is_refused(passwords: Sshd, open_terminal: Open) -> None:
    terminal = open_terminal(HOST)
    for _ in range(3):
        terminal.expect_exact(PASSWORD_PROMPT)
        terminal.sendline("wrong")
    terminal.expect_exact("sshvpn: the server refused the login")
    assert exit_code(terminal) == 5
    wait_until(lambda: passwords.log.count("Failed password for alice") == 3)


@pytest.mark.parametrize("mode", [[], ["-b"]], ids=["foreground", "background"])
@pytest.mark.usefixtures("passwords")
def test_what_the_login_tells_is_shown(office: Office, mode: list[str]) -> None:
    terminal = office.at_terminal(*mode, "--engine", "sshtunnel", HOST, "9999:8888")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendline("wrong")
    terminal.expect_exact("try again")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED


@pytest.mark.parametrize("mode", ["", "-b"])
def test_ctrl_c_at_a_prompt_leaves_nothing_and_the_terminal_in_order(
    office: Office, passwords: Sshd, mode: str, engine: str
) -> None:
    shell = office.gateway.pty(["bash", "--norc", "-i"], env={"PS1": "ready> "})
    command = " ".join(
        office.lab.sshvpn_argv("forward", mode, "--engine", engine, HOST, "9999:8888")
    )
    shell.sendline(command)
    shell.expect_exact(PASSWORD_PROMPT)
    wait_until(lambda: not shell.getecho())
    shell.sendintr()
    shell.expect_exact("ready> ")
    assert "Traceback" not in shell.before
    shell.sendline("echo code=$?; stty -a | grep -ow -e -echo -e echo")
    shell.expect_exact(f"code={INTERRUPTED}\r\necho\r\n")
    wait_until(lambda: not office.pids("sshvpn") and not office.pids("ssh -"))
    assert "Failed password" not in passwords.log, "an empty one was tried"
    shell.sendline("exit")
    shell.expect(pexpect.EOF)


@pytest.mark.usefixtures("passwords")
def test_without_a_terminal_nobody_is_asked_and_nothing_hangs(office: Office, engine: str) -> None:
    for mode in ([], ["-b"]):
        words = ["forward", *mode, "--engine", engine, "9999:8888"]
        office.refused(5, *words, HOST)
        said = office.refused(5, *words, "server", env=NO_AGENT)
        assert "locked" in said
        office.gateway.write(f"{HOME}/.ssh/known_hosts", "")
        assert "no host key is known" in office.refused(5, *words, "server")
        office.lab.know(office.server.sshd)


@pytest.mark.usefixtures("passwords")
def test_the_time_at_a_prompt_does_not_count(office: Office, open_terminal: Open) -> None:
    timeout_s = 3.0
    terminal = open_terminal("--timeout", str(timeout_s), HOST)
    terminal.expect_exact(PASSWORD_PROMPT)
    shown = time.monotonic()
    wait_until(lambda: time.monotonic() > shown + timeout_s + 0.5)
    terminal.sendline(ALICE_PASSWORD)
    finish(office, terminal)


def test_a_reconnect_waits_for_a_login_and_asks_nobody(
    office: Office, passwords: Sshd, engine: str
) -> None:
    terminal = office.at_terminal("-b", "--engine", engine, HOST, "9999:8888")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal) == 0
    passwords.kill_sessions()
    record = office.wait_state("backoff", code="needs_login")
    assert record["retry_at"] is None
    assert not office.listening()
    assert "Failed password" not in passwords.log
    # Not at a terminal the same command says what is wanted, and changes nothing.
    said = office.refused(5, "forward", "-b", "--engine", engine, HOST, "9999:8888")
    assert "login" in said
    assert office.only()["state"] == "backoff"
    terminal = office.at_terminal("-b", "--engine", engine, HOST, "9999:8888")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal) == 0
    record = office.wait_state("running", reconnects=1)
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert "Failed password" not in passwords.log
    # Once more, and this time the person gives up: it goes on waiting.
    passwords.kill_sessions()
    office.wait_state("backoff", code="needs_login")
    terminal = office.at_terminal("-b", "--engine", engine, HOST, "9999:8888")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    office.wait_state("backoff", code="needs_login")
    assert "Failed password" not in passwords.log
    office.sshvpn("down")


def test_a_jump_host_is_logged_in_to_by_a_person_too_and_never_by_a_guess(
    office: Office, engine: str
) -> None:
    gate = office.lab.jump.start_sshd(2222, PASSWORDS)
    office.lab.know(gate, office.server.sshd)
    office.web()
    office.ssh_config("Host far\n HostName server\n ProxyJump ssh://alice@jump:2222\n")
    office.gateway.write(f"{HOME}/popup", f"#!/bin/sh\ntouch {HOME}/popped-up\n", mode=0o700)
    desktop = {"DISPLAY": ":9", "SSH_ASKPASS": f"{HOME}/popup"}
    words = ["--engine", engine, "far", "9999:8888"]
    office.refused(5, "forward", "-b", *words, env=desktop)
    for reconnects in (0, 1):
        terminal = office.at_terminal("-b", *words, env=desktop)
        terminal.expect_exact("alice@jump's password: ")
        terminal.sendline(ALICE_PASSWORD)
        assert exit_code(terminal) == 0
        office.wait_state("running", reconnects=reconnects)
        assert "notebook" in office.fetch("http://localhost:9999/")
        gate.kill_sessions()
        office.wait_state("backoff", code="needs_login")
    office.sshvpn("down")
    assert "Failed password" not in gate.log
    assert not office.gateway.exists(f"{HOME}/popped-up")


def test_in_the_foreground_a_reconnect_asks_nobody_either(office: Office, passwords: Sshd) -> None:
    terminal = office.at_terminal(HOST, "9999:8888")
    terminal.expect_exact(PASSWORD_PROMPT)
    terminal.sendline(ALICE_PASSWORD)
    office.wait_state("running")
    passwords.kill_sessions()
    office.wait_state("backoff", code="needs_login")
    with pytest.raises(pexpect.TIMEOUT):
        terminal.expect_exact(PASSWORD_PROMPT, timeout=0.5)
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED


def test_an_agent_that_is_gone_is_waited_for(own_office: Office, engine: str) -> None:
    office = own_office
    office.web()
    office.forward("--engine", engine, "server", "9999:8888")
    office.gateway.run(["ssh-add", "-qD"])
    office.server.sshd.kill_sessions()
    record = office.wait_state("backoff", code="needs_login")
    assert record["retry_at"] is None
    askpass = f"{HOME}/askpass"
    office.gateway.write(askpass, f"#!/bin/sh\necho '{PASSPHRASE}'\n", mode=0o700)
    office.gateway.run(
        ["ssh-add", "-q"], env={"SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force"}
    )
    office.wait_state("running", reconnects=1)
    assert "notebook" in office.fetch("http://localhost:9999/")
    office.sshvpn("down")
