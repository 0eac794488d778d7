"""The portal: a page of what is shared, as a phone, a desktop and a stranger on the LAN meet it.

lan ──eth0 ── lan0 ┐
Chromium, curl     ├ gateway wan0 ══ssh══ server
lan2 ──eth0 ── lan1 ┘  :7748               127.0.0.1:8888
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import Notebooks, token_of, url_in
from tests.e2e.office import INTERRUPTED, Office, exit_code
from tests.e2e.vpn import Vpn, fetch
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.machine import CHECKOUT
from tests.lab.visit import DESKTOP, PHONE, TABLET, Browser

pytestmark = pytest.mark.lab

PORTAL = "http://192.168.77.1:7748/"
PORTAL6 = "http://[fd77::1]:7748/"

_HOLD = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[1])):
    held.append(socket.create_connection(("192.168.77.1", 7748)))
    held[-1].sendall(b"GET / HTTP/1.1\\r\\nHost: ")
print("held", flush=True)
time.sleep(60)
"""
_LOOKS = """
const body = getComputedStyle(document.body), link = document.querySelector(".card a");
const box = link.getBoundingClientRect();
return {
  overflows: document.documentElement.scrollWidth > innerWidth,
  ground: body.backgroundColor, ink: body.color,
  link: link.href, height: box.height, width: box.width,
  code: document.querySelector(".code svg").getBoundingClientRect().width,
  behind: getComputedStyle(document.querySelector(".code")).backgroundColor,
};
"""


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels."""
    return Vpn(lab)


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Vpn, Browser]]:
    """Return a tunnel with a portal, and a browser on the LAN, for tests that only look."""
    with Lab() as lab:
        assert lab.lan2.name == "lan2"
        vpn = Vpn(lab)
        vpn.up("server", "--lan", "--lan-interface", "lan0", "--publish", "8888", "--portal")
        with Browser(lab.lan) as browser:
            yield vpn, browser
        vpn.down()
        lab.check()


def curl(machine: LabMachine, *words: str) -> str:
    """Return the status code that curl gets."""
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "3", *words]
    return machine.run(argv, check=False).stdout


def state(browser: Browser) -> str:
    return str(browser.script("return document.querySelector('.state').textContent"))


# -- what is seen ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_reads_on_every_screen(
    standing: tuple[Vpn, Browser], size: tuple[int, int], *, is_dark: bool
) -> None:
    _, browser = standing
    assert browser.open(PORTAL, size, is_dark=is_dark) == "server"
    looks = browser.script(_LOOKS)
    assert not looks["overflows"]
    assert looks["link"] == "http://192.168.77.1:8888/"
    assert looks["height"] >= 100, "a finger finds it"
    assert looks["code"] >= 100, "a camera reads it"
    assert looks["behind"] == "rgb(255, 255, 255)", "dark on light, whatever the theme"
    assert brightness(looks["ground"]) < 60 if is_dark else brightness(looks["ground"]) > 220
    assert abs(brightness(looks["ink"]) - brightness(looks["ground"])) > 150
    assert browser.complaints() == []


def brightness(colour: str) -> float:
    """Return the mean of the three parts of a colour such as ``rgb(1, 2, 3)``."""
    parts = [int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3]]
    return sum(parts) / 3


def test_its_link_opens_the_service(standing: tuple[Vpn, Browser]) -> None:
    _, browser = standing
    browser.open(PORTAL, PHONE)
    browser.script("document.querySelector('.card a').click()")
    wait_until(lambda: browser.script("return document.title") == "notebook", 10, every=0.1)


def test_it_is_there_by_ipv6_and_by_name(standing: tuple[Vpn, Browser]) -> None:
    vpn, _ = standing
    lan = vpn.lab.lan
    assert "<h1>server</h1>" in fetch(lan, PORTAL6)
    wait_until(lambda: vpn.record()["names"] == ["server.local"], every=0.1)
    by_name = ["--resolve", "server.local:7748:192.168.77.1", "http://server.local:7748/"]
    page = lan.run(["curl", "-s", "--max-time", "3", *by_name]).stdout
    assert 'href="http://server.local:8888/"' in page


def test_status_tells_where_it_is(standing: tuple[Vpn, Browser]) -> None:
    vpn, _ = standing
    assert vpn.record()["portal"] == [PORTAL, PORTAL6]
    assert f"portal       {PORTAL}" in vpn.lab.sshvpn("status").stdout


def test_it_follows_the_connection_without_being_loaded_again(vpn: Vpn) -> None:
    lab = vpn.lab
    vpn.up("server", "--lan", "--publish", "8888", "--portal")
    with Browser(lab.lan) as browser:
        browser.open(PORTAL, PHONE)
        browser.script("window.isTheSame = true")
        assert "Connected since" in state(browser)
        lab.server.sshd.stop()
        lab.server.sshd.kill_sessions()
        wait_until(lambda: "Connecting again" in state(browser), 20, every=0.1)
        lab.server.sshd.restart(PermitTunnel="yes")
        lab.gateway.kill(vpn.record()["pid"], 1)
        wait_until(lambda: "Connected since" in state(browser), 30, every=0.1)
        vpn.down()
        lost = "return !document.getElementById('lost').hidden"
        wait_until(lambda: browser.script(lost), 15, every=0.1)
        assert browser.script("return window.isTheSame")


# -- who gets in -------------------------------------------------------------------------------


def test_only_the_shared_network_gets_in(standing: tuple[Vpn, Browser]) -> None:
    lab = standing[0].lab
    assert curl(lab.lan, PORTAL) == curl(lab.gateway, PORTAL) == "200"
    assert curl(lab.lan2, PORTAL) == curl(lab.lan2, "http://192.168.78.1:7748/") == "000"
    assert curl(lab.server, "http://203.0.113.10:7748/") == "000"
    lab.server.ip("route", "add", "192.168.77.1", "via", "203.0.113.10")
    lab.gateway.http_server(9998, "192.168.77.1")
    try:
        assert curl(lab.server, "http://192.168.77.1:9998/") == "200", "there is a way"
        assert curl(lab.server, PORTAL) == "000"
    finally:
        lab.server.ip("route", "delete", "192.168.77.1", "via", "203.0.113.10")
        lab.gateway.undo()


def test_a_page_that_was_led_here_by_another_name_is_refused(
    standing: tuple[Vpn, Browser],
) -> None:
    lan = standing[0].lab.lan
    for name in ("evil.example", "evil.example:7748", "localhost:7748", "192.168.77.2:7748"):
        assert curl(lan, "-H", f"Host: {name}", PORTAL) == "421", name


def test_who_holds_connections_stops_nobody_else(standing: tuple[Vpn, Browser]) -> None:
    lab = standing[0].lab
    lab.lan.ip("address", "add", "192.168.77.11/24", "dev", "eth0")
    child = lab.lan.popen(["python3", "-c", _HOLD, "300"])
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert curl(lab.lan, "--interface", "192.168.77.11", PORTAL) == "200"
        wait_until(lambda: curl(lab.lan, PORTAL) == "200", 15, every=0.2)
    finally:
        child.end()
        lab.lan.ip("address", "delete", "192.168.77.11/24", "dev", "eth0")


# -- the port ----------------------------------------------------------------------------------


def test_the_second_has_the_next_port_and_one_that_is_said_must_be_free(
    own_office: Office,
) -> None:
    office = own_office
    office.web()
    office.forward("server", "9999:8888", "--lan", "--portal", "--name", "one")
    office.forward("server", "9998:8888", "--lan", "--portal", "--name", "two")
    ports = {record["name"]: record["portal"][0] for record in office.status()}
    assert ports == {"one": PORTAL, "two": "http://192.168.77.1:7749/"}
    words = ("server", "9997:8888", "--lan", "--name", "three", "--portal")
    assert "7748 is taken" in office.refused(7, "forward", "-b", *words, "7748")
    assert "privileged" in office.refused(4, "forward", "-b", *words, "80")
    assert "same place" in office.refused(2, "forward", "-b", *words, "9997")
    assert "say --lan" in office.refused(2, "forward", "-b", "server", "9997:8888", "--portal")
    page = office.fetch("http://192.168.77.1:7749/", machine=office.lab.lan)
    assert "<h1>two</h1>" in page
    assert "192.168.77.1:9998" in page
    assert "192.168.77.1:9999" not in page
    office.sshvpn("down", "--all")


def test_a_profile_has_one_and_what_is_said_at_the_end_tells_where(own_office: Office) -> None:
    office = own_office
    office.web()
    office.config(
        '[forwards.nb]\nhost = "server"\nspecs = ["9999:8888"]\nlan = true\nportal = 8080\n'
        "announce = false\n"
    )
    printed = office.forward("nb", "--lan").stdout
    assert "  portal  http://192.168.77.1:8080/\n" in printed
    assert office.only()["names"] == []
    assert json.dumps(office.only()["portal"]) == (
        '["http://192.168.77.1:8080/", "http://[fd77::1]:8080/"]'
    )
    office.sshvpn("down")


# -- a notebook --------------------------------------------------------------------------------


def test_a_notebook_is_opened_from_it_with_a_token_only_where_that_is_said(
    running: Notebooks,
) -> None:
    notebooks, office = running, running.office
    said = notebooks.run("-b", "--no-browser", "--lan", "--portal", "server").stdout
    assert re.search(f"^  portal +{PORTAL}$", said, re.MULTILINE), said
    page = fetch(office.lab.lan, PORTAL)
    assert "Jupyter" in page
    assert "token" not in page
    assert token_of(url_in(said)) not in page
    office.sshvpn("down")
    words = ("-b", "--no-browser", "--lan", "--portal", "--portal-tokens", "server")
    token = token_of(url_in(notebooks.run(*words).stdout))
    page = fetch(office.lab.lan, PORTAL)
    assert f'href="http://192.168.77.1:9999/?token={token}"' in page
    assert not [line for line in office.gateway.processes().values() if token in line]
    with Browser(office.lab.lan) as browser:
        browser.open(PORTAL, TABLET)
        browser.script("document.querySelector('.card a').click()")
        is_open = "return document.querySelector('.jp-Launcher') !== null"
        wait_until(lambda: browser.script(is_open), 30, what="it is asked for a token", every=0.2)
        assert browser.script("return location.href").startswith("http://192.168.77.1:9999/lab")
    told = "without --portal"
    assert told in office.refused(2, "notebook", "-b", "--lan", "--portal-tokens", "server")


# -- the recipe --------------------------------------------------------------------------------


def test_the_recipe_of_the_manual_shows_a_directory_of_the_server_on_a_tablet(
    own_office: Office,
) -> None:
    office = own_office
    recipe = (CHECKOUT / "docs" / "lan.md").read_text().partition("## The simplest case")[2]
    at_server, here = re.findall(r"```sh\n(.*)\n```", recipe)[:2]
    office.server.write("/home/alice/shown/hello.txt", "hello from the server\n", "alice")
    office.start(shlex.split(at_server), machine=office.server, cwd="/home/alice/shown")
    wait_until(lambda: office.answers("http://127.0.0.1:8000/", machine=office.server))
    words = [word.replace("user@example.com", "alice@server") for word in shlex.split(here)]
    terminal = office.at_terminal(*words[2:], env={"TERM": "dumb"})
    terminal.expect_exact("http://192.168.77.1:8000/")
    wait_until(lambda: office.only()["portal"] == [PORTAL, PORTAL6], every=0.1)
    wait_until(lambda: office.only()["names"] == ["server.local"], every=0.1)
    with Browser(office.lab.lan) as browser:
        browser.open(PORTAL, PHONE)
        browser.script("document.querySelector('.card a').click()")
        listed = "return document.body.textContent.includes('hello.txt')"
        wait_until(lambda: browser.script(listed), 10, every=0.1)
    url = "http://192.168.77.1:8000/hello.txt"
    assert office.fetch(url, machine=office.lab.lan) == "hello from the server\n"
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED
    assert not office.pids("sshvpn.lan.main")
