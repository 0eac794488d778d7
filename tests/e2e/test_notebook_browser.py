"""What a person does with what `sshvpn notebook` opens and prints: browsers, and a camera.

lan ── lan0 ── gateway ══ssh══ server
Chromium       Chromium        JupyterLab
a camera       terminal
"""

from __future__ import annotations

import pytest

from tests.e2e.notebooks import Notebooks, bare, token_of, url_in
from tests.e2e.office import HOME, INTERRUPTED, tell_end
from tests.lab import wait_until
from tests.lab.avahi import Avahi
from tests.lab.camera import qr_codes
from tests.lab.chromium import command_line
from tests.lab.process import read_line
from tests.lab.screen import Screen
from tests.lab.visit import Browser

pytestmark = pytest.mark.lab

HERE = "http://localhost:9999/"
LAN = "http://192.168.77.1:9999/"
LAN6 = "http://[fd77::1]:9999/"
NAME = "server.local"
IS_OPEN = "return document.querySelector('.jp-Launcher') !== null"


def test_the_browser_here_is_logged_in_by_a_page_that_nobody_else_can_read(
    running: Notebooks,
) -> None:
    office, gateway = running.office, running.office.gateway
    # A browser as people have it: what it is started with is all that it knows.
    place = f"{HOME}/browser"
    chromium = command_line(f"{place}/profile", debugged_at=9222)
    script = f"""\
#!/bin/sh
echo "$@" >{place}/argv
exec env -u XDG_RUNTIME_DIR HOME={place} {chromium} "$@" >{place}/log 2>&1
"""
    gateway.write(f"{place}/firefox", script, mode=0o755)
    argv = office.lab.sshvpn_argv("notebook", "server")
    child = office.start(argv, env={"BROWSER": f"{place}/firefox"})
    while not (line := read_line(child, 60)).startswith("  here "):
        assert line
    token = token_of(url_in(line))
    wait_until(lambda: "127.0.0.1:9222" in office.listening(), 30, what="no browser", every=0.1)
    with Browser(gateway, "127.0.0.1:9222") as browser:
        wait_until(lambda: browser.script(IS_OPEN), 60, what="no JupyterLab", every=0.2)
        address = browser.script("return location.href")
        assert address.startswith(f"{HERE}lab")
        assert "token" not in address
        asked = "return document.querySelector('input[type=password]') !== null"
        assert not browser.script(asked)
        assert browser.script("return document.referrer") == ""
        url = gateway.read(f"{place}/argv").strip()
        page = url.removeprefix("file://")
        assert gateway.run(["stat", "-c", "%a %U", page]).stdout == "600 alice\n"
        assert f"{HERE}?token={token}" in gateway.read(page)
        assert [line for line in gateway.processes().values() if f" {url}" in line]
        for machine in (gateway, office.server):
            assert not [line for line in machine.processes().values() if token in line]
        # The session has gone on beside a browser that was waited for, and ends without it.
        child.send_signal(2)
        assert tell_end(child)[0] == INTERRUPTED
        assert not gateway.exists(page)
        assert browser.script(IS_OPEN)
    office.wait_gone()


def test_a_camera_reads_the_url_for_the_lan_from_the_terminal(running: Notebooks) -> None:
    office = running.office
    argv = office.lab.sshvpn_argv("notebook", "--lan", "--no-browser", "server")
    screen = Screen(office.gateway, argv)
    text = screen.wait(r"http:.*█.*http:.*server +running", 60)
    url = url_in(text, "on the LAN")
    assert bare(url) == LAN
    assert running.status(url, office.lab.lan) == "200"
    assert text.count("plain HTTP") == 1
    for is_dark in (True, False):
        assert qr_codes(screen.coloured(), is_dark=is_dark) == [url], text
    screen.press("C-c")
    screen.wait("Jupyter goes on at server")
    screen.close()


def test_the_code_is_whole_in_a_terminal_of_24_lines(running: Notebooks) -> None:
    argv = running.office.lab.sshvpn_argv("notebook", "--lan", "--no-browser", "server")
    screen = Screen(running.office.gateway, argv, columns=80, lines=24)
    text = screen.wait(r"http:.*server +running.*Ctrl-C ends it", 60)
    (url,) = [line for line in text.splitlines() if line.startswith(LAN)]
    assert qr_codes(screen.coloured(), is_dark=True) == [url], text
    screen.close()


def test_the_lan_opens_it_by_name_and_by_ipv6(running: Notebooks) -> None:
    lan = running.office.lab.lan
    avahi = Avahi(lan, "tablet")
    url = url_in(running.run("-b", "--no-browser", "--lan", "server").stdout, "on the LAN")
    address = wait_until(lambda: avahi.resolve4(NAME), 20, what="the name is not announced")
    # By its name the token is asked for, once. By IPv6 it is the same notebook, with its kernel.
    by_ipv6 = {"url": url.replace(LAN, LAN6), "cell": "kept + 1"}
    seen = running.browse(lan, f"http://{NAME}:9999/", "kept = 41; 6 * 7",
                          token=token_of(url), names={NAME: address}, again=by_ipv6)  # fmt: skip
    assert seen["outputs"] == ["42"]
    assert seen["url"].startswith(f"http://{NAME}:9999/lab")
    assert seen["kernel"].startswith(f"ws://{NAME}:9999/api/kernels/")
    assert seen["again"]["output"] == "42"
    assert seen["again"]["url"].startswith(f"{LAN6}lab")
    assert seen["again"]["kernel"].startswith("ws://[fd77::1]:9999/api/kernels/")
    lan.undo()
