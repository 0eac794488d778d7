"""A profile written as a service's own configuration means the same when it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshvpn.config import parse, render
from sshvpn.config.from_profile import of_profile
from sshvpn.errors import UsageError
from sshvpn.model import (
    Destination,
    Direction,
    ForwardProfile,
    JupyterWay,
    NotebookWish,
    SshOptions,
    TunnelProfile,
)
from sshvpn.spec import parse_destination, parse_dynamic, parse_forward, parse_publish


@pytest.mark.parametrize(
    "host",
    ["gpu", "alice@gpu", "ssh://alice@gpu:2222", "ssh://gpu:22", "fd00::5", "ssh://[fd00::5]:2"],
)
def test_where_to_log_in_stays(host: str) -> None:
    profile = TunnelProfile("office", "an-entry", parse_destination(host), routes=("10.0.0.0/8",))
    read = parse(render(of_profile(profile)), Path("x"))
    assert read.default_host == "office"
    assert read.tunnels["office"].destination == profile.destination
    assert read.tunnels["office"].routes == ("10.0.0.0/8",)


def test_specs_of_all_directions_and_ssh_options_stay() -> None:
    specs = (
        parse_forward("9999:db:5432"),
        parse_forward("8080:3000", Direction.REMOTE),
        parse_dynamic("1080"),
    )
    ssh = SshOptions(
        identity_files=("/home/alice/.ssh/k",), jump="bastion", options=(("Compression", "yes"),)
    )
    profile = ForwardProfile(
        "web", "web", Destination("gpu"), specs, binds=("eth0",), lan=True, ssh=ssh, timeout_s=5
    )
    entry = parse(render(of_profile(profile)), Path("x")).forwards["web"]
    assert entry.specs == specs
    assert (entry.binds, entry.lan, entry.timeout_s) == (("eth0",), True, None)
    assert dict(entry.ssh.options) == {
        "Compression": "yes",
        "IdentityFile": "/home/alice/.ssh/k",
        "ProxyJump": "bastion",
    }


@pytest.mark.parametrize(
    ("name", "section"), [("alice@gpu", "alice-gpu"), ("a:b", "a-b"), ("42", "n42")]
)
def test_a_name_that_no_entry_may_have_is_written_as_one_that_may(name: str, section: str) -> None:
    profile = TunnelProfile(name, "gpu", Destination("gpu"), publish=(parse_publish("8888"),))
    assert list(parse(render(of_profile(profile)), Path("x")).tunnels) == [section]


@pytest.mark.parametrize(
    "ssh",
    [SshOptions(config_file="/x"), SshOptions(identity_files=("/a", "/b"))],
)
def test_what_a_profile_cannot_say_is_refused(ssh: SshOptions) -> None:
    with pytest.raises(UsageError):
        of_profile(TunnelProfile("x", "x", Destination("x"), ssh=ssh))


@pytest.mark.parametrize("port", [None, 7777])
def test_a_notebook_stays_one(port: int | None) -> None:
    has_port = port is not None
    wish = NotebookWish("a dir", JupyterWay.COMMAND, ("uv", "a b"), has_port=has_port)
    profile = ForwardProfile(
        name="thesis",
        host="gpu",
        destination=parse_destination("alice@gpu"),
        specs=(parse_forward(f"{port or 9999}:8888"),),
        binds=("localhost",),
        lan=True,
        notebook=wish,
    )
    read = parse(render(of_profile(profile)), Path("x"))
    assert read.default_host == "thesis"
    notebook = read.notebooks["thesis"]
    assert (notebook.wish, notebook.port, notebook.lan) == (wish, port, True)
    assert not read.forwards
