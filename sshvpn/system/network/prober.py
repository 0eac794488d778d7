"""Asks the network whether somebody is there; without privilege."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sshvpn.errors import PrivilegeError, TakenError
from sshvpn.model import TcpEndpoint
from sshvpn.system.network import neighbours
from sshvpn.system.network.local_listener import probe
from sshvpn.system.network.round_trip import Target, round_trip_s

_RESOLVED_WITHIN_S = 3.5
"""Three solicitations, a second apart (mcast_solicit, retrans_time_ms of arp(7)), and some."""
_QUIET_S = 0.3
_CONFIRMED_WITHIN_S = 5.0 + _RESOLVED_WITHIN_S
"""The kernel uses an old entry for delay_first_probe_time before it asks that machine again."""
_ANSWERS_WITHIN_S = 1.0
_LOOK_EVERY_S = 0.05

_TCP_LISTEN = 0x0A


class SystemProber:
    """The real :class:`sshvpn.boundary.Prober`. Holds nothing open between calls."""

    async def round_trip_s(
        self, address: str, source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        """Return how long ``address`` took to answer a packet from ``source``; None: it did not.

        Any answer counts, a refusal too, but not what another host says of it. None before the
        time is over where no answer can come: no route, no such ``source``, unreachable.
        ``is_sparing``: with one packet where that does, which may take a quarter of a second more
        where it does not. Cancelled: nothing is left.
        """
        target = Target(address, source=source, is_sparing=is_sparing)
        return await round_trip_s(target, timeout_s)

    def check_free(self, address: str, port: int) -> None:
        """Raise TakenError where something listens on that TCP port of this machine.

        Privileged ports, too. A listener on every address counts. UsageError for an address of
        another machine.
        """
        try:
            probe(TcpEndpoint(address, port))
        except PrivilegeError:
            if _is_listened_on(address, port):
                raise TakenError(
                    f"port {port} is taken on {address}",
                    f"choose another port, or see who has it: ss -ltnp sport = :{port}",
                ) from None

    def check_may_listen(self, address: str, port: int) -> None:
        """Raise what keeps this user from listening there; see boundary.Prober."""
        probe(TcpEndpoint(address, port))

    async def holder_of(self, interface: str, address: str, quiet: asyncio.Event) -> str | None:
        """Return the MAC of who has ``address`` at ``interface`` (ARP, NDP), None if nobody.

        ``quiet`` is set when the first solicitation has had no answer for 0.3 s: a wire, or a
        radio that is awake, takes a tenth of that. It is not where there is an old entry.

        The kernel resolves it, and leaves an entry in its table, FAILED where nobody answered:
        only the privileged can remove one (RTM_DELNEIGH), and nothing comes of it. Where nobody
        is there that takes the kernel's three solicitations, 3 s.

        An old entry is confirmed first: at once where that machine answers to anything, else by
        the kernel, which takes 8 s to find that it has gone, and then 3 s to ask all others. An
        entry is believed that the kernel itself holds for reachable (confirmed within the last
        half minute or so), and one that an administrator made. An address of this machine's own
        has the adapter's MAC; what it answers for as a proxy it does not hold. An IPv6 address
        is on the link if a route says so.
        """
        wanted = str(ipaddress.ip_address(address))
        try:
            index = socket.if_nametoindex(interface)
        except OSError:
            return None
        own = await asyncio.to_thread(_own_mac, index, wanted)
        if own is not None:
            return own
        neighbours.speak_to(wanted, interface, index)
        started = time.monotonic()
        entry = await asyncio.to_thread(neighbours.find, index, wanted)
        if entry is not None and entry.is_incomplete:
            calm = asyncio.get_running_loop().call_later(_QUIET_S, quiet.set)
            try:
                deadline = started + _RESOLVED_WITHIN_S
                return await _resolved(index, wanted, deadline, is_new=True)
            finally:
                calm.cancel()
        if entry is not None and entry.is_confirmed:
            return entry.mac
        # Old, or there is none: a firewall of this machine may have kept the datagram back.
        zone = f"%{interface}" if ipaddress.ip_address(wanted).is_link_local else ""
        target = Target(wanted + (zone if ":" in wanted else ""), interface=interface)
        if await round_trip_s(target, _ANSWERS_WITHIN_S) is not None:
            entry = await asyncio.to_thread(neighbours.find, index, wanted)
            return entry.mac if entry else None
        deadline = started + _CONFIRMED_WITHIN_S
        mac = await _resolved(index, wanted, deadline, is_new=entry is None)
        if mac is None and entry is not None:
            # The kernel has asked the old machine alone; now that it has failed it asks all.
            neighbours.speak_to(wanted, interface, index)
            deadline = time.monotonic() + _RESOLVED_WITHIN_S
            mac = await _resolved(index, wanted, deadline, is_new=True)
        return mac


async def _resolved(index: int, address: str, deadline: float, *, is_new: bool) -> str | None:
    """Return the MAC once the kernel is sure of it, None once it has given up.

    With ``is_new`` any MAC is one that has been heard since. At the deadline one that is not
    confirmed counts: to take an address that is in use does more harm than to leave a free one.
    """
    while True:
        entry = await asyncio.to_thread(neighbours.find, index, address)
        if entry is None or not (entry.mac or entry.is_incomplete):
            return None
        is_sure = entry.is_confirmed or (is_new and entry.mac is not None)
        if is_sure or time.monotonic() >= deadline:
            return entry.mac
        await asyncio.sleep(_LOOK_EVERY_S)


# rtnetlink(7) ----------------------------------------------------------------------------------


def _own_mac(index: int, address: str) -> str | None:
    """Return the MAC of the adapter ``index`` where this machine itself has ``address``."""
    from sshvpn.system.network import rtnetlink

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The one of a tunnel's two addresses that is here is the local one.
    own = (
        entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        for entry in rtnetlink.addresses(family)
    )
    if address not in own:
        return None
    macs = (link.get_attr("IFLA_ADDRESS") for link in rtnetlink.links() if link["index"] == index)
    return next(macs, None)


# Listeners: proc(5), /proc/net/tcp -----------------------------------------------------------


def _is_listened_on(address: str, port: int) -> bool:
    wanted = ipaddress.ip_address(address)
    return any(
        # The wildcard of IPv6 takes IPv4, too, as a rule; that of IPv4 never IPv6.
        here == wanted or (here.is_unspecified and here.version >= wanted.version)
        for here, at_port in _listeners()
        if at_port == port
    )


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _listeners() -> Iterator[tuple[_Address, int]]:
    """Yield address and port of each TCP listener of this network namespace."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            table = Path(f"/proc/thread-self/net/{name}").read_text("ascii")
            for line in table.splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if int(state, 16) == _TCP_LISTEN:
                    digits, _, port = local.partition(":")
                    yield _address(digits), int(port, 16)


def _address(digits: str) -> _Address:
    """Return an address of these tables: words of 32 bits, each in the machine's own order."""
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    found = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    return getattr(found, "ipv4_mapped", None) or found
