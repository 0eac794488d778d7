"""A resolved configuration, written and read again, is the same but for its forwards."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from sshvpn.model import Destination, SshOptions
from sshvpn.system.openssh.config_file import config_text, has_forwards
from sshvpn.system.ssh.config import DEFAULT, Config, resolve

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")

RICH = r"""
Match originalhost box exec true
  HostName box.example
  LocalForward 9999 localhost:80
  LocalForward /tmp/a /tmp/b
  RemoteForward 8080 localhost:80
  DynamicForward 1080
Host box
  User "DOM\bob smith"
  Port 2222
  IdentityFile "~/my keys/it's"
  IdentityFile ~/.ssh/id_x
  IdentityFile "/quoted \"key\" # one"
  IdentityAgent "/a b/agent"
  CertificateFile "/x y/cert"
  SetEnv A="b c" D=e
  SendEnv LANG LC_*
  UserKnownHostsFile "/a b/known hosts" /c ~/d
  GlobalKnownHostsFile none
  RekeyLimit 1G 1h
  IPQoS af21 cs1
  AddKeysToAgent confirm 1h
  KnownHostsCommand /bin/foo "a b" %H
  HostKeyAlias "the box"
  RevokedHostKeys "/r k"
  Ciphers +aes128-cbc
  EscapeChar none
  ServerAliveInterval 7
  Compression yes
"""


def resolved(path: Path) -> Config:
    return asyncio.run(resolve(Destination("box"), SshOptions(config_file=str(path))))


def own(config: Config, *without: str) -> dict[str, tuple[str, ...]]:
    return {k: v for k, v in config.items() if not k.startswith(DEFAULT) and k not in without}


@needs_ssh
@pytest.mark.parametrize("proxy", ["", "ProxyCommand nc -X 'a b' %h %p\n"])
def test_all_but_the_forwards_is_read_as_it_was(tmp_path: Path, proxy: str) -> None:
    (tmp_path / "rich").write_text(RICH + proxy)
    users, ours = tmp_path / "users", tmp_path / "ours"
    users.write_text(f"Include {tmp_path}/rich\n")
    before = resolved(users)
    assert has_forwards(before)
    ours.write_text(config_text(before, "/usr/bin/ssh", ("-F", str(users))))
    after = resolved(ours)
    assert not has_forwards(after)
    assert own(after) == own(before, "localforward", "remoteforward", "dynamicforward")


@needs_ssh
def test_what_nobody_has_chosen_stays_unsaid(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("LocalForward 9999 localhost:80\nUser carol\n")
    text = config_text(resolved(tmp_path / "users"), "/usr/bin/ssh", ())
    assert sorted(text.split("\n")) == ["", "hostname box", "port 22", "user carol"]


@needs_ssh
def test_a_jump_is_made_with_the_users_own_file(tmp_path: Path) -> None:
    users, ours = tmp_path / "my config", tmp_path / "ours"
    users.write_text("Host box\n  ProxyJump a@one,ssh://b@two:33,c@[fd00::1]:44\n")
    ours.write_text(config_text(resolved(users), "/opt/100%/ssh", ("-F", str(users))))
    found = resolved(ours)
    assert "proxyjump" not in found
    assert found["proxycommand"] == (
        f"/opt/100%%/ssh -F '{users}' -W '[%h]:%p' -J a@one,ssh://b@two:33 -l c -p 44 -- fd00::1",
    )


@needs_ssh
def test_no_forwards_are_none(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("Compression yes\n")
    assert not has_forwards(resolved(tmp_path / "users"))
