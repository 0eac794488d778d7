"""`sshvpn notebook`: Jupyter at the server, here, and on a machine of the LAN.

lan ── gateway ══ssh══ server
Chromium  localhost:9999   JupyterLab on its own localhost
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.e2e.notebooks import RUNTIME, STATE, VENV, Notebooks, bare, token_of, url_in
from tests.e2e.office import HOME, INTERRUPTED, Office, tell_end
from tests.lab import wait_until
from tests.lab.process import read_line

WHO = "import platform; print(platform.node())"


@pytest.fixture
def notebooks(office: Office) -> Iterator[Notebooks]:
    """Return the shared laboratory with Jupyter at its server."""
    made = Notebooks(office)
    yield made
    office.sshvpn("down", "--all")
    made.end()


def test_it_starts_jupyter_and_is_here_and_kernels_live_on_without_the_connection(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    said = notebooks.run("-b", "--no-browser", "server").stdout
    url = url_in(said)
    assert said.startswith(f"Jupyter in {HOME} at server, started: {HOME}/{VENV}/bin/jupyter-lab\n")
    assert bare(url) == "http://localhost:9999/"
    assert re.fullmatch(r"[0-9a-f]{48}", token_of(url))
    text, kernel = notebooks.execute(url, f"{WHO}; kept = 41")
    assert text == "server\n"
    record = office.only()
    assert (record["url"], record["target"]) == ("http://localhost:9999/", "127.0.0.1:8888")
    assert record["notebook"]["directory"] == HOME
    assert "http://localhost:9999/" in office.sshvpn("status").stdout
    assert office.listening(office.server) >= {"127.0.0.1:8888"}
    assert not [one for one in office.listening(office.server) if one in ("*:8888", "[::1]:8888")]

    office.server.sshd.kill_sessions()
    office.wait_state("running", reconnects=1)
    assert notebooks.execute(url, "print(kept + 1)", kernel)[0] == "42\n"

    office.sshvpn("down")
    wait_until(lambda: not office.sessions(), what="alice is logged out")
    again = notebooks.run("-b", "--no-browser", "server").stdout
    assert "it ran already" in again
    assert url_in(again) == url
    assert notebooks.execute(url, "print(kept + 2)", kernel)[0] == "43\n"

    twice = notebooks.run("-b", "--no-browser", "server")
    assert (url_in(twice.stdout), twice.stderr) == (url, "server is up already\n")

    stopped = notebooks.run("stop", "server").stdout
    assert stopped == f"server is down\nJupyter in {HOME} at server has ended\n"
    assert not notebooks.servers()
    assert office.status() == []


def test_a_browser_on_the_lan_runs_a_cell(running: Notebooks) -> None:
    # Started for this machine alone: it can be shared later, without losing its kernels.
    notebooks, office = running, running.office
    said = notebooks.run("-b", "--no-browser", "--lan", "--qr", "server").stdout
    assert "it ran already" in said
    assert said.count("plain HTTP") == 1
    assert said.count("█") > 100
    url = url_in(said, "on the LAN")
    assert bare(url) == "http://192.168.77.1:9999/"
    lan = office.lab.lan
    seen = notebooks.browse(lan, url, "import platform; platform.node()", "6 * 7")
    assert seen["outputs"] == ["'server'", "42"]
    assert seen["kernel"].startswith("ws://192.168.77.1:9999/api/kernels/")
    assert seen["url"].startswith("http://192.168.77.1:9999/lab")
    assert "token" not in seen["url"]
    assert notebooks.status(bare(url), lan) == "403"
    # By the name that the gateway announces, too.
    named = ["-H", "Host: server.local:9999", "-o", "/dev/null", "-w", "%{http_code}"]
    assert office.fetch(f"{bare(url)}api", *named, machine=lan) == "200"
    (record,) = office.status()
    assert record["url"] == "http://localhost:9999/"
    assert {"127.0.0.1:9999", "192.168.77.1:9999"} <= set(record["listen"])


def test_the_token_is_nowhere_where_others_can_read_it(running: Notebooks) -> None:
    notebooks, office = running, running.office
    # A browser that tells how it was called, and what that names.
    notes = f"{HOME}/browser"
    script = f'#!/bin/sh\necho "$@" >{notes}.argv\ncp "${{1#file://}}" {notes}.page\nsleep 2\n'
    office.gateway.write(f"{HOME}/firefox", script, mode=0o755)
    browser = {"BROWSER": f"{HOME}/firefox %s &"}
    notebooks.run("-b", "--no-browser", "server", env=browser)
    office.sshvpn("down")
    assert not office.gateway.exists(f"{notes}.argv")
    said = notebooks.run("-b", "server", env=browser)
    token = token_of(url_in(said.stdout))
    gateway, server = office.gateway, office.server
    wait_until(lambda: gateway.exists(f"{notes}.page"), what="the browser was not started")
    assert f"http://localhost:9999/?token={token}" in gateway.read(f"{notes}.page")
    page = gateway.read(f"{notes}.argv").strip().removeprefix("file://")
    assert gateway.run(["stat", "-c", "%a", page]).stdout == "600\n"

    for machine in (gateway, server):
        assert token not in "\n".join(machine.processes().values())
        # Files that others than alice and root can read; those shown from the host have no token.
        # The tests' own cache is the host's, and large.
        but = [f"--exclude-dir={name}" for name in ("proc", "sys", "sshvpn-tests*")]
        search = ["grep", "-rlsF", *but, token,
                  "/home", "/run", "/tmp", "/var", "/etc", "/dev/shm"]  # fmt: skip  # noqa: S108
        found = machine.run(search, user="root", check=False, timeout=100).stdout.split()
        assert found, f"{machine.name}: Jupyter's own file has it, and the session's"
        modes = machine.run(["stat", "-c", "%a %n", *found], user="root").stdout.splitlines()
        assert {mode.split()[0] for mode in modes} == {"600"}, modes
        assert not [name for name in found if name.endswith(".log")]
    assert token not in office.sshvpn("status", "--json").stdout
    assert token not in office.sshvpn("status", "server").stdout
    assert token not in office.sshvpn("logs", "server").stdout
    assert token not in notebooks.run("list", "--json", "server").stdout
    environment = server.host_path(f"/proc/{next(iter(notebooks.servers()))}/environ").read_bytes()
    assert token.encode() not in environment


def test_two_directories_are_two_notebooks(notebooks: Notebooks) -> None:
    office = notebooks.office
    for name in ("one", "and two"):
        office.server.write(f"{HOME}/{name}/data.txt", f"data of {name}")
    first = notebooks.open("--dir", "one")
    second = notebooks.open("--dir", "~/and two")
    assert (bare(first), bare(second)) == ("http://localhost:9999/", "http://localhost:10000/")
    for url, name in ((first, "one"), (second, "and two")):
        fetched = office.fetch(f"{bare(url)}api/contents?token={token_of(url)}")
        assert [one["name"] for one in json.loads(fetched)["content"]] == ["data.txt"], name
        assert notebooks.execute(url, "import os; print(os.getcwd())")[0] == f"{HOME}/{name}\n"
    for kind in ("files", "api/contents"):
        status, text = notebooks.served(first, f"{kind}/data.txt")
        assert (status, "data of one" in text) == ("200", True), text
        for outside in ("..", "%2e%2e", "%2e%2e%2f", f"/{HOME}", quote(HOME, safe="")):
            status, text = notebooks.served(first, f"{kind}/{outside}/and%20two/data.txt")
            assert (status[0], "data of" in text) == ("4", False), (kind, outside, text)
    told = notebooks.run("list", "server").stdout
    assert f"{HOME}/and two" in told
    assert [one["started_by_sshvpn"] for one in notebooks.list()] == [True, True]

    refused = notebooks.refused(2, "stop", "server")
    assert f"2 run at server: {HOME}/and two, {HOME}/one" in refused
    notebooks.run("stop", "--dir", "one", "server")
    assert [record["notebook"]["directory"] for record in office.status()] == [f"{HOME}/and two"]
    notebooks.run("stop", "--all", "server")
    assert (notebooks.list(), office.status()) == ([], [])
    assert not notebooks.servers()


def test_one_that_others_have_started_is_taken_and_told_of(notebooks: Notebooks) -> None:
    office = notebooks.office
    # Not as sshvpn starts it: it has its own token, and takes requests for localhost only.
    argv = [f"{HOME}/{VENV}/bin/jupyter-lab", "--no-browser", "--port=8890"]
    office.start(argv, machine=office.server, env={"JUPYTER_TOKEN": "my own"},
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    wait_until(lambda: office.server.host_path(RUNTIME).exists() and notebooks.list(), 30)
    url = notebooks.open()
    assert url == "http://localhost:9999/?token=my%20own"
    assert notebooks.status(url) == "200"
    office.sshvpn("down")

    refused = notebooks.refused(1, "-b", "--lan", "server")
    assert "was not started by sshvpn, and takes no requests for 192.168.77.1" in refused
    assert "--ServerApp.allow_remote_access=True" in refused
    assert f"sshvpn notebook stop server --dir {HOME}" in refused
    assert office.status() == []
    assert notebooks.run("stop", "--all", "server", check=False).returncode == 3
    assert notebooks.servers()
    notebooks.run("stop", "server", "--dir", HOME)
    assert not notebooks.servers()


def test_one_that_was_started_in_a_linked_directory_is_that_directory_s(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    office.server.run(["sh", "-c", "mkdir real && ln -s real link"], cwd=HOME)
    argv = [f"{HOME}/{VENV}/bin/jupyter-lab", "--no-browser", f"--notebook-dir={HOME}/link"]
    office.start(argv, machine=office.server, env={"JUPYTER_TOKEN": "mine"},
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    wait_until(lambda: office.server.host_path(RUNTIME).exists() and notebooks.list(), 30)
    for directory in ("real", "link"):
        assert notebooks.open("--dir", directory) == "http://localhost:9999/?token=mine"
        office.sshvpn("down")
    (running,) = notebooks.list()
    assert running["directory"] == f"{HOME}/real"
    notebooks.run("stop", "--dir", "link", "server")
    assert not notebooks.servers()


def test_ports_that_are_taken_are_stepped_over_and_one_that_was_asked_for_is_not(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    office.web(8888)
    office.gateway.http_server(9999, "::1")
    url = notebooks.open()
    assert bare(url) == "http://localhost:10000/"
    assert notebooks.status(url) == "200"
    assert office.only()["target"] == "127.0.0.1:8889"
    office.sshvpn("down")
    refused = notebooks.refused(7, "-b", "--port", "9999", "server")
    assert "port 9999 is taken on ::1" in refused
    assert bare(notebooks.open("--port", "7777")) == "http://localhost:7777/"


def test_a_jupyter_that_dies_shows_its_log(notebooks: Notebooks) -> None:
    office = notebooks.office
    config = json.dumps({"ServerApp": {"certfile": "/nowhere.pem"}})
    office.server.write(f"{HOME}/.jupyter/jupyter_server_config.json", config)
    refused = notebooks.refused(1, "-b", "server")
    assert "sshvpn: jupyter: " in refused
    assert '"/nowhere.pem" does not exist' in refused
    last = refused.splitlines()[-2:]
    assert last[0].startswith("sshvpn: Jupyter ended at server while it started")
    log = re.fullmatch(rf"  its whole log: ssh server cat ({STATE}/\d+\.log)", last[1])
    assert log
    assert "nowhere.pem" in office.server.read(log[1])
    assert (office.status(), notebooks.servers()) == ([], {})
    # In the foreground, too, where nothing else would show them.
    terminal = office.lab.sshvpn_pty("notebook", "server", env={"TERM": "xterm"}, timeout=60)
    terminal.expect("sshvpn: jupyter: .*?nowhere.pem. does not exist")
    terminal.expect("sshvpn: Jupyter ended at server while it started")
    terminal.close()


def test_what_is_not_there_is_told_with_what_to_do(notebooks: Notebooks) -> None:
    office = notebooks.office
    refused = notebooks.refused(1, "-b", "--dir", "nowhere", "server")
    assert f"there is no directory {HOME}/nowhere at server" in refused
    refused = notebooks.refused(1, "-b", "--venv", "none", "server")
    assert f"{HOME}/none at server is no virtual environment" in refused
    refused = notebooks.refused(1, "-b", "--conda-env", "none", "server")
    assert "no conda environment none was found at server" in refused
    refused = notebooks.refused(1, "-b", "--command", "nothing lab", "server")
    assert "server has no command nothing" in refused
    office.server.write(f"{HOME}/.profile", "PATH=/usr/bin:/bin; export PATH\n")
    refused = notebooks.refused(1, "-b", "server")
    assert "no Jupyter was found at server" in refused
    install = "ssh server 'python3 -m venv jupyter && jupyter/bin/pip install jupyterlab'"
    assert f"install it: {install}, then add --venv jupyter" in refused
    assert notebooks.run("stop", "server", check=False).returncode == 3
    assert notebooks.run("list", "server").stdout == "no Jupyter runs at server\n"
    assert (office.status(), notebooks.servers()) == ([], {})


def test_jupyter_s_own_configuration_counts_for_token_and_password_and_not_for_where_it_listens(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    config = f"{HOME}/.jupyter/jupyter_server_config.json"
    office.server.write(config, json.dumps({"IdentityProvider": {"token": "mine"}}))
    everywhere = f"{HOME}/.jupyter/jupyter_server_config.py"
    office.server.write(everywhere, 'c.ServerApp.ip = "0.0.0.0"\n')
    before = office.listening(office.server)
    url = notebooks.open("--lan")
    assert token_of(url) == "mine", "it is read"
    assert notebooks.status(url) == "200"
    assert office.listening(office.server) - before == {"127.0.0.1:8888"}
    notebooks.run("stop", "server")

    hashed = "argon2:$argon2id$v=19$m=10240,t=10,p=8$AAAA$AAAA"
    office.server.write(
        config, json.dumps({"PasswordIdentityProvider": {"hashed_password": hashed}})
    )
    url = notebooks.open()
    assert notebooks.status(url) == "200"
    notebooks.run("stop", "server")

    # It tells of neither then; that it asks is seen, and so it may be shared.
    words = {"token": "", "hashed_password": hashed}
    office.server.write(config, json.dumps({"PasswordIdentityProvider": words}))
    said = notebooks.run("-b", "--no-browser", "--lan", "server")
    assert "asks for no token" not in said.stderr
    assert notebooks.status(url_in(said.stdout, "on the LAN"), office.lab.lan) == "403"
    notebooks.run("stop", "server")

    office.server.write(config, json.dumps({"IdentityProvider": {"token": ""}}))
    said = notebooks.run("-b", "--no-browser", "server")
    assert "asks for no token" in said.stderr
    assert url_in(said.stdout) == "http://localhost:9999/"
    # Its check of names is all that it has against pages that rebind their own name.
    assert office.fetch("http://localhost:9999/api", "-H", "Host: evil.example", "-o", "/dev/null",
                        "-w", "%{http_code}") == "403"  # fmt: skip
    office.sshvpn("down")
    refused = notebooks.refused(1, "-b", "--lan", "server")
    assert "on the local network everybody could run commands as you at server" in refused


def test_ctrl_c_ends_the_forward_and_jupyter_goes_on(notebooks: Notebooks) -> None:
    office = notebooks.office
    argv = ["notebook", "--no-browser", "--name", "mine", "server"]
    child = office.start(office.lab.sshvpn_argv(*argv))
    while "here " not in (line := read_line(child, 60)):
        assert line
    assert office.answers("http://localhost:9999/")
    child.send_signal(2)
    code, stdout, _ = tell_end(child)
    assert code == INTERRUPTED
    assert stdout.endswith("Jupyter goes on at server; sshvpn notebook stop server ends it\n")
    office.wait_gone()
    assert len(notebooks.servers()) == 1


@pytest.mark.parametrize("way", ["foreground", "background"])
def test_ctrl_c_while_jupyter_starts_says_that_it_goes_on(notebooks: Notebooks, way: str) -> None:
    office = notebooks.office
    python = f"{HOME}/{VENV}/bin/python"
    command = f"""sh -c 'sleep 6.5; exec "$0" -m jupyterlab "$@"' '{python}'"""
    options = ["-b"] if way == "background" else []
    argv = ["notebook", *options, "-l", "alice", "--name", "mine", "--command", command, "server"]
    child = office.start(office.lab.sshvpn_argv(*argv))
    wait_until(lambda: "1000 sleep 6.5" in office.server.processes().values(), 30)
    child.send_signal(2)
    code, stdout, stderr = tell_end(child)
    assert code == INTERRUPTED
    ends = "sshvpn notebook stop -l alice server"
    assert f"Jupyter goes on at server; {ends} ends it" in stdout + stderr
    office.wait_gone()
    wait_until(notebooks.list, 60)
    notebooks.run(*ends.split()[2:])
    assert not notebooks.servers()


def test_what_runs_is_told_and_ended_though_the_directory_of_a_profile_is_gone(
    notebooks: Notebooks,
) -> None:
    notebooks.open()
    notebooks.office.config('[notebooks.gpu]\nhost = "server"\ndir = "gone"\n')
    assert f"{HOME}  " in notebooks.run("list", "gpu").stdout
    assert "has ended" in notebooks.run("stop", "gpu", "--all").stdout
    assert not notebooks.servers()


def test_a_server_that_was_rebooted_has_its_jupyter_again_with_the_same_url(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    url = notebooks.open()
    boot = "/proc/sys/kernel/random/boot_id"
    office.server.write("/run/boot_id", "another\n", owner="root", mode=0o644)
    office.server.run(["mount", "--bind", "/run/boot_id", boot], user="root")
    try:
        for pid in notebooks.servers():
            office.server.kill(pid)
        office.server.sshd.kill_sessions()
        office.wait_state("running", reconnects=1, timeout=60)
        assert notebooks.status(url) == "200"
    finally:
        office.server.run(["umount", boot], user="root")


def test_a_jupyter_that_has_ended_under_a_forward_is_started_again(notebooks: Notebooks) -> None:
    """As by File > Shut Down: the connection stands, and nothing listens at its end."""
    office = notebooks.office
    url = notebooks.open()
    (before,) = notebooks.servers()
    office.server.kill(before)
    wait_until(lambda: not notebooks.servers(), 10)
    done = notebooks.run("-b", "--no-browser", "server")
    assert "server is up already\nJupyter has ended at server: it is started again" in done.stderr
    again = url_in(done.stdout)
    assert bare(again) == bare(url)
    assert notebooks.status(again) == "200"
    assert before not in notebooks.servers()


def test_who_takes_the_port_of_a_jupyter_that_has_ended_gets_no_token(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    url = notebooks.open()
    (before,) = notebooks.servers()
    office.server.kill(before)
    wait_until(lambda: not notebooks.servers(), 10)
    office.web(8888, "mallory's")
    assert "mallory's" in office.fetch("http://localhost:9999/")
    done = notebooks.run("-b", "--no-browser", "server")
    assert "Jupyter has ended at server: it is started again" in done.stderr
    again = url_in(done.stdout)
    assert token_of(again) != token_of(url), "a page that is open has sent it"
    assert notebooks.status(again) == "200"
    assert office.only()["target"] == "127.0.0.1:8889"


def test_a_host_has_several_names_and_what_leads_there_ends_by_each(notebooks: Notebooks) -> None:
    notebooks.open()
    assert "server is down\n" in notebooks.run("stop", "alice@server").stdout
    assert notebooks.office.status() == []


def test_other_wishes_for_the_lan_are_other_wishes(notebooks: Notebooks) -> None:
    notebooks.open("--lan")
    told = notebooks.refused(7, "-b", "--no-browser", "--lan", "--no-announce", "server")
    assert "server is up with other wishes" in told


def test_what_is_up_is_found_by_its_name_and_never_shared_with_who_says_not_to(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    url = notebooks.open("--name", "server", "--lan")  # as the service `server` is called
    shared = office.only()
    again = notebooks.run("-b", "--no-browser", "server")
    assert (url_in(again.stdout), again.stderr) == (url, "server is up already\n")
    refused = notebooks.run("-b", "--no-browser", "--no-lan", "server", check=False)
    assert (refused.returncode, refused.stdout) == (7, ""), "no URL of what is shared"
    assert "server is up with other wishes" in refused.stderr
    assert office.only()["listen"] == shared["listen"], "who shares it goes on"
    # Of another directory, it is another one, and not shared.
    office.server.write(f"{HOME}/thesis/x.txt", "")
    other = notebooks.open("--dir", "thesis")
    assert (bare(other), token_of(other) != token_of(url)) == ("http://localhost:10000/", True)
    listen = {record["notebook"]["directory"]: record["listen"] for record in office.status()}
    assert listen[HOME] == shared["listen"]
    assert "192.168.77.1:9999" in shared["listen"]
    assert sorted(listen[f"{HOME}/thesis"]) == ["127.0.0.1:10000", "[::1]:10000"]
    lan = office.lab.lan
    assert notebooks.status(url.replace("localhost", "192.168.77.1"), lan) == "200"
    assert not office.answers("http://192.168.77.1:10000/", machine=lan)


def test_a_jupyter_that_hangs_is_told_and_taken_again_when_it_goes_on(running: Notebooks) -> None:
    office = running.office
    (pid,) = running.servers()
    office.server.kill(pid, signal.SIGSTOP)
    try:
        refused = running.refused(6, "-b", "--no-browser", "--timeout", "5", "server")
    finally:
        office.server.kill(pid, signal.SIGCONT)
    assert "server" in refused
    assert office.status() == []
    assert running.status(running.open()) == "200"


def test_a_profile_says_it_all(notebooks: Notebooks) -> None:
    office = notebooks.office
    office.server.write(f"{HOME}/thesis/x.txt", "")
    office.config(
        f'[notebooks.gpu]\nhost = "server"\ndir = "thesis"\nvenv = "{VENV}"\nport = 9000\n'
    )
    said = notebooks.run("gpu", "-b", "--no-browser").stdout
    assert said.startswith(f"Jupyter in {HOME}/thesis at server, ")
    assert bare(url_in(said)) == "http://localhost:9000/"
    assert office.only()["name"] == "gpu"
    profile = '[notebooks.gpu]\nhost = "server"\ndir = "thesis"\nport = 9001\nlan = true\n'
    office.config(profile)
    office.sshvpn("restart", "gpu")
    assert office.only()["url"] == "http://localhost:9001/"
    profile = profile.replace("true", "false")
    office.config(profile)
    office.sshvpn("restart", "gpu")
    assert "gpu is up with other wishes" in notebooks.refused(7, "gpu", "-b", "--lan")
    assert "gpu is down" in notebooks.run("stop", "gpu").stdout


def test_the_sshtunnel_engine_does_it_too(notebooks: Notebooks) -> None:
    url = notebooks.open("--engine", "sshtunnel")
    assert notebooks.execute(url, WHO)[0] == "server\n"
    assert notebooks.office.only()["engine"] == "sshtunnel"
