"""An impatient person: Ctrl-C at any moment, everything twice, down while it starts.

lan ── gateway ══ssh══ server ── inner
       alice
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

import sshvpn
from tests.e2e.office import INTERRUPTED, exit_code
from tests.e2e.test_up_processes import WHY, is_bare, pids
from tests.e2e.vpn import SHARED, Vpn
from tests.lab import ALICE_PASSWORD, Lab, Terminal, wait_until

pytestmark = pytest.mark.lab

EVERYTHING = (*SHARED, "--lan-address", "192.168.77.200")
UP = "server is up"
INTERRUPTIONS = (INTERRUPTED, -signal.SIGINT)
"""A shell says 130 of both; the second while Python itself is still loading."""
PYTHONS_OWN = ("<frozen runpy>", "<frozen site>", "<frozen importlib", "init_import_site")
"""What a traceback tells of that was told before a line of ours ran."""
PYTHON_FAILED = 1
PACKAGE = Path(sshvpn.__file__).parent


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels as root."""
    return Vpn(lab)


def duration(vpn: Vpn) -> float:
    """Return how long an `up` takes here and now."""
    started = time.monotonic()
    vpn.up(*EVERYTHING)
    took = time.monotonic() - started
    vpn.down()
    return took


def settle(vpn: Vpn) -> None:
    """Wait until nothing of a start that was given up is left."""
    try:
        wait_until(lambda: is_bare(vpn.lab), 10, what="something is left")
    except TimeoutError as error:
        told = vpn.lab.gateway.processes(), vpn.lab.gateway.ip("-o", "link"), vpn.log()
        raise TimeoutError(told) from error


def assert_interrupted(terminal: Terminal) -> int:
    """Assert that what runs at TERMINAL ends as a shell expects it after Ctrl-C, or has ended.

    Without a traceback. Until Python has loaded itself the answer is its own, exit code 1 included;
    so is it after all is done, of what measures the tests.
    """
    code = exit_code(terminal, 30)
    said = terminal.before
    is_pythons = str(PACKAGE) not in said and any(name in said for name in PYTHONS_OWN)
    assert "Traceback" not in said or is_pythons or "Coverage._atexit" in said, said
    assert code in (0, *INTERRUPTIONS, *((PYTHON_FAILED,) if is_pythons else ())), said
    return code


@pytest.mark.parametrize(
    ("number", "transport"), [*((number, "auto") for number in range(4)), (1, "w")]
)
def test_ctrl_c_at_any_moment_of_up_leaves_nothing(lab: Lab, number: int, transport: str) -> None:
    vpn = Vpn(lab, transport=transport)
    took = duration(vpn)
    for part in range(number, 12, 4):
        with vpn.lab.unchanged():
            terminal = vpn.lab.sshvpn_pty("up", *EVERYTHING, "--transport", transport)
            time.sleep(took * part / 11)  # the moment itself is what is tried
            terminal.sendintr()
            code = assert_interrupted(terminal)
            if code == 0 or UP in terminal.before:  # it was told that it is up
                vpn.down()
            settle(vpn)


@pytest.mark.parametrize("command", ["down", "restart"])
def test_ctrl_c_while_it_goes_or_is_made_anew(vpn: Vpn, command: str) -> None:
    for wait_s in (0.1, 0.3, 0.5):
        with vpn.lab.unchanged():
            vpn.up(*EVERYTHING)
            terminal = vpn.lab.sshvpn_pty(command, "server")
            time.sleep(wait_s)
            terminal.sendintr()
            assert_interrupted(terminal)
            assert vpn.lab.sshvpn("down", check=False).returncode in (0, 3)
            settle(vpn)


def test_two_at_once_are_one(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        both = [vpn.lab.gateway.popen(vpn.lab.sshvpn_argv("up", *EVERYTHING)) for _ in range(3)]
        said = [child.communicate(timeout=60) for child in both]
        assert [child.returncode for child in both] == [0, 0, 0], said
        assert sum(UP in out for out, _ in said) == 1, said
        assert sum("is up already" in err for _, err in said) == 2, said
        assert vpn.record()["state"] == "running"
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


@pytest.mark.parametrize("part", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_down_while_it_starts(vpn: Vpn, part: float) -> None:
    took = duration(vpn)
    with vpn.lab.unchanged():
        child = vpn.lab.gateway.popen(vpn.lab.sshvpn_argv("up", *EVERYTHING))
        time.sleep(took * part)
        down = vpn.lab.sshvpn("down", check=False)
        out, err = child.communicate(timeout=60)
        assert down.returncode in (0, 3), down
        assert "Traceback" not in err + down.stderr
        if child.returncode == 0 and down.returncode == 3:
            vpn.down()
        settle(vpn)
        assert child.returncode != 0 or UP in out, (out, err)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_window_that_is_closed_while_it_starts(vpn: Vpn, part: float) -> None:
    took = duration(vpn)
    with vpn.lab.unchanged():
        terminal = vpn.lab.sshvpn_pty("up", *EVERYTHING)
        time.sleep(took * part)
        terminal.close(force=True)
        vpn.lab.sshvpn("down", check=False)  # where it was quicker
        settle(vpn)


def test_restarts_and_downs_at_once(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        vpn.up(*EVERYTHING)
        words = [["restart", "server"]] * 3
        many = [vpn.lab.gateway.popen(vpn.lab.sshvpn_argv(*one)) for one in words]
        for child in many:
            _, err = child.communicate(timeout=60)
            assert "Traceback" not in err
        assert {child.returncode for child in many} == {0}
        assert vpn.record()["state"] == "running"
        words = [["restart", "server"], ["down"], ["down", "server"]]
        many = [vpn.lab.gateway.popen(vpn.lab.sshvpn_argv(*one)) for one in words]
        for child in many:
            _, err = child.communicate(timeout=60)
            assert "Traceback" not in err
        settle(vpn)


# sudo ---------------------------------------------------------------------------------------------


def asked(lab: Lab) -> Terminal:
    """Start `up` at a terminal, up to sudo's question."""
    terminal = lab.sshvpn_pty("up", "server", "--no-lan")
    terminal.expect_exact(WHY)
    return terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sudo_that_is_killed_is_no_privilege(lab: Lab, number: signal.Signals) -> None:
    vpn = Vpn(lab, sudo=False)
    with lab.unchanged():
        terminal = asked(lab)
        for pid in pids_of_sudo(vpn):
            lab.gateway.kill(pid, number)
        assert exit_code(terminal, 20) == 4
        assert "Traceback" not in terminal.before
        settle(vpn)


def pids_of_sudo(vpn: Vpn) -> list[int]:
    found = vpn.lab.gateway.processes().items()
    return [pid for pid, line in found if "sudo" in line.split()[1]]


def test_a_window_that_is_closed_at_sudos_question(lab: Lab) -> None:
    vpn = Vpn(lab, sudo=False)
    with lab.unchanged():
        asked(lab).close(force=True)
        settle(vpn)
        wait_until(lambda: not pids(lab.gateway, "sshvpn"), what="a process is left")


def test_a_password_that_is_typed_late_is_in_time(lab: Lab) -> None:
    vpn = Vpn(lab, sudo=False)
    terminal = lab.sshvpn_pty("up", "server", "--no-lan", "--timeout", "4")
    terminal.expect_exact(WHY)
    time.sleep(5)  # longer than the start may take
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal, 30) == 0, terminal.before
    vpn.down()
