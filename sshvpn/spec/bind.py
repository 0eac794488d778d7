"""Pure parsers of what ``--bind`` and its kin name: an address, or an adapter."""

from __future__ import annotations

from sshvpn.errors import UsageError
from sshvpn.spec.words import has_ipv4_shape, ipv4, ipv6, is_name, quoted

INTERFACE_NAME_MAX = 15
"""IFNAMSIZ is 16 with its NUL (netdevice(7))."""


def parse_bind(text: str) -> str:
    """Return what ``--bind`` names: an address in its short form, ``localhost``, ``*``, an adapter.

    Whether there is such an adapter is another question. Raises UsageError.
    """
    if text in ("*", "localhost"):
        return text
    literal = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address = ipv4(literal) or ipv6(literal)
    if address is not None:
        return address
    if ":" in text or has_ipv4_shape(text):
        raise UsageError(
            f"{quoted(text)} is no IP address", "name an address, like 192.168.1.5, or an adapter"
        )
    return parse_interface(text)


def parse_interface(text: str) -> str:
    """Return the name of an adapter: up to 15 letters, digits, ``.``, ``_``, ``-``."""
    if not is_name(text) or len(text) > INTERFACE_NAME_MAX:
        raise UsageError(
            f"{quoted(text)} is no name of an adapter", "names are like eth0; see: ip link"
        )
    return text
