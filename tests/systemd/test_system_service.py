"""A tunnel as a service of the system: it is there after a boot, a crash and a hang, alone."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal

import pexpect
import pytest

from sshvpn.privileged import managers
from sshvpn.privileged.services import UDEV_RULES
from tests.e2e.outage import tell
from tests.lab import WORLD, wait_until
from tests.lab.contents import ALICE
from tests.systemd.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

UNIT = "sshvpn@office.service"
SERVICE_FILES = ("/etc/systemd/system", "/etc/sshvpn")
EXPOSURE_MOST = 2.5
INTERRUPTED = 130


def main_pid(site: Site) -> int:
    """Return the service's main process, as the host numbers it."""
    inside = int(site.box.show(UNIT, "MainPID"))
    return next(pid for pid in in_service(site) if inside_pid(pid) == inside)


def in_service(site: Site) -> list[int]:
    """Return all processes of the service, as the host numbers them."""
    return sorted(groups_of(site))


def groups_of(site: Site) -> dict[int, str]:
    """Return the control groups (cgroups(7)) of the service's processes, by their numbers."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = path.read_text()
            if f"/{UNIT}" in text and site.box.layer_name in text:
                found[int(path.parent.name)] = text
    return found


def inside_pid(pid: int) -> int:
    return int(status_of(pid)["NSpid"].split()[-1])


def status_of(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def files_of(site: Site) -> dict[str, str]:
    home = (f"{ALICE.home}/.config", f"{ALICE.home}/.ssh")
    there = [d for d in (*SERVICE_FILES, *home) if site.box.path(d).exists()]
    return site.box.files(*there)


def test_after_a_reboot_the_tunnel_is_there_with_nobody_logged_in(site: Site) -> None:
    before = files_of(site)
    site.trust()
    told = site.box.sshvpn("enable", "office").stdout
    assert "comes back after a crash and a reboot" in told
    site.box.reboot()
    site.box.wait_active(UNIT)
    assert site.box.run(["loginctl", "list-sessions", "--no-legend"], user="root").stdout == ""
    site.vpn.wait_reachable({**site.vpn.published(), **site.vpn.inner()})
    assert "office" in site.box.sshvpn("status").stdout
    assert "running" in site.box.sshvpn("logs", "office").stdout
    site.box.sshvpn("disable", "office")
    assert files_of(site) == before
    assert not in_service(site)
    assert site.box.sshvpn("disable", "office", check=False).returncode == 3


def test_it_runs_as_the_user_and_only_the_helper_has_a_capability(office: Site) -> None:
    pids = in_service(office)
    assert {int(status_of(pid)["Uid"].split()[0]) for pid in pids} == {0, ALICE.uid}
    for pid in pids:
        status = status_of(pid)
        is_helper = status["Uid"].split()[0] == "0"
        may = int(status["CapPrm"], 16)
        assert may == (1 << 12 if is_helper else 0), status
        assert status["NoNewPrivs"] == "1"
    assert office.box.show(UNIT, "User") == "alice"
    control = next(office.box.path("/run/sshvpn-service/office/sshvpn").glob("*/control"))
    assert (control.stat().st_uid, control.stat().st_mode & 0o777) == (ALICE.uid, 0o600)


def test_its_exposure_is_small(office: Site) -> None:
    told = office.box.run(
        ["systemd-analyze", "security", "--no-pager", UNIT], user="root", check=False
    ).stdout
    (exposure,) = re.findall(r"exposure level for \S+: ([0-9.]+)", told)
    tell(f"{UNIT}: systemd-analyze security says {exposure}")
    assert float(exposure) <= EXPOSURE_MOST, told


def test_killed_it_comes_back_and_leaves_nothing_behind(office: Site) -> None:
    first, programs = main_pid(office), len(programs_of(office))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: office.box.show(UNIT, "NRestarts") == "1", 30, every=0.1)
    office.box.wait_active(UNIT)
    assert main_pid(office) != first
    office.vpn.wait_reachable(office.vpn.published())
    links = office.lab.gateway.ip("-brief", "link", "show", "type", "tun")
    assert len(links.splitlines()) == 1
    wait_until(lambda: len(programs_of(office)) == programs, 30, every=0.1)
    wait_until(lambda: len(in_service(office)) == programs, 30, every=0.1)


def test_one_that_was_killed_once_can_be_enabled_again(office: Site) -> None:
    first = main_pid(office)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: office.box.show(UNIT, "NRestarts") == "1", 30, every=0.1)
    office.box.wait_active(UNIT)
    second = main_pid(office)
    again = office.box.sshvpn("enable", "office", check=False)
    assert again.returncode == 0, again
    assert "not up yet" not in again.stdout
    assert office.box.is_active(UNIT)
    assert main_pid(office) != second


def test_the_helper_killed_too_what_it_left_is_swept(office: Site) -> None:
    for pid in in_service(office):
        os.kill(pid, signal.SIGSTOP)
    for pid in in_service(office):
        with contextlib.suppress(ProcessLookupError):  # ssh dies with its parent
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: office.box.show(UNIT, "NRestarts") == "1", 30, every=0.1)
    office.box.wait_active(UNIT)
    office.vpn.wait_reachable(office.vpn.published())
    office.box.sshvpn("disable", "office")
    assert office.lab.gateway.ip("-brief", "link", "show", "type", "tun") == ""


def test_the_helper_killed_alone_all_is_started_again(office: Site) -> None:
    """The service has no right to start another one: systemd has."""
    (helper,) = [pid for pid in in_service(office) if "privileged/main.py" in command_line(pid)]
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: office.box.show(UNIT, "NRestarts") == "1", 30, every=0.1)
    office.box.wait_active(UNIT)
    office.vpn.wait_reachable(office.vpn.published())
    assert "the privileged helper was killed" in office.box.journal(UNIT)
    links = office.lab.gateway.ip("-brief", "link", "show", "type", "tun")
    assert len(links.splitlines()) == 1


def command_line(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def programs_of(site: Site) -> set[str]:
    """Return what runs in the service for good: not what a part of it starts for a moment.

    What tells the LAN is the last that is started.
    """

    def lines() -> set[str]:
        found = set()
        for pid in in_service(site):
            with contextlib.suppress(OSError):
                found.add(command_line(pid))
        return {line for line in found if "sshvpn" in line}

    wait_until(lambda: any("sshvpn.lan.main" in line for line in lines()), 30, every=0.1)
    return lines()


def test_its_log_is_followed_until_ctrl_c(office: Site) -> None:
    terminal = office.box.at_terminal("logs", "-f", "office")
    terminal.expect("running")
    office.box.systemctl("reload", UNIT)
    terminal.expect("a new connection was asked for")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == INTERRUPTED
    assert office.box.is_active(UNIT)


def test_its_log_is_followed_until_it_ends(office: Site) -> None:
    terminal = office.box.at_terminal("logs", "-f", "office")
    terminal.expect("running")
    office.box.sshvpn("down", "office")
    terminal.expect("ended")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


UDEV = "mount -t tmpfs none /usr/lib/udev/rules.d && /lib/systemd/systemd-udevd --daemon"
"""With rules of nobody else: events of other devices than the box's reach it, too."""


def test_where_udev_runs_who_manages_networks_is_told_to_leave_the_device_alone(site: Site) -> None:
    """In its sandbox the service could not say so itself."""
    box, device = site.box, ["udevadm", "info", "-q", "property", "-p", "/class/net/sshvpn0"]
    box.run(["sh", "-ec", UDEV], user="root")
    wait_until(lambda: box.path("/run/udev/control").exists(), what="no udev")
    site.trust()
    box.sshvpn("enable", "office")
    box.wait_active(UNIT)
    assert box.read(str(UDEV_RULES)) == managers.RULE
    assert box.path(str(UDEV_RULES)).stat().st_mode & 0o777 == 0o644
    told = {"NM_UNMANAGED=1", "ID_NET_MANAGED_BY=sshvpn"}
    wait_until(lambda: told <= set(box.run(device, check=False).stdout.splitlines()))
    box.sshvpn("disable", "office")
    assert not box.path(str(UDEV_RULES)).exists()


def test_one_that_hangs_is_found_by_the_watchdog(office: Site) -> None:
    office.box.write(f"/etc/systemd/system/{UNIT}.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    office.box.systemctl("daemon-reload")
    office.box.systemctl("restart", UNIT)
    hung = main_pid(office)
    os.kill(hung, signal.SIGSTOP)
    wait_until(lambda: "watchdog" in office.box.journal(UNIT).lower(), 30, every=0.2)
    wait_until(lambda: office.box.show(UNIT, "NRestarts") == "1", 30, every=0.2)
    office.box.wait_active(UNIT)
    assert main_pid(office) != hung
    office.vpn.wait_reachable(office.vpn.published())
    office.box.path(f"/etc/systemd/system/{UNIT}.d/soon.conf").unlink()


def assert_left_to_a_person(site: Site, status: int, words: str) -> None:
    """Assert that a start of the service ends with STATUS, told in WORDS, and is the last."""
    site.box.systemctl("restart", UNIT, check=False)
    wait_until(lambda: site.box.show(UNIT, "ActiveState") == "failed", 30, every=0.1)
    told = site.box.systemctl("status", UNIT, check=False)
    assert f"status={status}" in told
    assert words in told
    assert site.box.show(UNIT, "NRestarts") == "0"


def test_what_only_a_person_can_mend_is_not_tried_again(office: Site) -> None:
    """RestartPreventExitStatus: usage and configuration, privilege, a server that refuses."""
    copy = office.box.read("/etc/sshvpn/office.toml")
    office.box.write("/etc/sshvpn/office.toml", copy.replace("lan = true", "lan = 7"))
    assert_left_to_a_person(office, 2, "lan")
    office.box.write("/etc/sshvpn/office.toml", copy)
    drop_in = f"/etc/systemd/system/{UNIT}.d/less.conf"
    office.box.write(drop_in, "[Service]\nCapabilityBoundingSet=~CAP_NET_ADMIN\n")
    office.box.systemctl("daemon-reload")
    assert_left_to_a_person(office, 4, "give up capabilities")
    office.box.path(drop_in).unlink()
    office.box.systemctl("daemon-reload")
    office.lab.server.sshd.change_host_keys()
    assert_left_to_a_person(office, 5, "host key")
    assert "host key" in office.box.show(UNIT, "StatusText")


def test_a_server_that_is_away_does_not_hold_up_the_boot(office: Site) -> None:
    office.lab.cut()
    office.box.reboot()  # returns when multi-user.target is reached
    wait_until(lambda: "next try" in office.box.show(UNIT, "StatusText"), 30, every=0.1)
    assert office.box.show(UNIT, "ActiveState") == "activating"
    office.lab.restore()
    office.box.sshvpn("up", "office")
    office.box.wait_active(UNIT)


def test_after_a_power_cut_it_is_up_again(office: Site) -> None:
    office.box.power_off()
    # What a kernel that boots has not, but this one, which goes on, has. The device stays there.
    for setting in ("ipv4/conf/lan0/forwarding", "ipv6/conf/lan0/force_forwarding"):
        office.lab.gateway.run(["sh", "-c", f"echo 0 >/proc/sys/net/{setting}"], user="root")
    office.box.boot()
    office.box.wait_active(UNIT)
    office.vpn.wait_reachable({**office.vpn.published(), **office.vpn.inner()})
    links = office.lab.gateway.ip("-brief", "link", "show", "type", "tun")
    assert len(links.splitlines()) == 1


def test_down_stops_it_until_the_next_boot(office: Site) -> None:
    assert office.box.sshvpn("down", "office").stdout == "office is down\n"
    wait_until(lambda: office.box.show(UNIT, "ActiveState") == "inactive", every=0.1)
    assert office.lab.gateway.ip("-brief", "link", "show", "type", "tun") == ""
    office.box.reboot()
    office.box.wait_active(UNIT)


def test_a_reload_is_a_new_connection(office: Site) -> None:
    programs = len(programs_of(office))
    office.box.systemctl("reload", UNIT)
    wait_until(lambda: office.box.is_active(UNIT), every=0.1)
    assert "a new connection was asked for" in office.box.journal(UNIT)
    wait_until(lambda: len(programs_of(office)) == programs, 30, every=0.1)
    wait_until(lambda: len(in_service(office)) == programs, 30, every=0.1)


def test_with_a_default_route_ssh_goes_around_by_the_units_own_group(site: Site) -> None:
    profile = '[tunnels.office]\nhost = "server"\nroutes = ["default"]\nlan = false\n'
    site.box.write(f"{ALICE.home}/.config/sshvpn/config.toml", profile, "alice", 0o600)
    site.box.sshvpn("enable", "office")
    table = site.lab.gateway.run(["nft", "list", "ruleset"], user="root").stdout
    assert "socket cgroupv2" in table
    assert "sshvpn0" in site.lab.gateway.ip("route", "get", WORLD)
    assert "around" not in site.box.journal(UNIT)  # that of all the user sends
    site.box.systemctl("reload", UNIT)
    site.box.wait_active(UNIT)
    assert len({*groups_of(site).values()}) == 1


@pytest.mark.no_key
def test_without_a_key_that_works_alone_it_says_which_to_add(site: Site) -> None:
    before = files_of(site)
    refused = site.box.sshvpn("enable", "office", check=False)
    assert refused.returncode == 5, refused
    assert "cannot log in by itself" in refused.stderr
    assert "--make-key" in refused.stderr
    assert files_of(site) == before
    made = site.box.sshvpn("enable", "office", "--make-key", check=False)
    assert made.returncode == 5, made
    public = site.box.read(f"{ALICE.home}/.ssh/sshvpn-office.pub").strip()
    line = f"no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc {public}"
    assert line in made.stdout.splitlines()
    assert [name for name in files_of(site) if "sshvpn@" in name or "/etc/sshvpn" in name] == []
    site.lab.server.write("/root/.ssh/authorized_keys", f"{line}\n", "root")
    site.box.sshvpn("enable", "office")
    site.box.wait_active(UNIT)
    site.box.sshvpn("disable", "office")
    assert files_of(site) == before


@pytest.mark.no_key
def test_at_a_terminal_a_key_is_offered(site: Site) -> None:
    terminal = site.box.at_terminal("enable", "office")
    terminal.expect("service of this system; .sudo. password for alice: ")
    terminal.sendline("tulip-4-fields")
    terminal.expect(r"Make a key for office alone, as limited as it can be\? \[Y/n\] ")
    terminal.sendline("")
    terminal.expect("no-pty,no-agent-forwarding.* ssh-ed25519 ")
    terminal.expect("add that line at the server")


def test_what_others_can_write_is_not_run_by_root(site: Site) -> None:
    found = next(site.box.path("/opt/sshvpn/lib").glob("python3*/site-packages/click"))
    place = f"/{found.relative_to(site.box.path('/'))}"
    site.box.run(["chown", "alice", f"{place}/core.py"], user="root")
    before = files_of(site)
    refused = site.box.sshvpn("enable", "office", check=False)
    assert refused.returncode == 1
    assert f"others than root can write {place}/core.py" in refused.stderr
    assert "install it for all" in refused.stderr
    assert files_of(site) == before


def test_what_runs_by_hand_goes_on_as_a_service(site: Site) -> None:
    site.box.sshvpn("up", "server", "--name", "mine", "--no-lan", "-r", "10.20.0.0/24")
    told = site.box.sshvpn("enable", "mine")
    assert "mine goes on as a service" in told.stderr
    unit = "sshvpn@mine.service"
    assert site.box.is_active(unit)
    assert 'routes = ["10.20.0.0/24"]' in site.box.read("/etc/sshvpn/mine.toml")
    status = site.box.sshvpn("status").stdout
    assert status.count("mine") == 1, status
    again = site.box.sshvpn("up", "server", "--name", "mine", "--no-lan", "-r", "10.20.0.0/24")
    assert "mine is up already" in again.stderr
    site.box.sshvpn("disable", "mine")


def test_an_edit_of_the_copy_is_applied_by_a_restart(office: Site) -> None:
    pid = office.box.show(UNIT, "MainPID")
    copy = office.box.read("/etc/sshvpn/office.toml")
    assert "10.20.0.0/24" in copy
    office.box.write("/etc/sshvpn/office.toml", copy.replace('"10.20.0.0/24", ', ""))
    assert "has a new connection" in office.box.sshvpn("restart", "office").stdout
    routes = office.lab.gateway.ip("route", "show", "dev", "sshvpn0")
    assert "10.20.0.0/24" not in routes
    assert office.box.show(UNIT, "MainPID") == pid


def test_a_name_that_another_user_has_is_taken(office: Site) -> None:
    office.box.run(["useradd", "-m", "-p", "*", "bob"], user="root")
    office.box.write("/etc/sudoers.d/bob", "bob ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
    before = files_of(office)
    taken = office.box.sshvpn("enable", "office", user="bob", check=False)
    assert taken.returncode == 7, taken
    assert "of alice" in taken.stderr
    assert office.box.sshvpn("disable", "office", user="bob", check=False).returncode == 3
    assert files_of(office) == before
    assert office.box.is_active(UNIT)


def test_a_server_that_refuses_the_tunnel_is_not_enabled(site: Site) -> None:
    # The transport stream wants no permission.
    profile = '[tunnels.office]\nhost = "server"\nlan = false\ntransport = "w"\n'
    site.box.write(f"{ALICE.home}/.config/sshvpn/config.toml", profile, "alice", 0o600)
    before = files_of(site)
    site.lab.server.sshd.restart(PermitTunnel="no")
    refused = site.box.sshvpn("enable", "office", check=False)
    assert refused.returncode == 5, refused
    assert "does not permit tunnels" in refused.stderr
    assert files_of(site) == before
