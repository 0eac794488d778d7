"""SPEC and ``-D``: every row of cli.md, every mistake with its answer, and any text at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, strategies as st

from sshvpn.errors import UsageError
from sshvpn.model import Direction, Endpoint, ForwardSpec, TcpEndpoint, UnixEndpoint
from sshvpn.spec import parse_address_port, parse_dynamic, parse_forward, parse_publish

LOCAL8888 = TcpEndpoint("localhost", 8888)


def tcp(host: str, port: int) -> TcpEndpoint:
    return TcpEndpoint(host, port)


def unix(path: str) -> UnixEndpoint:
    return UnixEndpoint(path)


FORMS: list[tuple[str, str | None, int | UnixEndpoint, Endpoint]] = [
    # the rows of cli.md
    ("8888", None, 8888, LOCAL8888),
    ("9999:8888", None, 9999, LOCAL8888),
    ("9999:db.internal:5432", None, 9999, tcp("db.internal", 5432)),
    ("192.168.1.5:9999:8888", "192.168.1.5", 9999, LOCAL8888),
    ("192.168.1.5:9999:localhost:8888", "192.168.1.5", 9999, LOCAL8888),
    ("[::1]:9999:localhost:8888", "::1", 9999, LOCAL8888),
    (":9999:localhost:8888", "*", 9999, LOCAL8888),
    ("*:9999:localhost:8888", "*", 9999, LOCAL8888),
    ("0:8888", None, 0, LOCAL8888),
    ("/run/a.sock:/run/b.sock", None, unix("/run/a.sock"), unix("/run/b.sock")),
    ("9999:/run/b.sock", None, 9999, unix("/run/b.sock")),
    ("/run/a.sock:localhost:8888", None, unix("/run/a.sock"), LOCAL8888),
    # the same shapes put together
    ("[::1]:9999:8888", "::1", 9999, LOCAL8888),
    (":9999:8888", "*", 9999, LOCAL8888),
    ("*:9999:8888", "*", 9999, LOCAL8888),
    ("localhost:9999:8888", "localhost", 9999, LOCAL8888),
    ("localhost:9999:db:5432", "localhost", 9999, tcp("db", 5432)),
    ("/run/a.sock:8888", None, unix("/run/a.sock"), LOCAL8888),
    ("192.168.1.5:9999:/run/b.sock", "192.168.1.5", 9999, unix("/run/b.sock")),
    ("*:0:/run/b.sock", "*", 0, unix("/run/b.sock")),
    ("0.0.0.0:9999:8888", "0.0.0.0", 9999, LOCAL8888),
    ("[::]:9999:8888", "::", 9999, LOCAL8888),
    # IPv6, short form, with zone
    ("9999:[fd00::5]:8888", None, 9999, tcp("fd00::5", 8888)),
    ("[fd00:0:0:0:0:0:0:1]:9999:[FD00::5]:8888", "fd00::1", 9999, tcp("fd00::5", 8888)),
    ("[fe80::1%eth0.7]:9999:8888", "fe80::1%eth0.7", 9999, LOCAL8888),
    ("/run/a.sock:[::1]:8888", None, unix("/run/a.sock"), tcp("::1", 8888)),
    # edges
    ("1:65535", None, 1, tcp("localhost", 65535)),
    ("65535", None, 65535, tcp("localhost", 65535)),
    ("9999:10.1.2.3:5432", None, 9999, tcp("10.1.2.3", 5432)),
    ("9999:db.internal.:5432", None, 9999, tcp("db.internal.", 5432)),
    ("9999:my_db-2:5432", None, 9999, tcp("my_db-2", 5432)),
    ("/run/ü.sock:8888", None, unix("/run/ü.sock"), LOCAL8888),
    (f"/{'a' * 106}:8888", None, unix(f"/{'a' * 106}"), LOCAL8888),
]


@pytest.mark.parametrize(("text", "bind", "listen", "target"), FORMS)
@pytest.mark.parametrize("direction", [Direction.LOCAL, Direction.REMOTE])
def test_a_spec_means_what_the_contract_says(
    text: str, bind: str | None, listen: int | UnixEndpoint, target: Endpoint, direction: Direction
) -> None:
    assert parse_forward(text, direction) == ForwardSpec(direction, bind, listen, target, text)


MISTAKES = [
    # HOST and SPEC, the confusions
    ("gpu-box:8888", "two words", "sshvpn forward gpu-box 8888"),
    ("gpu-box:9999:8888", "two words", "sshvpn forward gpu-box 9999:8888"),
    ("gpu.example.com:9999:8888", "two words", "sshvpn forward gpu.example.com 9999:8888"),
    ("alice@gpu:8888", "two words", "ssh://alice@gpu:8888"),
    ("alice@gpu:9999:8888", "two words", "sshvpn forward alice@gpu 9999:8888"),
    ("db.internal:5432", "no listening port", "5432:db.internal:5432"),
    ("192.168.1.5:8888", "wants two", "192.168.1.5:8888:8888"),
    ("192.168.1.5:8888", "wants two", "from the server 8888:192.168.1.5:8888"),
    ("[fd00::5]:8888", "wants two", "[fd00::5]:8888:8888"),
    ("localhost:8888", "wants two", "localhost:8888:8888"),
    (":8888", "wants two", "*:8888:8888"),
    ("*:8888", "wants two", "*:8888:8888"),
    ("[::1]", "no SPEC", "no brackets: ::1"),
    ("localhost", "no SPEC", "9999:8888"),
    # ports
    ("0", "no port of the target", "0:8888"),
    ("9999:0", "target port is 0", "1 to 65535"),
    ("65536", "too large", "1 to 65535"),
    ("9999:65536", "too large", "1 to 65535"),
    ("9" * 5000, "too large", "1 to 65535"),
    ("٣", "no SPEC", "8888"),
    ("9999:٣", "not a number", "1 to 65535"),
    ("9999:+1", "not a number", "1 to 65535"),
    ("9999:-1", "not a number", "1 to 65535"),
    ("-1", "no SPEC", "8888"),
    (" 8888", "blank", "without"),
    ("8888\n", "control", "without"),
    ("9999:8888\x00", "control", "without"),
    ("0x10:8888", "two words", "sshvpn forward"),
    ("9999:http", "no port", "http:PORT"),
    ("9999:", "without a target port", "9999:8888"),
    ("*:9999:", "without a target port", "9999:8888"),
    ("", "empty", "8888"),
    (":", "wants two", "BIND:PORT:PORT"),
    # hosts and addresses
    ("9999:db", "no port", "…:db:PORT"),
    ("9999:[::1]", "no port", "…:[::1]:PORT"),
    ("192.168.1.5:9999::8888", "empty target host", "db"),
    ("9999:-oProxyCommand=x:80", "no host name", "does not begin with '-'"),
    ("9999:$(reboot):80", "no host name", "letters"),
    ("9999:a%h:80", "no host name", "letters"),
    ("9999:bücher.example:80", "no host name", "xn--bcher-kva.example"),
    (f"9999:{'a' * 254}:80", "no host name", "letters"),
    ("9999:ü..x:80", "no host name", "letters"),
    ("9999:8888:7777", "no host", "to listen on an address"),
    ("9999:1.2.3:80", "no host", "localhost"),
    ("9999:1.2.3.256:80", "no IPv4", "0 to 255"),
    ("1.2.3.256:9999:80", "no IPv4", "0 to 255"),
    ("01.2.3.4:9999:80", "no IPv4", "0 to 255"),
    ("[::1:9999:8888", "no IPv6", "[fd00::5]"),
    ("[::g]:9999:8888", "no IPv6", "[fd00::5]"),
    ("[]:9999:8888", "no IPv6", "[fd00::5]"),
    ("[fe80::1%e;h]:9999:8888", "no IPv6", "[fd00::5]"),
    ("[127.0.0.1]:9999:8888", "no IPv6", "[fd00::5]"),
    ("9999:fd00::5:8888", "too many parts", "brackets"),
    ("1.2.3.4:1:a:2:3", "too many parts", "BIND:PORT:HOST:PORT"),
    # sockets
    ("/run/a.sock", "two ends", "/run/a.sock:8888"),
    ("9999:db:/run/b.sock", "no host before it", "PORT:/run/b.sock"),
    ("run/a.sock:8888", "neither a port nor an address", "8888"),
    ("/run/:8888", "directory", "socket"),
    ("/:8888", "directory", "socket"),
    ("/run/%h:8888", "ssh would read", "%"),
    ("/run/${HOME}:8888", "ssh would read", "$"),
    ("9999:/run/a'b", "ssh would read", "quotes"),
    ("/run/[a:b]:8888", "ssh would read", "["),
    (f"/{'a' * 107}:8888", "longer than 107 bytes", "socket"),
    (f"/{'ü' * 54}:8888", "longer than 107 bytes", "socket"),
]


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES)
def test_a_wrong_spec_says_what_is_wrong_and_the_nearest_right_form(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_forward(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "bind", "port"),
    [
        ("1080", None, 1080),
        ("0", None, 0),
        ("127.0.0.1:1080", "127.0.0.1", 1080),
        ("[::1]:1080", "::1", 1080),
        (":1080", "*", 1080),
        ("*:1080", "*", 1080),
        ("localhost:1080", "localhost", 1080),
    ],
)
def test_a_socks_listener_is_a_port_with_or_without_an_address(
    text: str, bind: str | None, port: int
) -> None:
    assert parse_dynamic(text) == ForwardSpec(Direction.DYNAMIC, bind, port, None, text)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("eth0:1080", "no IP address", "--bind eth0"),
        ("1080:localhost:80", "not [BIND:]PORT", "-D 1080"),
        ("/run/socks", "not [BIND:]PORT", "-D 1080"),
        ("*:socks", "not a number", "65535"),
        ("99999", "too large", "65535"),
        ("", "-D '' is not [BIND:]PORT", "-D 1080"),
    ],
)
def test_a_wrong_socks_listener_says_so(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_dynamic(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "bind", "listen", "target"),
    [
        ("8888", None, 8888, LOCAL8888),
        ("9999:8888", None, 9999, LOCAL8888),
        ("db.internal:5432", None, 5432, tcp("db.internal", 5432)),
        ("localhost:8888", None, 8888, LOCAL8888),
        ("9999:db.internal:5432", None, 9999, tcp("db.internal", 5432)),
        ("192.168.1.5:9999:8888", "192.168.1.5", 9999, LOCAL8888),
    ],
)
def test_a_service_is_published_by_a_spec_or_by_host_and_port(
    text: str, bind: str | None, listen: int, target: Endpoint
) -> None:
    assert parse_publish(text) == ForwardSpec(Direction.LOCAL, bind, listen, target, text)


@pytest.mark.parametrize(
    "text", ["", "/run/a:80", "80:/run/a", "192.168.1.5:80", "db:0", "db:http", "-db:80", "1.2:80"]
)
def test_a_service_that_cannot_be_published_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_publish(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:9100", tcp("127.0.0.1", 9100)),
        ("9100", tcp("127.0.0.1", 9100)),
        ("[::1]:9100", tcp("::1", 9100)),
        ("*:9100", tcp("*", 9100)),
        ("localhost:0", tcp("localhost", 0)),
    ],
)
def test_a_listener_is_an_address_and_a_port_or_a_port_of_loopback(
    text: str, endpoint: TcpEndpoint
) -> None:
    assert parse_address_port(text) == endpoint


@pytest.mark.parametrize("text", ["", "eth0:9100", "127.0.0.1", "127.0.0.1:x", "::1:9100"])
def test_what_is_no_listener_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address_port(text)


def rendered(spec: ForwardSpec) -> str:
    """Write ``spec`` in its longest form, from what was understood alone."""
    bind = f"[{spec.bind}]:" if ":" in (spec.bind or "") else f"{spec.bind}:" if spec.bind else ""
    return f"{bind}{spec.listen}" + (f":{spec.target}" if spec.target else "")


def words_of(spec: ForwardSpec) -> list[str]:
    """All text in ``spec`` that comes near ssh's command line."""
    return [
        word
        for end in (spec.bind, spec.listen, spec.target)
        for word in (
            [end]
            if isinstance(end, str)
            else [end.path]
            if isinstance(end, UnixEndpoint)
            else [end.host]
            if isinstance(end, TcpEndpoint)
            else []
        )
    ]


def outcome(parse: Callable[[], ForwardSpec]) -> ForwardSpec | UsageError:
    """Return what ``parse`` returns or the UsageError it raises; anything else is a bug."""
    try:
        return parse()
    except UsageError as error:
        return error


def assert_one_clear_line(error: UsageError) -> None:
    assert error.message.isprintable()
    assert error.hint.isprintable()
    assert len(error.message) + len(error.hint) < 700


pieces = st.sampled_from(
    ["8888", "0", "65535", "65536", "*", "", "localhost", "db.internal", "192.168.1.5", "[::1]",
     "[fe80::1%eth0]", "/run/a.sock", "-x", "a b", "%h", "'", "\n", "٣", "a@b", "1.2.3"]
)  # fmt: skip
spec_like = st.lists(pieces | st.text(max_size=8), min_size=1, max_size=6).map(":".join)


@given(st.text() | spec_like, st.sampled_from([Direction.LOCAL, Direction.REMOTE]))
@example("[", Direction.LOCAL)
@example("]:[", Direction.LOCAL)
@example("[:]", Direction.LOCAL)
@example(":::", Direction.LOCAL)
@example("\ud800:1", Direction.LOCAL)
def test_any_text_is_a_harmless_spec_or_a_usage_error(text: str, direction: Direction) -> None:
    spec = outcome(lambda: parse_forward(text, direction))
    if isinstance(spec, UsageError):
        assert_one_clear_line(spec)
        return
    assert spec.direction is direction
    for word in words_of(spec):
        assert not word.startswith("-")
        assert word.isprintable()
        assert not set(word) & set(" '\"`$\\;|&<>(){}")
    again = parse_forward(rendered(spec), direction)
    assert replace(again, text=text) == spec


@given(st.text() | spec_like)
@example(":\n")
def test_any_text_is_a_harmless_socks_listener_or_a_usage_error(text: str) -> None:
    spec = outcome(lambda: parse_dynamic(text))
    if isinstance(spec, UsageError):
        assert_one_clear_line(spec)
        return
    assert replace(parse_dynamic(rendered(spec)), text=text) == spec
