"""Where ssh connects to, as far as it can be told before it does."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterable
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh.config import Config, resolve
from sshvpn.system.ssh.jump import jumps_of, parse_hop

RESOLVE_WAIT_S = 1.0
"""How long a name is waited for, where an address is known from before."""
_DEEPEST = 8
"""Hops that are reached over hops by the configuration itself."""
_SCOPE = 3
"""Where the number of the adapter stands in an IPv6 address, and in no other."""
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
    return direct_hop(config)


def direct_hop(config: Config) -> FirstHop | None:
    """Return the host that ``config`` is about, None where ssh does not connect to it itself."""
    if jumps_of(config) or "proxycommand" in config:
        return None
    family = _FAMILIES.get(config.get("addressfamily", ("any",))[0], socket.AF_UNSPEC)
    return FirstHop(config.get("hostname", ("",))[0], int(config.get("port", ("22",))[0]), family)


async def peers_of(
    config: Config, ssh_options: SshOptions, timeout_s: float | None = None
) -> list[str]:
    """Return the prefixes (of one address each) of the first machine that ssh connects to.

    None for a ProxyCommand, and where a name does not resolve within ``timeout_s``.
    """
    hop = await first_hop(config, ssh_options)
    if hop is None:
        return []
    asked = ask_resolver(hop)
    await asyncio.wait({asked}, timeout=timeout_s)
    return prefixes_of(asked.result()) if asked.done() else []


def ask_resolver(hop: FirstHop) -> asyncio.Future[tuple[str, ...]]:
    """Return the addresses of ``hop`` when they are known; none where they cannot be told.

    One that is nothing without its adapter has that behind a ``%``.

    In a thread that nobody waits for: a resolver may take half a minute to give up, and this
    process may want to end before.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

    def tell(found: tuple[str, ...]) -> None:
        if not answer.done():
            answer.set_result(found)

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(hop.host, hop.port, hop.family, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            entries = []
        found = tuple(dict.fromkeys(_written(entry[4]) for entry in entries))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return answer


def _written(place: tuple[Any, ...]) -> str:
    """Return the address of ``place``, of getaddrinfo(3), with the number of its adapter if any."""
    scope = place[_SCOPE] if len(place) > _SCOPE else 0
    return f"{place[0]}%{scope}" if scope else str(place[0])


def prefixes_of(addresses: Iterable[str]) -> list[str]:
    """Return ADDRESS/32 or /128 for each that a route can be about, each once."""
    prefixes = []
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not (mapped.is_loopback or mapped.is_link_local):
            prefixes.append(str(ipaddress.ip_network(mapped)))
    return list(dict.fromkeys(prefixes))
