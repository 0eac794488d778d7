"""What a configuration means, and how each mistake in it is told: with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from sshvpn.config import Config, ForwardEntry, TunnelEntry, parse, render
from sshvpn.errors import ConfigError
from sshvpn.model import (
    Destination,
    Direction,
    EngineName,
    SshOptions,
    TcpEndpoint,
    Transport,
)
from sshvpn.spec import parse_dynamic, parse_forward, parse_publish

FILE = Path("/home/alice/.config/sshvpn/config.toml")

CONTRACT = """\
default_host = "gpu-box"

[tunnels.office]                      # sshvpn up office
host = "alice@vpn.example.com"
routes = ["10.20.0.0/16", "fd20::/48"]
exclude = ["10.20.9.0/24"]
lan = true
publish = ["8888", "9999:db.internal:5432"]
transport = "auto"
remote_device = "tun8"                # made by the server's administrator
ssh_options = { ConnectTimeout = "5" }

[forwards.notebook]                   # sshvpn forward notebook
host = "gpu-box"
specs = ["9999:8888"]
bind = ["eth0"]
"""


def test_the_example_of_the_contract_means_what_it_says() -> None:
    config = parse(CONTRACT, FILE)
    office = TunnelEntry(
        name="office",
        host="alice@vpn.example.com",
        destination=Destination("vpn.example.com", "alice"),
        routes=("10.20.0.0/16", "fd20::/48"),
        exclude=("10.20.9.0/24",),
        lan=True,
        publish=(parse_publish("8888"), parse_publish("9999:db.internal:5432")),
        transport=Transport.AUTO,
        remote_device="tun8",
        ssh=SshOptions(options=(("ConnectTimeout", "5"),)),
    )
    notebook = ForwardEntry(
        name="notebook",
        host="gpu-box",
        destination=Destination("gpu-box"),
        specs=(parse_forward("9999:8888"),),
        binds=("eth0",),
    )
    assert config == Config("gpu-box", {"notebook": notebook}, {"office": office}, FILE)


def test_a_forward_can_say_all_that_the_command_line_can() -> None:
    text = """
[forwards."gpu.lab"]
host = "alice@gpu"
specs = ["8888", "0:/run/x.sock"]
remote_specs = ["8080:3000"]
dynamic_specs = ["[::1]:1080"]
bind = ["fd00:0::5", "*"]
lan = true
engine = "openssh"
timeout = 2.5
ssh_options = { Port = 2222, Compression = true }
"""
    entry = parse(text, FILE).forwards["gpu.lab"]
    assert entry == ForwardEntry(
        name="gpu.lab",
        host="alice@gpu",
        destination=Destination("gpu", "alice"),
        specs=(
            parse_forward("8888"),
            parse_forward("0:/run/x.sock"),
            parse_forward("8080:3000", Direction.REMOTE),
            parse_dynamic("[::1]:1080"),
        ),
        binds=("fd00::5", "*"),
        lan=True,
        engine=EngineName.OPENSSH,
        ssh=SshOptions(options=(("Port", "2222"), ("Compression", "yes"))),
        timeout_s=2.5,
    )


def test_a_tunnel_can_say_all_that_the_command_line_can() -> None:
    text = """
[tunnels.all]
host = "ssh://bob@[fd00::5]:2222"
routes = ["default", "10.20.0.7", "fd20:0::/48"]
lan = false
lan_interfaces = ["eth0", "br-lan"]
lan_address = "192.168.1.77"
nat = false
transport = "stream"
streams = 4
mtu = 1400
address = "10.99.0.1/30"
announce = true
portal = 8080
portal_tokens = true
metrics = "[::1]:9100"
timeout = 60
"""
    assert parse(text, FILE).tunnels["all"] == TunnelEntry(
        name="all",
        host="ssh://bob@[fd00::5]:2222",
        destination=Destination("fd00::5", "bob", 2222),
        routes=("default", "10.20.0.7/32", "fd20::/48"),
        lan=False,
        lan_interfaces=("eth0", "br-lan"),
        lan_address="192.168.1.77",
        nat=False,
        transport=Transport.STREAM,
        streams=4,
        mtu=1400,
        address="10.99.0.1/30",
        announce=True,
        portal=8080,
        portal_tokens=True,
        metrics=TcpEndpoint("::1", 9100),
        timeout_s=60.0,
    )


@pytest.mark.parametrize(("word", "port"), [("true", 0), ("false", None), ("80", 80)])
def test_a_portal_is_wanted_or_not_or_on_a_port(word: str, port: int | None) -> None:
    assert parse(tunnel(f"portal = {word}"), FILE).tunnels["a"].portal == port


def test_an_empty_file_says_nothing() -> None:
    assert parse("", FILE) == Config(path=FILE)


def forward(line: str) -> str:
    """Return a good forward with ``line`` as its fourth line."""
    return f'[forwards.a]\nhost = "gpu"\nspecs = ["8888"]\n{line}\n'


def tunnel(line: str) -> str:
    """Return a good tunnel with ``line`` as its third line."""
    return f'[tunnels.a]\nhost = "gpu"\n{line}\n'


MISTAKES = [
    # not TOML
    ("a b", 1, "Expected '='", "TOML"),
    ("\n\nx = ", 3, "Invalid value", "TOML"),
    ("x = 1\nx = 2", 2, "Cannot overwrite", "TOML"),
    ('x = "\n', 1, "Illegal character", "TOML"),
    ("x = 1\n\n[a", 3, "Expected", "TOML"),
    # keys
    ("\ndefaut_host = 1", 2, "defaut_host: there is no such key", "default_host"),
    ("zzz = 1", 1, "there is no such key", "default_host, tunnels, forwards"),
    (forward("engin = 'auto'"), 4, "forwards.a.engin: there is no such key", "engine"),
    (forward("routes = []"), 4, "there is no such key", "it may be: host"),
    (tunnel("route = []"), 3, "tunnels.a.route: there is no such key", "routes"),
    ("[forward.a]\nhost='x'", 1, "forward: there is no such key", "forwards"),
    # names
    ("[forwards.8888]\nhost='x'", 1, "'8888' is no name", "not only digits"),
    ("[forwards.'a b']\nhost='x'", 1, "no name", "letters"),
    ("[forwards.'-x']\nhost='x'", 1, "no name", "letters"),
    ("[forwards.'a@b']\nhost='x'", 1, "no name", "letters"),
    ("[forwards.'a:b']\nhost='x'", 1, "no name", "letters"),
    (f"[forwards.{'a' * 65}]\nhost='x'", 1, "no name", "up to 64"),
    # types
    ("default_host = 1", 1, "expected a string, found a number (1)", ""),
    ("default_host = ['a']", 1, "expected a string, found an array", ""),
    ("default_host = 1979-05-27", 1, "found a date or time", ""),
    ("forwards = 1", 1, "forwards: expected a table, found a number", ""),
    ("[[forwards]]", 1, "forwards: expected a table, found an array", ""),
    ("[forwards]\na = 'gpu'", 2, "forwards.a: expected a table, found a string ('gpu')", ""),
    (forward("lan = 'yes'"), 4, "lan: expected true or false, found a string ('yes')", ""),
    (forward("bind = 'eth0'"), 4, "bind: expected an array", ""),
    (forward("timeout = '5'"), 4, "expected a number of seconds, found a string", ""),
    (forward("timeout = true"), 4, "expected a number of seconds, found true or false", ""),
    (forward("timeout = 0"), 4, "not from 0 to 86400", ""),
    (forward("timeout = nan"), 4, "not from 0 to 86400", ""),
    (forward("timeout = inf"), 4, "not from 0 to 86400", ""),
    (tunnel("mtu = 1400.0"), 3, "expected a whole number, found a number (1400.0)", ""),
    (tunnel("mtu = true"), 3, "expected a whole number, found true or false", ""),
    (tunnel(f"mtu = {'9' * 400}"), 3, "a huge number is not from 576", ""),
    # values
    ('default_host = "-x"', 1, "default_host: HOST '-x'", ""),
    ("[forwards.a]\nspecs = ['8888']", 1, "forwards.a: host is missing", "host ="),
    ("[forwards.a]\nhost = 'gpu'", 1, "nothing to forward", "specs ="),
    ("[forwards.a]\nhost = 'a b'\nspecs = ['1']", 2, "forwards.a.host: HOST 'a b'", "ssh_config"),
    (forward("engine = 'openshh'"), 4, "none of auto, openssh, sshtunnel", "openssh"),
    (forward("bind = [\n'eth0',\n'1.2.3.400',\n]"), 6, "bind[1]: '1.2.3.400' is no IP", "address"),
    (forward("remote_specs = ['gpu:80']"), 4, "remote_specs[0]: 'gpu:80' is no SPEC", "gpu 80"),
    (forward("dynamic_specs = ['x']"), 4, "dynamic_specs[0]:", "1080"),
    (
        forward("dynamic_specs = ['9999', '8888']"),
        4,
        "dynamic_specs[1]: 8888 and 8888 would",
        "port",
    ),
    ("[forwards.a]\nhost='x'\nspecs=[\n'8888',\n'8888']", 5, "a.specs[1]: 8888 and 8888", "port"),
    (
        "[forwards.a]\nhost='x'\nspecs=['1:1', '[::]:1:1']\nbind=['fd00::5']",
        3,
        "same place",
        "port",
    ),
    (forward("engine='sshtunnel'\nremote_specs=['80:80']"), 5, "carry -R 80:80", '"openssh"'),
    (forward("engine='sshtunnel'\ndynamic_specs=['80']"), 5, "carry -D 80", '"openssh"'),
    (tunnel("publish = ['8888', '8888:db:80']"), 3, "publish[1]: 8888 and 8888:db:80", "port"),
    (forward("ssh_options.StrictHostKeyChecking = 'no'"), 4, "host keys are always", "keyscan"),
    (forward("ssh_options.Port = []"), 4, "ssh_options.Port: expected a string", ""),
    (forward('ssh_options.Port = "2\\n3"'), 4, "control character", ""),
    (forward('ssh_options.Port = "2 "'), 4, "blank", ""),
    (forward('ssh_options."Port=2 User" = "x"'), 4, "no option of ssh", ""),
    (forward("ssh_options.Port = -1"), 4, "not from 0", ""),
    (tunnel("routes = ['10.20.0.5/16']"), 3, "bits set behind", "10.20.0.0/16"),
    (tunnel("routes = ['10.20.0.0/33']"), 3, "routes[0]: '10.20.0.0/33' is no network", "fd20"),
    (tunnel("routes = ['10.0.0.0/255.0.0.0']"), 3, "no network", "PREFIX/LENGTH"),
    (tunnel("routes = ['fe80::%eth0/64']"), 3, "no network", "PREFIX/LENGTH"),
    (tunnel("routes = ['0.0.0.0/0']"), 3, "is everything", "write default"),
    (tunnel("routes = ['::/0']"), 3, "is everything", "write default"),
    (tunnel("lan_address = 'eth0'"), 3, "'eth0' is no IP address", "192.168.1.77"),
    (tunnel("lan_address = '127.0.0.1'"), 3, "no address that a machine of a LAN", "free"),
    (tunnel("exclude = ['default']"), 3, "no network", "PREFIX/LENGTH"),
    (tunnel("lan_address = '192.168.1.0/24'"), 3, "is a network", "address alone"),
    (tunnel("lan_interfaces = ['eth0:1']"), 3, "no name of an adapter", "ip link"),
    (tunnel("publish = ['/run/a:80']"), 3, "unix socket", "port"),
    (tunnel("transport = 'v'"), 3, "none of auto, w, stream", ""),
    (tunnel("streams = 0"), 3, "0 is not from 1 to 64", ""),
    (tunnel("mtu = 500"), 3, "500 is not from 576 to 16380", ""),
    (tunnel("mtu = 16384"), 3, "16384 is not from 576 to 16380", ""),
    (tunnel("address = '10.99.0.1'"), 3, "no room for both ends", "/30"),
    (tunnel("portal = 0"), 3, "0 is not from 1 to 65535", ""),
    (tunnel("portal = 'x'"), 3, "expected a whole number, found a string ('x')", ""),
    (tunnel("metrics = 'eth0:9100'"), 3, "no IP address to listen on", "127.0.0.1:9100"),
    (tunnel("remote_device = 'a/b'"), 3, "no name of an adapter", "ip link"),
    # the line is that of the value, wherever it is written
    ("tunnels.a.host = 'gpu'\ntunnels.a.mtu = 1", 2, "tunnels.a.mtu: 1 is not", ""),
    ("tunnels = { a = { host = 'gpu', mtu = 1 } }", 1, "tunnels.a.mtu: 1 is not", ""),
    ('x = """\na\nb"""', 1, "x: there is no such key", ""),
    ("[tunnels.a]\nhost = '''\n-a'''\n", 2, "tunnels.a.host: HOST", ""),
    ('[tunnels]\n\n"a".mtu = 1 #x\n"a".host = \'\'', 4, "a.host: an empty HOST", ""),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES)
def test_a_mistake_is_told_with_its_file_its_line_and_the_way_out(
    text: str, line: int, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert caught.value.message.startswith(f"{FILE}:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_brackets_too_deep_are_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError):
        parse("x = " + "[" * 10000, FILE)


def test_a_number_of_too_many_digits_is_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError):
        parse(f"x = {'9' * 10000}", FILE)


toml_ish = st.lists(
    st.sampled_from(CONTRACT.splitlines(keepends=True))
    | st.sampled_from(
        ["[", "]", "{", "}", '"', "'", '"""', "'''", "=", ".", ",", "\n", "#", "\\", "a", "1", " "]
    )
    | st.text(max_size=5),
    max_size=30,
).map("".join)


@given(st.text() | toml_ish)
@example("[forwards.a]\nhost='a'\nspecs=[[]]")
@example("[forwards.a]\nhost='a'\nspecs=[{}]")
@example("forwards.a.b.c = 1")
@example("[[tunnels.a]]\n[[tunnels.a]]")
@example("\ud800")
@example("x = 1e999")
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        config = parse(text, FILE)
    except ConfigError as error:
        told = error
    else:
        assert parse(render(config), FILE) == config
        return
    assert told.message.startswith(str(FILE))
    assert told.message.isprintable()
    assert told.hint.isprintable()
    assert len(told.message) + len(told.hint) < 1200


options = st.dictionaries(
    st.sampled_from(["User", "Port", "Ciphers"]), st.sampled_from(["a", '"x"'])
)
forwards = st.fixed_dictionaries(
    {"host": st.sampled_from(["gpu", "alice@gpu", "ssh://a@b:1", "::1"]),
     "specs": st.lists(st.sampled_from(["8888", "0:/run/ü", "*:1:2"]), min_size=1, unique=True)},
    optional={"remote_specs": st.lists(st.sampled_from(["1:2"]), unique=True),
              "bind": st.lists(st.sampled_from(["eth0", "fd00::5", "*"])),
              "lan": st.booleans(),
              "engine": st.sampled_from(["auto", "openssh"]),
              "timeout": st.floats(min_value=0.1, max_value=86400) | st.integers(1, 86400),
              "ssh_options": options},
)  # fmt: skip


def toml(value: object) -> str:
    """Write ``value`` as an inline TOML value."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


names = st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True)


@given(st.dictionaries(names, forwards, max_size=3))
def test_what_is_shown_reads_back_as_the_same(profiles: dict[str, object]) -> None:
    config = parse(f"forwards = {toml(profiles)}", FILE)
    assert set(config.forwards) == set(profiles)
    assert parse(render(config), FILE) == config
