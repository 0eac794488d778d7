"""Pure parsers of the forwards of a command line: SPEC, and the listener of ``-D``.

Grammar (cli.md "Forward SPEC"; ``ssh -L`` in ssh(1) is its elder)::

    SPEC    = [[BIND ":"] PORT ":"] TARGET     local or remote listener on TCP
            | SOCKET ":" TARGET                listener on a unix socket
            | PORT                             the same port on both sides
    TARGET  = [HOST ":"] PORT | SOCKET         without HOST: localhost
    BIND    = IPV4 | "[" IPV6 ["%" ZONE] "]" | "localhost" | "*" | ""

A name before a single port is never taken for a bind address, so that ``gpu-box:8888`` is a
mistake that gets an answer, not a guess. Nothing here looks at the world; every mistake is a
UsageError with the nearest right form as its hint. Nothing parsed begins with ``-`` or holds
a character that ssh or a shell would read as more than text.
"""

from __future__ import annotations

import re

from sshvpn.errors import UsageError
from sshvpn.model import LOOPBACK4, Direction, Endpoint, ForwardSpec, TcpEndpoint, UnixEndpoint
from sshvpn.spec.words import (
    HOST_NAME_MAX,
    PORT_DIGITS,
    ascii_form,
    has_ipv4_shape,
    ipv4,
    ipv6,
    is_name,
    is_number,
    parse_port,
    quoted,
    shown,
)

LOCALHOST = "localhost"
EVERY_ADDRESS = "*"
UNIX_PATH_MAX_BYTES = 107
"""``sun_path`` is 108 bytes with its NUL (unix(7))."""

# ":" parts a SPEC; ssh expands "%" and "$" in a socket's path, and reads "\", "[" and quotes.
_NOT_IN_PATH = set(":%$\\[]\"'`")


def parse_forward(text: str, direction: Direction = Direction.LOCAL) -> ForwardSpec:
    """Return the SPEC ``text``, for ``-L`` or (REMOTE) ``-R``. Raises UsageError.

    In the remote direction the shapes are the same: the listener is the server's, the target
    is seen from here.
    """
    parts = _split(text)
    match parts:
        case [word]:
            return _same_port(word, direction)
        case [path, *target] if path.startswith("/"):
            socket = UnixEndpoint(_unix_path(path, text))
            return ForwardSpec(direction, None, socket, _target(target, text), text)
        case [bind, port] if _is_bind(bind):
            raise _bind_and_one_port(text, _bind(bind, text), port)
        case [bind, port, *target] if _is_bind(bind):
            address, number = _bind(bind, text), parse_port(port, "the listening port", least=0)
            return ForwardSpec(direction, address, number, _target(target, text), text)
        case [port, *target] if is_number(port):
            number = parse_port(port, "the listening port", least=0)
            return ForwardSpec(direction, None, number, _target(target, text), text)
    raise _begins_with_name(text, parts[0], ":".join(parts[1:]))


def parse_publish(text: str) -> ForwardSpec:
    """Return ``[BIND:][PORT:][HOST:]PORT`` of ``--publish``. Raises UsageError.

    As a SPEC of TCP; and ``HOST:PORT``, which is the same port on both sides.
    """
    match _split(text):
        case [host, port] if is_name(host) and not (is_number(host) or has_ipv4_shape(host)):
            target = TcpEndpoint(_target_host(host, text), parse_port(port, "the target port"))
            return ForwardSpec(Direction.LOCAL, None, target.port, target, text)
    spec = parse_forward(text)
    if isinstance(spec.listen, UnixEndpoint) or isinstance(spec.target, UnixEndpoint):
        raise UsageError(f"{quoted(text)} names a unix socket", "a published service has a port")
    return spec


def parse_dynamic(text: str) -> ForwardSpec:
    """Return the SOCKS listener ``[BIND:]PORT`` of ``-D``. Raises UsageError."""
    bind, port = _bind_and_port(
        text, "-D", "[BIND:]PORT", "-D 1080 or -D 127.0.0.1:1080", ", or leave it to --bind {}"
    )
    return ForwardSpec(Direction.DYNAMIC, bind, port, None, text)


def parse_address_port(text: str) -> TcpEndpoint:
    """Return the listener ``[ADDRESS:]PORT``: on loopback where no address is said.

    ``*`` is every address. Raises UsageError.
    """
    bind, port = _bind_and_port(text, "the listener", "[ADDRESS:]PORT", "127.0.0.1:9100")
    return TcpEndpoint(LOOPBACK4 if bind is None else bind, port)


def _bind_and_port(
    text: str, what: str, form: str, example: str, for_a_name: str = ""
) -> tuple[str | None, int]:
    match _split(text) if text else ():
        case [port] if is_number(port):
            bind = None
        case [address, port] if _is_bind(address):
            bind = _bind(address, text)
        case [name, port] if is_name(name) and is_number(port):
            raise UsageError(
                f"{what} {quoted(text)}: {quoted(name)} is no IP address to listen on",
                f"write an address, like {example}{for_a_name.format(shown(name))}",
            )
        case _:
            raise UsageError(f"{what} {quoted(text)} is not {form}", f"for example {example}")
    return bind, parse_port(port, "the listening port", least=0)


# The parts of a SPEC ------------------------------------------------------------------------


def _split(text: str) -> list[str]:
    """Split at colons outside of brackets."""
    if not text:
        raise UsageError("an empty SPEC", "write a port, like 8888, or 9999:8888")
    if not text.isprintable() or " " in text:
        raise UsageError(
            f"SPEC {quoted(text)} holds a blank or a control character", "write it without"
        )
    return re.split(r":(?![^\[]*\])", text)


def _same_port(word: str, direction: Direction) -> ForwardSpec:
    """Return the SPEC of one part: the same port on both sides."""
    if word.startswith("/"):
        raise UsageError(
            f"SPEC {quoted(word)} names one socket, and a forward has two ends",
            f"write {shown(word)}:/remote.sock, 9999:{shown(word)} or {shown(word)}:8888",
        )
    if word[0] == "[" and ipv6(word[1:-1]):
        raise UsageError(
            f"{quoted(word)} is no SPEC", f"an IPv6 HOST has no brackets: {word[1:-1]}"
        )
    if not is_number(word):
        raise UsageError(
            f"{quoted(word)} is no SPEC",
            "a SPEC is a port, like 8888, or PORT:PORT, like 9999:8888",
        )
    if not int(word[:PORT_DIGITS]):
        raise UsageError(
            f"SPEC {quoted(word)} names no port of the target",
            "for any free port here write 0:8888, with the target's port behind it",
        )
    port = parse_port(word)
    return ForwardSpec(direction, None, port, TcpEndpoint(LOCALHOST, port), word)


def _is_bind(part: str) -> bool:
    """Whether ``part`` can only be a bind address, good or not."""
    return part in ("", EVERY_ADDRESS, LOCALHOST) or part[0] == "[" or has_ipv4_shape(part)


def _bind(part: str, text: str) -> str:
    if part in ("", EVERY_ADDRESS):
        return EVERY_ADDRESS
    if part == LOCALHOST:
        return LOCALHOST
    return _bracketed(part, text) if part[0] == "[" else _ipv4(part, text)


def _ipv4(part: str, text: str) -> str:
    address = ipv4(part)
    if address is None:
        raise UsageError(
            f"SPEC {quoted(text)}: {quoted(part)} is no IPv4 address",
            "an IPv4 address has four numbers from 0 to 255, like 192.168.1.5",
        )
    return address


def _bracketed(part: str, text: str) -> str:
    address = ipv6(part[1:-1]) if part.endswith("]") else None
    if address is None:
        raise UsageError(
            f"SPEC {quoted(text)}: {quoted(part)} is no IPv6 address",
            "brackets hold an IPv6 address, like [fd00::5]",
        )
    return address


def _target(parts: list[str], text: str) -> Endpoint:
    """Return TARGET: ``PORT``, ``SOCKET`` or ``HOST:PORT``."""
    match parts:
        case [path] if path.startswith("/"):
            return UnixEndpoint(_unix_path(path, text))
        case [""]:
            raise UsageError(f"SPEC {quoted(text)} ends without a target port", "like 9999:8888")
        case [word] if word[0] == "[" or (is_name(word) and not is_number(word)):
            host = _target_host(word, text)
            raise UsageError(
                f"SPEC {quoted(text)}: the target has no port",
                f"write …:{f'[{host}]' if ':' in host else host}:PORT",
            )
        case [port]:
            return TcpEndpoint(LOCALHOST, parse_port(port, "the target port"))
        case [_, path] if path.startswith("/"):
            raise UsageError(
                f"SPEC {quoted(text)}: a unix socket has no host before it",
                f"write PORT:{shown(path)}",
            )
        case [host, port]:
            return TcpEndpoint(_target_host(host, text), parse_port(port, "the target port"))
        case _:
            raise UsageError(
                f"SPEC {quoted(text)} has too many parts",
                "the longest form is BIND:PORT:HOST:PORT; an IPv6 address stands in brackets",
            )


def _target_host(part: str, text: str) -> str:
    if part.startswith("["):
        return _bracketed(part, text)
    if not part:
        raise UsageError(f"SPEC {quoted(text)} has an empty target host", "like 9999:db:5432")
    if has_ipv4_shape(part):
        return _ipv4(part, text)
    if is_number(part.rstrip(".").rpartition(".")[2]):
        # A name never ends in a number: resolvers take 1.2.3 or 8888 for an address.
        raise UsageError(
            f"SPEC {quoted(text)}: {quoted(part)} is no host",
            "like 9999:localhost:8888, or 192.168.1.5:9999:8888 to listen on an address",
        )
    if not is_name(part) or len(part) > HOST_NAME_MAX:
        raise UsageError(
            f"SPEC {quoted(text)}: {quoted(part)} is no host name",
            ascii_form(part)
            or "a host name has letters, digits, '.', '_' and '-', and does not begin with '-'",
        )
    return part


def is_plain_socket(path: str) -> bool:
    """Whether ``path`` is absolute, and no more than text to ssh."""
    return path.startswith("/") and not _has_more_than_text(path)


def _has_more_than_text(path: str) -> bool:
    return any(not c.isprintable() or c == " " or c in _NOT_IN_PATH for c in path)


def _unix_path(part: str, text: str) -> str:
    if _has_more_than_text(part):
        raise UsageError(
            f"SPEC {quoted(text)}: the path {quoted(part)} holds a character that ssh would read",
            "leave out blanks, quotes and : % $ \\ [ ]",
        )
    if part.endswith("/"):
        raise UsageError(f"SPEC {quoted(text)}: {quoted(part)} is a directory", "name the socket")
    if len(part.encode()) > UNIX_PATH_MAX_BYTES:
        raise UsageError(
            f"SPEC {quoted(text)}: the path is longer than {UNIX_PATH_MAX_BYTES} bytes",
            "the system allows no longer one for a socket",
        )
    return part


# The nearest right form ---------------------------------------------------------------------


def _bind_and_one_port(text: str, bind: str, port: str) -> UsageError:
    message = f"SPEC {quoted(text)} has one port, and an address to listen on wants two"
    if not is_number(port) or len(port) > PORT_DIGITS:
        return UsageError(message, "write BIND:PORT:PORT, like 192.168.1.5:9999:8888")
    address = f"[{bind}]" if ":" in bind else bind
    here = f"to listen there write {address}:{port}:{port}"
    if bind == EVERY_ADDRESS:
        return UsageError(message, here)
    return UsageError(message, f"{here}; to reach it from the server {port}:{address}:{port}")


def _begins_with_name(text: str, name: str, spec: str) -> UsageError:
    two_words = f"write sshvpn forward {shown(name)} {shown(spec)}"
    if "@" in name:
        login = f" (ssh's own port: ssh://{shown(name)}:{spec})" if is_number(spec) else ""
        return UsageError(
            f"{quoted(text)} is no SPEC: HOST and SPEC are two words", two_words + login
        )
    if not is_name(name):
        return UsageError(
            f"SPEC {quoted(text)}: {quoted(name)} is neither a port nor an address",
            "a SPEC is like 8888, 9999:8888 or 9999:db.internal:5432",
        )
    if "." in name and is_number(spec):
        return UsageError(
            f"SPEC {quoted(text)} names no listening port",
            f"write {spec}:{name}:{spec}; if {name} is HOST, {two_words}",
        )
    return UsageError(f"{quoted(text)} is no SPEC: HOST and SPEC are two words", two_words)
