"""What all parsers of words share: numbers, addresses, names, and how a message quotes them."""

from __future__ import annotations

import ipaddress
import re

from sshvpn.errors import UsageError

PORT_MAX = 65535
PORT_DIGITS = 5
HOST_NAME_MAX = 253
"""RFC 1035, 2.3.4: 255 octets on the wire, 253 as text."""

_SHOWN = 80
_DIGITS = re.compile(r"[0-9]+\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_IPV4_SHAPE = re.compile(r"[0-9]+(\.[0-9]+){3}\Z")


def shown(text: str) -> str:
    """Return ``text`` for a message, shortened when it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def quoted(text: str) -> str:
    """Return ``text`` in quotes for a message, shortened when it is long."""
    return f"'{shown(text)}'"


def is_number(text: str) -> bool:
    """Whether ``text`` is digits, of ASCII only."""
    return bool(_DIGITS.match(text))


def is_name(text: str) -> bool:
    """Whether ``text`` has the letters of a host name or of an adapter, and no leading ``-``."""
    return bool(_NAME.match(text))


def has_ipv4_shape(text: str) -> bool:
    """Whether ``text`` looks like an IPv4 address, good or not."""
    return bool(_IPV4_SHAPE.match(text))


def ipv6(text: str) -> str | None:
    """Return the IPv6 literal ``text`` (RFC 4291, zone of RFC 4007) in its short form, or None."""
    address, percent, zone = text.partition("%")
    if percent and not is_name(zone):
        return None
    try:
        return str(ipaddress.IPv6Address(address)) + percent + zone
    except ValueError:
        return None


def ipv4(text: str) -> str | None:
    """Return the IPv4 address ``text`` (four decimal parts), or None."""
    try:
        return str(ipaddress.IPv4Address(text)) if has_ipv4_shape(text) else None
    except ValueError:
        return None


def parse_port(text: str, what: str = "port", *, least: int = 1) -> int:
    """Return the TCP port ``text``, ``least`` to 65535; ``what`` names it. Raises UsageError."""
    if not is_number(text):
        raise UsageError(f"{what} {quoted(text)} is not a number", "ports are 1 to 65535")
    if len(text) > PORT_DIGITS or int(text) > PORT_MAX:
        raise UsageError(f"{what} {quoted(text)} is too large", "ports are 1 to 65535")
    if int(text) < least:
        raise UsageError(f"{what} is 0", "ports are 1 to 65535")
    return int(text)


def ascii_form(name: str) -> str:
    """Return the hint for an internationalised name (RFC 3490, ToASCII), or an empty one."""
    if name.isascii():
        return ""
    try:
        return f"write it in its ASCII form: {name.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ""
