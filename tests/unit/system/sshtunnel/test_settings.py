"""What ssh_config says is taken whole, or refused with the engine that can honour it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sshvpn.errors import ConfigError, UsageError
from sshvpn.model import (
    Destination,
    Direction,
    ForwardProfile,
    ForwardSpec,
    TcpEndpoint,
    UnixEndpoint,
)
from sshvpn.system.sshtunnel.settings import Settings, refuse_specs, settings_of
from sshvpn.system.sshtunnel.transport import HOST_KEYS, algorithms

HOME = Path("/home/alice")
BASE = {"host": ("box",), "hostname": ("box.example",), "port": ("2222",), "user": ("bob",)}


def read(environment: Mapping[str, str] | None = None, **config: str) -> Settings:
    values = {key.replace("_", "-"): (value,) for key, value in config.items()}
    return settings_of({**BASE, **values}, environment or {}, HOME)


def test_a_host_about_which_nothing_is_said_has_good_defaults() -> None:
    found = read(connecttimeout="none", serveraliveinterval="0")
    assert found.connect_timeout_s == 10
    assert found.alive_interval_s * (found.alive_count + 1) == 9
    assert found.methods == ("publickey", "keyboard-interactive", "password")
    assert (found.agent, found.jumps, found.proxy_command) == (None, (), None)
    assert found.known_hosts == ()


def test_what_the_user_chose_is_kept() -> None:
    found = read(connecttimeout="60", serveraliveinterval="7", serveralivecountmax="4")
    assert found.connect_timeout_s == 60
    assert (found.alive_interval_s, found.alive_count) == (7, 4)
    assert read(rekeylimit="1048576 0").rekey_bytes == 1 << 20
    assert read(rekeylimit="0 0").rekey_bytes is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~/.ssh/id", "/home/alice/.ssh/id"),
        ("%d/%r@%h:%p", "/home/alice/bob@box.example:2222"),
        ("/k/%n-100%%", "/k/box-100%"),
        ("${KEYS}/id", "/secrets/id"),
    ],
)
def test_paths_are_made_whole(written: str, expected: str) -> None:
    assert read({"KEYS": "/secrets"}, identityfile=written).identity_files == (expected,)


@pytest.mark.parametrize("written", ["/k/%z", "${NOT_SET}/id"])
def test_a_path_that_cannot_be_made_whole_is_told(written: str) -> None:
    with pytest.raises(ConfigError):
        read(identityfile=written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("none", None),
        ("$OTHER", "/run/other"),
        ("~/agent", "/home/alice/agent"),
    ],
)
def test_the_agent_is_the_one_that_ssh_would_use(written: str, expected: str | None) -> None:
    environment = {"SSH_AUTH_SOCK": "/run/agent", "OTHER": "/run/other"}
    assert read(environment, identityagent=written).agent == expected


def test_a_proxy_command_gets_host_port_and_user() -> None:
    found = read(proxycommand="nc -x proxy %h %p # %r %n 100%%")
    assert found.proxy_command == "nc -x proxy box.example 2222 # bob box 100%"


@pytest.mark.parametrize("key", ["hostname", "user"])
@pytest.mark.parametrize(
    "word", ["a b", "$(id)", "`id`", "a;b", "a'b", 'a"b', "-oX", "a\nb", "a|b"]
)
def test_words_that_a_shell_would_read_never_get_there(key: str, word: str) -> None:
    with pytest.raises(UsageError):
        read(None, proxycommand="nc %h %p", **{key: word})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("proxyusefdpass", "yes"),
        ("pkcs11provider", "/usr/lib/token.so"),
        ("knownhostscommand", "/bin/keys %H"),
        ("revokedhostkeys", "/etc/ssh/revoked"),
        ("preferredauthentications", "gssapi-with-mic"),
    ],
)
def test_what_is_not_honoured_names_the_other_engine(key: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(None, **{key: value})
    assert "--engine openssh" in caught.value.hint
    assert value in caught.value.message


def test_methods_keep_the_users_order_and_leave_out_what_is_switched_off() -> None:
    found = read(
        preferredauthentications="password,gssapi-with-mic,publickey",
        passwordauthentication="yes",
        pubkeyauthentication="true",
    )
    assert found.methods == ("password", "publickey")
    assert read(passwordauthentication="no").methods == ("publickey", "keyboard-interactive")


def profile(direction: Direction, target: TcpEndpoint | UnixEndpoint | None) -> ForwardProfile:
    spec = ForwardSpec(direction, None, 1, target, "SPEC")
    return ForwardProfile("box", "box", Destination("box"), (spec,))


@pytest.mark.parametrize(
    ("direction", "target"),
    [
        (Direction.REMOTE, TcpEndpoint("localhost", 1)),
        (Direction.DYNAMIC, None),
        (Direction.LOCAL, UnixEndpoint("/run/b.sock")),
    ],
)
def test_specs_that_the_library_does_not_carry_are_refused(
    direction: Direction, target: TcpEndpoint | UnixEndpoint | None
) -> None:
    with pytest.raises(UsageError, match="SPEC"):
        refuse_specs(profile(direction, target))
    refuse_specs(profile(Direction.LOCAL, TcpEndpoint("localhost", 1)))


# Algorithms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("aes", [True, False])
def test_gcm_is_first_where_the_cpu_has_aes(monkeypatch: pytest.MonkeyPatch, *, aes: bool) -> None:
    monkeypatch.setattr("sshvpn.system.sshtunnel.transport.has_aes", lambda: aes)
    first = algorithms(read())["_preferred_ciphers"][0]
    assert ("gcm" in first) is aes


def test_what_openssh_no_longer_offers_is_not_offered() -> None:
    names = [name for names in algorithms(read()).values() for name in names]
    assert not [name for name in names if "cbc" in name or "md5" in name or "sha1" in name]


def test_chosen_algorithms_keep_their_order() -> None:
    found = algorithms(
        read(
            ciphers="chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr",
            default_ciphers="aes128-ctr",
            kexalgorithms="curve25519-sha256",
            hostkeyalgorithms="ssh-dss,rsa-sha2-512,ssh-ed25519",
        )
    )
    assert found["_preferred_ciphers"] == ("aes256-ctr", "aes128-ctr")
    assert found["_preferred_kex"] == ("curve25519-sha256@libssh.org",)
    assert found[HOST_KEYS] == ("rsa-sha2-512", "ssh-ed25519")


def test_a_choice_of_which_the_library_has_nothing_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        algorithms(read(ciphers="chacha20-poly1305@openssh.com", default_ciphers="aes128-ctr"))
    assert "--engine openssh" in caught.value.hint
