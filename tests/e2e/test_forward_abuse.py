"""What an impatient user does to ``sshvpn forward``: each is clear, or simply works."""

from __future__ import annotations

import sys

import pytest

from tests.lab import Lab, wait_until

SSHVPN = f"{sys.executable} -m sshvpn"


def test_two_specs_for_one_place_are_a_mistake(lab: Lab) -> None:
    done = lab.sshvpn("forward", "-b", "server", "9999:8888", "9999:7777", check=False)
    assert done.returncode == 2
    assert "9999:8888 and 9999:7777" in done.stderr


@pytest.mark.parametrize("name", ["", "../../x", "a b", "a\nb", "\x1b[31m", "-x", "x" * 65])
def test_a_name_is_a_word(lab: Lab, name: str) -> None:
    done = lab.sshvpn("forward", "-b", "server", "9999:8888", f"--name={name}", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "\x1b" not in done.stderr


def test_without_any_standard_stream_it_works_in_both_ways(lab: Lab) -> None:
    lab.server.http_server(8888)
    lab.gateway.run(["sh", "-c", f"{SSHVPN} forward -b server 9999:8888 >&- 2>&- <&-"])
    assert "running" in lab.sshvpn("status").stdout
    lab.sshvpn("down")
    child = lab.gateway.popen(["sh", "-c", f"exec {SSHVPN} forward server 9999:8888 >&- 2>&- <&-"])
    fetch = ["curl", "-sf", "http://localhost:9999/"]
    wait_until(lambda: lab.gateway.run(fetch, check=False).returncode == 0)
    child.terminate()
    child.communicate(timeout=10)
    assert child.returncode == 0


def test_the_same_thing_started_three_times_at_once_is_up_once(lab: Lab) -> None:
    argv = lab.sshvpn_argv("forward", "-b", "server", "9999:8888")
    children = [lab.gateway.popen(argv) for _ in range(3)]
    told = [child.communicate(timeout=30) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum("is up already" in err for _, err in told) == 2
    assert lab.sshvpn("status").stdout.count("9999") == 1
    lab.sshvpn("down")


def test_a_full_disk_stops_the_log_and_not_the_forward(lab: Lab) -> None:
    lab.server.http_server(8888)
    fill = "mkdir full && mount -t tmpfs -o size=4k,uid=1000 none full && head -c 4096 /dev/zero"
    lab.gateway.run(["sh", "-c", f"cd /home/alice && {fill} > full/x"], user="root", check=False)
    env: dict[str, str | None] = {"XDG_STATE_HOME": "/home/alice/full"}
    lab.sshvpn("forward", "-b", "server", "9999:8888", env=env)
    lab.gateway.run(["curl", "-sf", "http://localhost:9999/"])
    lab.sshvpn("down")
    lab.gateway.run(["umount", "/home/alice/full"], user="root")


def test_a_session_that_hangs_is_told_of(lab: Lab) -> None:
    lab.sshvpn("forward", "-b", "server", "9999:8888")
    (pid,) = lab.gateway.pids("sshvpn.background")
    lab.gateway.kill(pid, 19)
    done = lab.sshvpn("status")
    assert "lives and does not answer" in done.stderr
    lab.gateway.kill(pid, 18)
    lab.sshvpn("down")


def test_clean_removes_what_a_killed_session_left_and_nothing_else(lab: Lab) -> None:
    lab.sshvpn("forward", "-b", "server", "/home/alice/a.sock:8888")
    (pid,) = lab.gateway.pids("sshvpn.background")
    lab.gateway.kill(pid)
    wait_until(lambda: not any("/usr/bin/ssh " in p for p in lab.gateway.processes().values()))
    lab.sshvpn("forward", "-b", "server", "9999:8888")
    assert lab.gateway.exists("/home/alice/a.sock")
    assert "removed" in lab.sshvpn("clean").stdout
    assert not lab.gateway.exists("/home/alice/a.sock")
    assert "nothing was left behind" in lab.sshvpn("clean").stdout
    assert "running" in lab.sshvpn("status").stdout
    lab.sshvpn("down")
