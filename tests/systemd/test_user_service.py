"""A forward as a service of its user's: no privilege but lingering, that somebody else allows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pexpect
import pytest

from tests.e2e.outage import tell
from tests.lab import wait_until
from tests.lab.contents import ALICE
from tests.systemd.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

UNIT = "sshvpn@web.service"
INTERRUPTED = 130
EXPOSURE_MOST = 2.5
HOME = ALICE.home
WEB = '[forwards.web]\nhost = "server"\nspecs = ["9999:8888"]\n'


@pytest.fixture
def forwards(site: Site) -> Site:
    """Return a site whose alice has the profile `web`."""
    site.box.write(f"{HOME}/.config/sshvpn/config.toml", WEB, "alice", 0o600)
    return site


def linger(site: Site) -> None:
    site.box.run(["loginctl", "enable-linger", "alice"], user="root")
    wait_until(lambda: site.box.path(f"/run/user/{ALICE.uid}/systemd/private").exists(), every=0.1)


RUNTIME = {"XDG_RUNTIME_DIR": f"/run/user/{ALICE.uid}"}


def show(site: Site, key: str) -> str:
    words = ["systemctl", "--user", "show", "--value", "--property", key, UNIT]
    return site.box.run(words, env=RUNTIME).stdout.strip()


def exposure(site: Site) -> float:
    words = ["systemd-analyze", "--user", "security", "--no-pager", UNIT]
    told = site.box.run(words, env=RUNTIME, check=False).stdout
    (found,) = re.findall(r"exposure level for \S+: ([0-9.]+)", told)
    return float(found)


def page(site: Site) -> str:
    return site.lab.gateway.run(
        ["curl", "-s", "--max-time", "2", "http://127.0.0.1:9999/"], check=False
    ).stdout


def reaches_api(site: Site) -> bool:
    """Whether a Jupyter answers at the gateway's port."""
    ask = ["curl", "-sf", "--max-time", "2", "http://127.0.0.1:9999/api"]
    return "version" in site.lab.gateway.run(ask, check=False).stdout


def test_without_lingering_it_says_the_line_that_allows_it(forwards: Site) -> None:
    before = forwards.box.files(f"{HOME}/.config")
    refused = forwards.box.sshvpn("enable", "web", check=False)
    assert refused.returncode == 1
    assert "sudo loginctl enable-linger alice" in refused.stderr
    assert forwards.box.files(f"{HOME}/.config") == before


def test_after_a_reboot_the_forward_is_there_with_nobody_logged_in(forwards: Site) -> None:
    linger(forwards)
    before = forwards.box.files(f"{HOME}/.config", f"{HOME}/.ssh")
    told = forwards.box.sshvpn("enable", "web").stdout
    assert "systemctl --user status sshvpn@web.service" in told
    assert "notebook" in page(forwards)
    forwards.box.reboot()
    wait_until(lambda: "notebook" in page(forwards), 30, every=0.1)
    assert show(forwards, "ActiveState") == "active"
    assert "running" in forwards.box.sshvpn("logs", "web").stdout
    assert "web" in forwards.box.sshvpn("status").stdout
    forwards.box.sshvpn("disable", "web")
    assert page(forwards) == ""
    assert forwards.box.files(f"{HOME}/.config", f"{HOME}/.ssh") == before


def test_its_exposure_is_small(forwards: Site) -> None:
    linger(forwards)
    forwards.box.sshvpn("enable", "web")
    assert "notebook" in page(forwards)
    found = exposure(forwards)
    tell(f"{UNIT} of a user: systemd-analyze security says {found}")
    assert found <= EXPOSURE_MOST
    forwards.box.sshvpn("disable", "web")


def test_killed_it_comes_back_and_who_follows_its_log_sees_it(forwards: Site) -> None:
    linger(forwards)
    forwards.box.sshvpn("enable", "web")
    terminal = forwards.box.at_terminal("logs", "-f", "web")
    terminal.expect("running")
    killed = show(forwards, "MainPID")
    forwards.box.run(["kill", "-9", killed])
    wait_until(lambda: show(forwards, "NRestarts") == "1", 30, every=0.1)
    terminal.expect("running")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == INTERRUPTED
    wait_until(lambda: "notebook" in page(forwards), 30, every=0.1)
    status = forwards.box.path(f"/proc/{show(forwards, 'MainPID')}/status").read_text()
    facts = {key: value.strip() for key, _, value in (x.partition(":") for x in status.split("\n"))}
    assert facts["NoNewPrivs"] == "1"
    assert {int(facts[kind], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    forwards.box.sshvpn("disable", "web")


def test_the_socket_of_one_that_was_killed_is_swept(forwards: Site) -> None:
    socket, other = f"{HOME}/web.sock", f"{HOME}/other.sock"
    profile = WEB.replace('"9999:8888"', f'"{socket}:8888"')
    forwards.box.write(f"{HOME}/.config/sshvpn/config.toml", profile, "alice", 0o600)
    linger(forwards)
    drop_in = f"{HOME}/.config/systemd/user/{UNIT}.d/once.conf"
    forwards.box.write(drop_in, "[Service]\nRestart=no\n", "alice")
    forwards.box.sshvpn("enable", "web")
    forwards.box.sshvpn("forward", "-b", "server", f"{other}:8888")
    assert forwards.box.path(socket).is_socket()
    (pid,) = [
        str(record["pid"])
        for record in json.loads(forwards.box.sshvpn("status", "--json").stdout)["forwards"]
        if record["name"] != "web"
    ]
    for killed in (pid, show(forwards, "MainPID")):
        forwards.box.run(["kill", "-9", killed])
    wait_until(lambda: show(forwards, "ActiveState") == "failed", 30, every=0.1)
    assert not forwards.box.path(socket).exists()
    assert forwards.box.path(other).is_socket(), "that is another's"
    assert "removed" in forwards.box.sshvpn("clean").stdout
    assert not forwards.box.path(other).exists()
    forwards.box.sshvpn("disable", "web")


def test_down_stops_it_until_the_next_boot(forwards: Site) -> None:
    linger(forwards)
    forwards.box.sshvpn("enable", "web")
    assert forwards.box.sshvpn("down", "web").stdout == "web is down\n"
    wait_until(lambda: show(forwards, "ActiveState") == "inactive", every=0.1)
    assert page(forwards) == ""
    assert show(forwards, "NRestarts") == "0"
    forwards.box.reboot()
    wait_until(lambda: "notebook" in page(forwards), 30, every=0.1)
    forwards.box.sshvpn("disable", "web")


def test_a_changed_host_key_is_for_a_person_to_look_at(forwards: Site) -> None:
    linger(forwards)
    forwards.box.sshvpn("enable", "web")
    forwards.lab.server.sshd.change_host_keys()
    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{ALICE.uid}"}
    again = ["systemctl", "--user", "restart", UNIT]
    forwards.box.run(again, env=runtime, check=False)
    wait_until(lambda: show(forwards, "ActiveState") == "failed", 30, every=0.1)
    assert show(forwards, "ExecMainStatus") == "5"
    assert "host key" in show(forwards, "StatusText")
    assert show(forwards, "NRestarts") == "0"
    forwards.box.sshvpn("disable", "web")


def test_a_reload_is_a_new_connection(forwards: Site) -> None:
    linger(forwards)
    forwards.box.sshvpn("enable", "web")
    main = show(forwards, "MainPID")
    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{ALICE.uid}"}
    forwards.box.run(["systemctl", "--user", "reload", UNIT], env=runtime)
    # kill(1) has sent the signal; systemd hears of what comes of it when the service says so.
    asked = "a new connection was asked for"
    wait_until(lambda: asked in forwards.box.sshvpn("logs", "web").stdout, 30, every=0.1)
    wait_until(lambda: show(forwards, "ActiveState") == "active", 30, every=0.1)
    assert "notebook" in page(forwards)
    assert show(forwards, "MainPID") == main
    forwards.box.sshvpn("disable", "web")


def test_one_that_hangs_is_found_by_the_watchdog(forwards: Site) -> None:
    linger(forwards)
    drop_in = f"{HOME}/.config/systemd/user/{UNIT}.d/soon.conf"
    forwards.box.write(drop_in, "[Service]\nWatchdogSec=2\n", "alice")
    forwards.box.sshvpn("enable", "web")
    hung = show(forwards, "MainPID")
    forwards.box.run(["kill", "-STOP", hung])
    wait_until(lambda: show(forwards, "NRestarts") == "1", 30, every=0.1)
    wait_until(lambda: "notebook" in page(forwards), 30, every=0.1)
    assert show(forwards, "MainPID") != hung
    forwards.box.sshvpn("disable", "web")


def test_an_agent_of_the_session_is_not_what_it_logs_in_with(forwards: Site) -> None:
    linger(forwards)
    forwards.box.write(f"{HOME}/.ssh/config", "Host server\n  User root\n", "alice", 0o600)
    runtime = f"/run/user/{ALICE.uid}"
    script = (
        f"ssh-agent -a {runtime}/agent >/dev/null && SSH_AUTH_SOCK={runtime}/agent "
        f"ssh-add -q {HOME}/.ssh/office && systemctl --user set-environment "
        f"SSH_AUTH_SOCK={runtime}/agent"
    )
    forwards.box.run(["sh", "-c", script], env={"XDG_RUNTIME_DIR": runtime})
    refused = forwards.box.sshvpn("enable", "web", SSH_AUTH_SOCK=f"{runtime}/agent", check=False)
    assert refused.returncode == 5, refused
    assert "cannot log in by itself" in refused.stderr


def test_its_key_is_limited_to_its_port(forwards: Site) -> None:
    linger(forwards)
    forwards.box.write(f"{HOME}/.ssh/config", "Host server\n  User root\n", "alice", 0o600)
    made = forwards.box.sshvpn("enable", "web", "--make-key", check=False)
    assert made.returncode == 5
    (line,) = [
        line for line in made.stdout.splitlines() if " ssh-ed25519 " in line and "echo" not in line
    ]
    assert line.startswith('restrict,port-forwarding,permitopen="localhost:8888",')
    forwards.lab.server.write("/root/.ssh/authorized_keys", f"{line}\n", "root")
    forwards.box.sshvpn("enable", "web")
    assert "notebook" in page(forwards)
    key = [
        "ssh",
        "-i",
        f"{HOME}/.ssh/sshvpn-web",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
    ]
    assert forwards.box.run([*key, "server", "id"], check=False).returncode != 0
    forwards.box.sshvpn("disable", "web")


def shown_url(site: Site) -> str:
    """Return the URL that the owner of the notebook is shown, while the service has it."""
    said = site.box.sshvpn("notebook", "web", "--no-browser")
    assert said.stderr == "web is up already\n"
    (url,) = [line.split()[1] for line in said.stdout.splitlines() if "here " in line]
    return url


def test_a_notebook_is_a_service_too_that_a_reboot_brings_back_with_the_same_url(
    site: Site,
) -> None:
    linger(site)
    site.box.write(
        f"{HOME}/.config/sshvpn/config.toml", '[notebooks.web]\nhost = "server"\n', "alice", 0o600
    )
    server = site.lab.server
    path = f"PATH={Path(sys.executable).parent}:$PATH; export PATH\n"
    server.write("/root/.profile", path, "root")
    site.box.sshvpn("enable", "web")
    wait_until(lambda: reaches_api(site), 60, every=0.2)
    url = shown_url(site)
    status = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
    api = url.replace("/?", "/api/status?")
    assert site.lab.gateway.run([*status, api]).stdout == "200"
    site.box.reboot()
    wait_until(lambda: reaches_api(site), 60, every=0.2)
    assert site.box.run(["loginctl", "list-sessions", "--no-legend"], user="root").stdout == ""
    assert show(site, "ActiveState") == "active"
    assert shown_url(site) == url
    assert site.lab.gateway.run([*status, api]).stdout == "200"
    assert url.partition("token=")[2] not in site.box.sshvpn("logs", "web").stdout
    site.box.sshvpn("disable", "web")
    site.box.sshvpn("notebook", "stop", "web")
    for name in ("/root/.profile", "/root/.local", "/root/.jupyter", "/root/.ipython"):
        server.run(["rm", "-rf", name], user="root")
