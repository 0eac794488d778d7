"""Pure parsers of where to log in: HOST, and the chain of ``-J``.

HOST goes to ssh as the last word behind ``--``, and from there through ssh_config's tokens
(``%h``, ``%r``) into ProxyCommand and Match exec, which are shell: so the letters allowed here
are few. A login with other letters gets its name from ``User`` in ssh_config.
"""

from __future__ import annotations

import re

from sshvpn.errors import UsageError
from sshvpn.model import Destination
from sshvpn.spec.words import (
    HOST_NAME_MAX,
    ascii_form,
    ipv6,
    is_number,
    parse_port,
    quoted,
)

SCHEME = "ssh://"
USER_MAX = 255

_IN_HOST = set("._-+")
# A gateway's login may be user@target, a directory's one user@domain.
_IN_USER = _IN_HOST | set("@=")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_host(word: str) -> bool:
    """Whether ``word`` is a HOST by its shape; all else is a SPEC (and an error as one).

    A HOST is ``ssh://…``, an IPv6 literal (with ``user@``, ``%zone``), or has no colon, no
    leading ``/`` and is not all digits. Whether it is a good one is another question.
    """
    if _is_uri(word):
        return True
    if ":" in word:
        return ipv6(word.rpartition("@")[2]) is not None
    return not word.startswith("/") and not is_number(word)


def parse_destination(text: str) -> Destination:
    """Return the HOST ``text``: ``[user@]host``, an alias, or ``ssh://[user@]host[:port]``.

    The user is what stands before the last ``@``. Raises UsageError.
    """
    if not text:
        raise UsageError("an empty HOST", "write user@example.com or an alias of ssh_config")
    if _is_uri(text):
        return _uri(text)
    user, at, host = text.rpartition("@")
    if ":" in host and ipv6(host) is None:
        raise UsageError(
            f"HOST {quoted(text)} holds a colon and is no IPv6 address",
            "a port goes into a URI, ssh://user@example.com:2222; IPv6 has no brackets",
        )
    return Destination(_host(host, text), _user(user, text) if at else None)


def check_jump(text: str) -> str:
    """Return the chain of ``-J`` unchanged: ``none`` or ``[user@]host[:port],…`` or URIs.

    ssh writes it into a ProxyCommand, which is shell (ssh(1), ``-J``). Raises UsageError.
    """
    if text.lower() == "none":
        return text
    for hop in text.split(","):
        if not hop:
            raise UsageError(f"-J {quoted(text)} has an empty hop", "like -J user@bastion:2222")
        place = _uri(hop) if _is_uri(hop) else _authority(hop, hop)
        if "%" in place.host:
            raise UsageError(
                f"-J {quoted(text)}: ssh reads the '%' of a zone as its own",
                "give the hop an alias in ssh_config",
            )
    return text


def check_user(text: str) -> str:
    """Return ``text`` if it can be a user's name in a HOST (``-l``). Raises UsageError."""
    return _user(text, f"{text}@")


def _is_uri(text: str) -> bool:
    return text[: len(SCHEME)].lower() == SCHEME


def _uri(text: str) -> Destination:
    """Parse ``ssh://`` (RFC 3986; draft-ietf-secsh-scp-sftp-ssh-uri), which has no path."""
    authority, _, path = text[len(SCHEME) :].partition("/")
    destination = _authority(authority, text, decode=True)
    if path:
        raise UsageError(f"HOST {quoted(text)} has a path", f"leave out /{path[:40]}")
    return destination


def _authority(authority: str, text: str, *, decode: bool = False) -> Destination:
    """Parse ``[user@]host[:port]``, IPv6 in brackets; ``decode`` percent-decodes the user."""
    user, at, place = authority.rpartition("@")
    if decode and ":" in user:
        raise UsageError(
            f"HOST {quoted(SCHEME + '…@' + place)} holds a password",
            "leave it out: ssh asks for it, or better takes a key",
        )
    if place.startswith("["):
        literal, bracket, rest = place[1:].partition("]")
        # RFC 6874: the zone's percent sign is itself encoded in a URI.
        literal = literal.replace("%25", "%", 1) if decode else literal
        if not bracket or ipv6(literal) is None or not (rest == "" or rest[0] == ":"):
            raise UsageError(f"HOST {quoted(text)}: no IPv6 address stands in the brackets")
        host, port = literal, rest
    else:
        host, colon, number = place.partition(":")
        port = colon + number
    if port == ":":
        raise UsageError(f"HOST {quoted(text)} ends without a port", "leave out the last colon")
    name = _user(_decoded(user, text) if decode else user, text) if at else None
    number_or_none = parse_port(port[1:], "the ssh port") if port else None
    return Destination(_host(host, text), name, number_or_none)


def _decoded(user: str, text: str) -> str:
    from urllib.parse import unquote_to_bytes

    if _BAD_ESCAPE.search(user):
        raise UsageError(f"HOST {quoted(text)}: '%' begins an escape of two hex digits", "like %2B")
    try:
        return unquote_to_bytes(user).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"HOST {quoted(text)}: the user is not UTF-8") from error


def _host(host: str, text: str) -> str:
    if ":" in host and ipv6(host) is not None:
        return host
    if not host:
        raise UsageError(f"HOST {quoted(text)} has no host name", "like user@example.com")
    if host.startswith("-"):
        raise UsageError(f"HOST {quoted(text)}: a host does not begin with '-'")
    _check_letters(host, _IN_HOST, "the host name", text)
    if len(host) > HOST_NAME_MAX:
        raise UsageError(f"HOST {quoted(text)} is longer than {HOST_NAME_MAX} letters")
    if "." in host and not host.isascii():
        # ssh asks the resolver for the bytes as they are, and no name server has those.
        raise UsageError(
            f"HOST {quoted(text)}: ssh finds no name outside ASCII",
            ascii_form(host) or "give it an alias in ssh_config",
        )
    return host


def _user(user: str, text: str) -> str:
    if not user:
        raise UsageError(f"HOST {quoted(text)} has an empty user", "like user@example.com")
    if user.startswith("-"):
        raise UsageError(f"HOST {quoted(text)}: a user does not begin with '-'")
    _check_letters(user, _IN_USER, "the user", text)
    if len(user) > USER_MAX:
        raise UsageError(f"HOST {quoted(text)}: the user is longer than {USER_MAX} letters")
    return user


def _check_letters(word: str, others: set[str], what: str, text: str) -> None:
    """Raise UsageError unless ``word`` is letters and digits (of any script) and ``others``."""
    bad = next((c for c in word if not c.isalnum() and c not in others), None)
    if bad is not None:
        shown = f"'{bad}'" if bad.isprintable() else f"a control character (U+{ord(bad):04X})"
        raise UsageError(
            f"HOST {quoted(text)}: {what} holds {shown}",
            "give it an alias in ssh_config, with HostName and User",
        )
