"""The `w` transport honours the user's ssh configuration, whatever the server prints or asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.agent_site import processes_gone
from tests.contract.carrier_site import (
    Carrier,
    carrier,
    give_bob_a_tun,
    lab,
    only_w,
    pings,
    transport,
    use,
)
from tests.lab import ALICE_PASSWORD, Lab, wait_until

__all__ = ["carrier", "lab", "transport"]

pytestmark = only_w

Make = Callable[..., Carrier]
CONFIG = "/home/alice/.ssh/config"
END = ("10.83.0.2/30",)


def crosses(lab: Lab) -> None:
    use(lab)
    wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")


# The user's configuration ---------------------------------------------------------------------


HOP = """
Host hop
  HostName 203.0.113.20
  User alice
"""
RICH = """
Match originalhost box exec "true"
  HostName localhost
  User root
  HostKeyAlias server
  LocalForward 127.0.0.1:7777 localhost:80
  RemoteForward 0 localhost:80
  DynamicForward 7778
  RemoteCommand id
  RequestTTY force
  SessionType none
  ClearAllForwardings yes
  Tunnel ethernet
  ControlMaster auto
  ControlPath /tmp/%C
  PermitLocalCommand yes
  LocalCommand touch /home/alice/ran
  SetEnv LC_A="b c"
"""


@pytest.mark.parametrize("clear", ["", "ClearAllForwardings no\n"])
def test_forwards_jump_include_and_match_of_the_user(lab: Lab, carrier: Make, clear: str) -> None:
    lab.server.authorize("root")
    # The hop is the server itself, which is reached by its localhost from there.
    lab.gateway.write("/home/alice/.ssh/hop", HOP)
    lab.gateway.write("/home/alice/.ssh/rich", clear + RICH)
    lab.gateway.write(CONFIG, "Include hop\nInclude rich\nHost box\n  ProxyJump hop:22\n")
    taken = lab.gateway.http_server(7777)
    one = carrier()
    facts = one.connect(host="box")
    assert (facts["user"], facts["device"]) == ("root", "tun0")
    one.configure(*END)
    crosses(lab)
    assert one.life() > 0
    lab.server.http_server(8888)
    port = one.listen(8888)
    assert "server" in lab.gateway.run(["curl", "-fsS", f"http://127.0.0.1:{port}/"]).stdout
    listening = lab.gateway.run(["ss", "-Hltn"]).stdout
    assert ":7778" not in listening
    assert not lab.gateway.exists("/home/alice/ran")
    mode = lab.gateway.run(["stat", "-c", "%a", "/home/alice/private0/ssh_config"]).stdout
    assert mode == "600\n"
    one.close()
    taken.stop()


def test_a_file_of_the_command_line_holds_for_the_hop_too(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    file = "/home/alice/my config"
    lab.gateway.write(
        file, f"{HOP}Host box\n  ProxyJump hop\n  HostName localhost\n  User root\n"
        "  HostKeyAlias server\n  LocalForward 7777 localhost:80\n",
    )  # fmt: skip
    lab.gateway.write(CONFIG, "Host *\n  HostName nosuch.invalid\n")
    one = carrier()
    assert one.connect(host="box", ssh={"config_file": file})["user"] == "root"
    one.close()


def test_what_cannot_be_is_told_before_any_connection(carrier: Make) -> None:
    one = carrier()
    one.check()
    for words, word in (
        ({"streams": 2}, "--streams"),
        ({"mtu": 16381}, "16380"),
        ({"remote_device": "office"}, "altname tun8"),
        ({"ssh": {"config_file": "/nosuch"}}, "/nosuch"),
    ):
        wrong = one.refused("check", **words)
        assert wrong.exit_code == 2
        assert word in f"{wrong}"


# What the server prints -----------------------------------------------------------------------


SHELLS = {
    "/usr/bin/bash": ".bashrc",
    "/usr/bin/dash": "",
    "/usr/bin/zsh": ".zshenv",
    "/usr/bin/fish": ".config/fish/config.fish",
    "/usr/bin/tcsh": ".tcshrc",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_and_a_banner(lab: Lab, carrier: Make, shell: str) -> None:
    if not lab.server.exists(shell):
        pytest.skip(f"{shell} is not installed")
    lab.server.run(["usermod", "--shell", shell, "bob"], user="root")
    lab.server.write(
        "/etc/banner", "Authorised use only. Tunnel forwarding failed, once.\n", "root"
    )
    lab.server.sshd.restart(Banner="/etc/banner")
    lab.server.authorize("bob")
    if SHELLS[shell]:
        noise = 'echo "Welcome. hello 1"; printf "no line end"; echo oops >/dev/stderr\n'
        lab.server.write(f"/home/bob/{SHELLS[shell]}", noise, "bob")
    give_bob_a_tun(lab)
    one = carrier()
    assert one.connect(user="bob", remote_device="tun8")["device"] == "tun8"
    one.close()
    lab.server.ip("link", "delete", "tun8")


def test_a_login_without_end_of_its_noise_costs_no_memory(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("bob")
    noise = "head -c 200000000 /dev/zero | tr '\\0' x\nyes noise &\n"
    lab.server.write("/home/bob/.bashrc", noise, "bob")
    give_bob_a_tun(lab)
    one = carrier()
    before = one.most_memory_mb()
    assert one.connect(user="bob", remote_device="tun8")["device"] == "tun8"
    assert one.most_memory_mb() < before + 40
    one.close()
    lab.server.run(["sh", "-c", "pkill -x yes; true"], user="root")
    lab.server.ip("link", "delete", "tun8")


def test_a_login_that_reads_what_is_meant_for_the_agent_is_told(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    lab.server.write("/root/.bashrc", "head -c 1000 >/dev/null\n", "root")
    one = carrier(answer_s=3)
    refusal = one.refused("connect", user="root")
    assert refusal.exit_code == 5
    processes_gone(lab)


def test_a_login_of_another_kind_is_told_in_its_own_words(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root", 'command="echo This account is closed."')
    refusal = carrier().refused("connect", user="root")
    assert (refusal.exit_code, refusal.kind) == (5, "NoAgentError")
    assert refusal.message.endswith("it said: This account is closed.")


# What the server asks -------------------------------------------------------------------------


def test_a_password_is_asked_for_and_a_reconnect_asks_nobody(lab: Lab, carrier: Make) -> None:
    lab.server.sshd.restart(PermitRootLogin="yes", PasswordAuthentication="yes", UsePAM="yes")
    lab.server.run(["sh", "-c", f"echo root:{ALICE_PASSWORD} | chpasswd -c SHA512"], user="root")
    one = carrier()
    facts = one.connect(user="root", answers={"password": ALICE_PASSWORD})
    assert facts["user"] == "root"
    assert one.asked() == 1
    one.close()
    needed = one.refused("connect", user="root")
    assert (needed.code, needed.retry) == ("needs_login", "on_login")


def test_a_look_changes_nothing(lab: Lab, carrier: Make) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    facts = carrier().look()
    assert (facts["rights"], facts["device"]) == ("sudo", None)
    assert lab.server.dump() == before
    processes_gone(lab)
