"""What runs in the background, as ``status``, ``down`` and ``logs`` know it, and where it is."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from sshvpn.system.cpu import has_aes
from tests.e2e.office import HOME, INTERRUPTED, Office, exit_code
from tests.e2e.sessions import RUNTIME
from tests.lab import wait_until
from tests.lab.camera import qr_codes

KEYS = {
    "name", "uid", "host", "engine", "direction", "state", "listen", "target", "url", "since",
    "reconnects", "retry_at", "pid", "last_error", "names", "portal",
    "congestion_control",
}  # fmt: skip


def test_status_has_the_documented_keys_and_none_is_null(office: Office, engine: str) -> None:
    office.forward("server", "9999:8888", "--engine", engine)
    told = json.loads(office.sshvpn("status", "--json").stdout)
    assert told["schema"] == 1
    assert told["tunnels"] == []
    (record,) = told["forwards"]
    assert record.keys() - {"spec"} == KEYS
    assert {key for key, value in record.items() if value is None} == {"last_error", "retry_at"}
    assert record["engine"] == engine
    assert record["uid"] == 1000
    assert record["listen"] == ["127.0.0.1:9999", "[::1]:9999"]
    assert record["target"] == "localhost:8888"
    assert record["url"] == "http://localhost:9999/"
    assert record["since"].endswith("Z")
    assert record["pid"] in office.pids("sshvpn.background")
    office.sshvpn("down")


def test_auto_is_the_library_where_there_is_no_ssh(office: Office) -> None:
    office.web()
    for path, engine in (("/nowhere", "sshtunnel"), ("/usr/bin", "openssh")):
        office.forward("server", "9999:8888", env={"PATH": path})
        assert office.only()["engine"] == engine
        assert "notebook" in office.fetch("http://localhost:9999/")
        office.sshvpn("down")


def test_each_spec_has_its_record(office: Office) -> None:
    office.forward("server", "9999:8888", "-R", "9998:7777", "-D", "1080", "--name", "three")
    by_way = {record["direction"]: record for record in office.status("three")}
    assert by_way.keys() == {"local", "remote", "dynamic"}
    for record in by_way.values():
        nulls = {key for key, value in record.items() if value is None}
        assert nulls == {"last_error", "retry_at"}
    assert by_way["remote"]["listen"] == ["localhost:9998"]
    assert by_way["remote"]["target"] == "localhost:7777"
    assert by_way["dynamic"]["url"].startswith("socks5h://")
    office.sshvpn("down", "three")


def test_the_same_twice_says_that_it_is_up(office: Office) -> None:
    office.forward("server", "9999:8888")
    again = office.forward("server", "9999:8888")
    assert "up already" in again.stderr
    assert "http://localhost:9999/" in again.stdout
    wait_until(lambda: len(office.pids("sshvpn.background")) == 1)  # the second is going away
    assert "taken" in office.refused(7, "forward", "server", "9999:7777")
    assert "up already" in office.refused(7, "forward", "server", "9999:8888")
    office.sshvpn("down")


def test_two_forwards_to_one_host_live_beside_each_other(office: Office) -> None:
    office.forward("server", "9999:8888")
    office.forward("server", "9998:8888")
    assert len(office.status("server")) == 2
    assert "2 things" in office.refused(2, "down")
    office.sshvpn("down", "server")
    assert office.status() == []


def test_a_name_stands_for_one_thing(office: Office) -> None:
    office.forward("server", "9999:8888", "--name", "nb")
    told = office.refused(7, "forward", "-b", "server", "9998:8888", "--name", "nb")
    assert "other forwards" in told
    told = office.refused(7, "forward", "-b", "server", "9999:8888", "--name", "nb", "--lan")
    assert "other forwards" in told
    office.forward("server", "9998:8888", "--name", "other")
    office.sshvpn("down", "nb")
    assert [record["name"] for record in office.status()] == ["other"]
    office.sshvpn("down", "--all")


def test_what_is_not_there_is_exit_3_and_bare_status_is_not(office: Office) -> None:
    assert office.sshvpn("status").stdout.strip() == "nothing is up"
    for command in (("status", "x"), ("down", "x"), ("logs", "x"), ("down",)):
        office.refused(3, *command)
    office.sshvpn("down", "--all")


def test_down_of_several_names_goes_on_and_tells_the_first_failure(office: Office) -> None:
    office.forward("server", "9999:8888")
    done = office.sshvpn("down", "nosuch", "server", check=False)
    assert done.returncode == 3
    assert office.status() == []


def test_a_foreground_forward_is_known_too_and_ends_well(office: Office) -> None:
    child = office.foreground("server", "9999:8888")
    office.wait_state("running")
    assert len(office.status("server")) == 1
    office.sshvpn("down", "server")
    child.communicate(timeout=10)
    assert child.returncode == 0


def test_logs_tell_what_happened_and_follow_to_the_end(office: Office) -> None:
    office.forward("server", "9999:8888")
    follower = office.start(office.lab.sshvpn_argv("logs", "-f", "server"))
    assert "running" in office.sshvpn("logs").stdout
    office.sshvpn("down")
    out, _ = follower.communicate(timeout=10)
    assert "running" in out
    assert "ended" in out


def test_what_runs_is_kept_from_others(office: Office) -> None:
    office.forward("server", "9999:8888")
    listed = office.gateway.run(["find", RUNTIME, f"{HOME}/.local/state/sshvpn", "-printf",
                                 "%y %m %f\n"]).stdout.split("\n")  # fmt: skip
    modes = [line.split()[:2] for line in listed if line]
    assert {mode for kind, mode in modes if kind == "d"} == {"700"}
    assert {mode for kind, mode in modes if kind == "s"} == {"600"}
    assert ["s", "600", "control"] in [line.split() for line in listed]
    spied = office.gateway.run(
        ["python3", "-c", f"import socket,glob; s=socket.socket(1); "
         f"s.connect(glob.glob('{RUNTIME}/*/control')[0])"], user="bob", check=False)  # fmt: skip
    assert spied.returncode != 0
    office.sshvpn("down")
    assert not office.gateway.exists(RUNTIME)


def test_a_run_time_directory_of_somebody_elses_is_refused(office: Office) -> None:
    office.gateway.run(["mkdir", "-m", "777", "/tmp/sshvpn-1000"], user="bob")  # noqa: S108
    env: dict[str, str | None] = {"XDG_RUNTIME_DIR": "/nowhere"}
    told = office.refused(1, "forward", "-b", "server", "9999:8888", env=env)
    assert "/tmp/sshvpn-1000" in told  # noqa: S108
    office.gateway.run(["rmdir", "/tmp/sshvpn-1000"], user="root")  # noqa: S108


def test_a_umask_that_closes_new_directories_to_their_owner_changes_nothing(
    office: Office,
) -> None:
    words = [*office.lab.sshvpn_argv("forward", "-b", "server", "9999:8888")]
    office.gateway.run(["sh", "-c", 'umask 777; exec "$@"', "sh", *words])
    assert len(office.status()) == 1
    office.sshvpn("down")
    assert not office.gateway.exists(RUNTIME)


def test_without_a_session_directory_tmp_serves_and_is_found_from_both(office: Office) -> None:
    env: dict[str, str | None] = {"XDG_RUNTIME_DIR": "/nowhere"}
    office.forward("server", "9999:8888", env=env)
    assert office.gateway.exists("/tmp/sshvpn-1000")  # noqa: S108
    assert len(office.status()) == 1
    office.sshvpn("down")
    assert not office.gateway.exists("/tmp/sshvpn-1000")  # noqa: S108


# The browser, the QR code, the live view ----------------------------------------------------


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_the_browser_is_opened_when_the_forward_answers_and_not_before(
    office: Office, background: bool
) -> None:
    office.gateway.write(f"{HOME}/browser", f'#!/bin/sh\necho "$1" >{HOME}/opened\n', mode=0o700)
    env: dict[str, str | None] = {"BROWSER": f"{HOME}/browser"}
    switches = ["-b", "--open"] if background else ["--open"]
    argv = office.lab.sshvpn_argv("forward", *switches, "server", "9999:8888")
    child = office.start(argv, env=env)
    office.wait_state("running")
    office.wait_logged("not forwarded")  # it was tried
    assert not office.gateway.exists(f"{HOME}/opened")
    office.web()
    wait_until(lambda: office.gateway.exists(f"{HOME}/opened"), 15)
    wait_until(lambda: office.gateway.read(f"{HOME}/opened") == "http://localhost:9999/\n", 5)
    office.sshvpn("down")
    child.communicate(timeout=10)


def test_a_machine_without_a_browser_is_told_the_url(office: Office) -> None:
    office.web()
    env: dict[str, str | None] = {"BROWSER": "/bin/false"}
    told = office.forward("--open", "server", "9999:8888", env=env).stderr
    assert told == "sshvpn: no browser was found; open http://localhost:9999/ yourself\n"
    office.sshvpn("down")


def test_a_qr_code_is_for_what_the_lan_can_reach(office: Office) -> None:
    shared = office.forward("server", "9999:8888", "--lan", "--qr")
    assert "█" in shared.stdout
    assert shared.stdout.rstrip().endswith("http://192.168.77.1:9999/")
    assert qr_codes(shared.stdout, is_dark=False) == ["http://192.168.77.1:9999/"]
    office.sshvpn("down")
    alone = office.forward("server", "9999:8888", "--qr")
    assert "█" not in alone.stdout
    assert "--lan" in alone.stderr
    office.sshvpn("down")


def test_the_live_view_shows_url_state_and_growing_bytes(office: Office, engine: str) -> None:
    office.web()
    terminal = office.at_terminal("server", "9999:8888", "--engine", engine)
    terminal.expect("http://localhost:9999/")
    terminal.expect("running")
    terminal.expect(r"0 connections")
    office.fetch("http://localhost:9999/")
    terminal.expect(r"[1-9][0-9.]* k?B/s")
    terminal.sendintr()
    assert exit_code(terminal) == INTERRUPTED


def test_a_pipe_gets_plain_lines_one_an_event(office: Office) -> None:
    child = office.foreground("server", "9999:8888")
    office.wait_state("running")
    child.terminate()
    out, _ = child.communicate(timeout=10)
    assert out.splitlines() == [
        "server: starting",
        "server: http://localhost:9999/ -> server localhost:8888",
        "server: http://[::1]:9999/ -> server localhost:8888",
        "server: running",
        "server: stopping",
        "server: ended",
    ]


def test_verbose_tells_what_ssh_says_of_itself(office: Office) -> None:
    done = office.forward("-v", "server", "9999:8888")
    assert "debug1: Authenticat" in done.stderr
    assert "debug1:" in office.logs()
    office.sshvpn("down")


def test_watch_goes_on_showing_and_sees_the_end(office: Office) -> None:
    office.forward("server", "9999:8888")
    watcher = office.lab.sshvpn_pty("status", "--watch", "server")
    watcher.expect(r"running since \d\d:\d\d, [0-9.]+ ms")
    watcher.expect("http://localhost:9999/")
    watcher.expect(r"B/s")
    office.forward("server", "9998:8888", "--name", "other")
    office.server.sshd.kill_sessions()
    watcher.expect("1 reconnect")
    office.forward("server", "9997:8887", "--name", "server")  # one more of that name
    watcher.expect("http://localhost:9997/")
    watcher.sendintr()
    assert exit_code(watcher) == INTERRUPTED
    office.sshvpn("down", "--all")
    office.refused(3, "status", "--watch", "server")


def test_a_program_that_watches_gets_a_line_whenever_something_changes(office: Office) -> None:
    office.forward("server", "9999:8888")
    watcher = office.start(office.lab.sshvpn_argv("status", "--watch", "--json"))
    assert watcher.stdout is not None
    office.server.sshd.kill_sessions()
    said: dict[str, Any] = {"forwards": []}
    while [record["reconnects"] for record in said["forwards"]] != [1]:
        line = watcher.stdout.readline()
        assert line, "it ended"
        said = json.loads(line)
    office.sshvpn("down")
    while said["forwards"]:
        said = json.loads(watcher.stdout.readline())
    assert said == {"schema": 1, "tunnels": [], "forwards": []}


def test_usr1_writes_the_status_to_the_log(office: Office) -> None:
    office.forward("server", "9999:8888")
    office.gateway.kill(office.only()["pid"], signal.SIGUSR1)
    office.wait_logged("status: running 127.0.0.1:9999")
    office.sshvpn("down")


@pytest.mark.parametrize("chosen", [None, "aes256-ctr"], ids=["default", "chosen"])
def test_the_cipher_is_this_cpus_unless_the_user_chose_one(
    office: Office, engine: str, chosen: str | None
) -> None:
    office.server.start_sshd(2222, {"LogLevel": "DEBUG1"})
    office.lab.know(office.server.sshd)
    if chosen:
        office.ssh_config(f"Host *\n  Ciphers {chosen}\n")
    options = ("-o", "UserKnownHostsFile=~/.ssh/known_hosts", "-o", "HostKeyAlias=server")
    office.forward("ssh://server:2222", "9999:8888", "--engine", engine, *options)
    first = "aes128-gcm@openssh.com" if has_aes() else "chacha20-poly1305@openssh.com"
    log = office.server.read("/run/lab-sshd-2222/log")
    assert f"client->server cipher: {chosen or first} " in log
    office.sshvpn("down")


@pytest.mark.parametrize("mac", ["hmac-sha2-256", "hmac-sha2-512-etm@openssh.com", "hmac-sha1"])
def test_a_cipher_that_needs_a_mac_has_one(office: Office, engine: str, mac: str) -> None:
    office.web()
    office.ssh_config(f"Host *\n  Ciphers aes128-ctr\n  MACs {mac}\n")
    office.forward("server", "9999:8888", "--engine", engine)
    assert "notebook" in office.fetch("http://localhost:9999/")
    office.sshvpn("down")


def test_a_target_that_refuses_is_told_and_the_forward_lives_on(
    office: Office, engine: str
) -> None:
    office.forward("server", "9999:8888", "--engine", engine)
    assert not office.answers("http://localhost:9999/")
    office.wait_logged("not forwarded")
    office.web()
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")
