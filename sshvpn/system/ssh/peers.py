"""Where ssh connects to, as far as it can be told before it does."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from sshvpn.errors import SshvpnError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh.config import Config, resolve
from sshvpn.system.ssh.jump import jumps_of, parse_hop

_DEEPEST = 8
"""Hops that are reached over hops by the configuration itself."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class FirstHop:
    """The first machine that ssh connects to; ``family`` is one of :mod:`socket`'s."""

    host: str
    port: int
    family: socket.AddressFamily


async def first_hop(config: Config, ssh_options: SshOptions) -> FirstHop | None:
    """Return the first machine that ssh connects to.

    That is the host that ``config`` (of ssh_config.resolve()) is about, or with ProxyJump the
    hop that is nearest to us. None for a ProxyCommand, whose way is its own.
    """
    for _ in range(_DEEPEST):
        jumps = jumps_of(config)
        if not jumps:
            break
        hop = parse_hop(jumps[0])
        # Only the file holds for a hop too (ssh(1), -J).
        options = SshOptions(config_file=ssh_options.config_file)
        port = int(hop.port) if hop.port.isdigit() else None
        try:
            config = await resolve(Destination(hop.host, hop.user or None, port), options)
        except SshvpnError:
            return None
    if "proxycommand" in config:
        return None
    family = _FAMILIES.get(config.get("addressfamily", ("any",))[0], socket.AF_UNSPEC)
    return FirstHop(config.get("hostname", ("",))[0], int(config.get("port", ("22",))[0]), family)


async def peers_of(config: Config, ssh_options: SshOptions) -> list[str]:
    """Return the prefixes (of one address each) of the first machine that ssh connects to.

    None for a ProxyCommand, and where a name does not resolve.
    """
    hop = await first_hop(config, ssh_options)
    return [] if hop is None else prefixes_of(await _addresses(hop))


async def _addresses(hop: FirstHop) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(hop.host, None, family=hop.family, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[4][0]) for address in found]


def prefixes_of(addresses: Iterable[str]) -> list[str]:
    """Return ADDRESS/32 or /128 for each that a route can be about, each once."""
    prefixes = []
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not (mapped.is_loopback or mapped.is_link_local):
            prefixes.append(str(ipaddress.ip_network(mapped)))
    return list(dict.fromkeys(prefixes))
