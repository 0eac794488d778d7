"""Which networks around this machine are shared with: the trust in each, and who is asked.

Both kinds of session use it. It remembers nothing itself; a network that is not trusted is
told of, and is shared with as soon as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from sshvpn.boundary import Interfaces, Prompter, TrustStore
from sshvpn.model import InterfaceAddress, LanNetwork

log = logging.getLogger("sshvpn.sharing")


class LanSharing:
    """The LAN as one session may share it.

    ``only`` are adapters (``--lan-interface``): then these are the LAN, whatever their kind.
    ``untrusted`` are the networks that the last look found and may not be shared with.
    """

    def __init__(
        self, interfaces: Interfaces, trust: TrustStore, *, only: Sequence[str] = ()
    ) -> None:
        self._interfaces = interfaces
        self._trust = trust
        self._only = tuple(only)
        self.untrusted: tuple[LanNetwork, ...] = ()

    def limit(self, only: Sequence[str]) -> None:
        """Let these adapters be the LAN from now on; none: those that are one by their kind."""
        self._only = tuple(only)

    def addresses(self) -> Sequence[InterfaceAddress]:
        """Return our addresses on the LAN, on networks that are not trusted too."""
        if not self._only:
            return self._interfaces.lan()
        return [found for name in self._only for found in self._interfaces.addresses(name)]

    async def settle(self, prompter: Prompter | None, *, trusts: bool) -> None:
        """Trust the networks that are there now, where ``trusts`` says so or a person does.

        A person is asked once an adapter; ``prompter`` None: nobody is there.
        """
        unknown: dict[str, list[LanNetwork]] = {}
        for address in await asyncio.to_thread(self.addresses):
            network = await asyncio.to_thread(self._interfaces.network_of, address)
            if not self._trust.is_trusted(network):
                unknown.setdefault(network.interface, []).append(network)
        for networks in unknown.values():
            if not trusts and not await _agrees(prompter, networks):
                continue
            for network in dict.fromkeys(networks):
                self._trust.remember(network)
                log.info("sharing is trusted on %s", network)

    def look(self) -> tuple[list[InterfaceAddress], list[LanNetwork]]:
        """Return our addresses on trusted networks, and the networks newly found untrusted.

        May take 1.3 s for each router that has not been spoken to; not for the event loop.
        """
        shareable: list[InterfaceAddress] = []
        untrusted: list[LanNetwork] = []
        for address in self.addresses():
            network = self._interfaces.network_of(address)
            if self._trust.is_trusted(network):
                shareable.append(address)
            else:
                untrusted.append(network)
        before, self.untrusted = self.untrusted, tuple(dict.fromkeys(untrusted))
        return shareable, [network for network in self.untrusted if network not in before]


def tell_untrusted(networks: Iterable[LanNetwork], command: str) -> None:
    """Log that ``networks`` are not shared with, and that ``command`` trusts them."""
    for network in networks:
        log.warning("not shared on %s: not a trusted network (%s trusts it)", network, command)


async def _agrees(prompter: Prompter | None, networks: Sequence[LanNetwork]) -> bool:
    """Ask about the networks of one adapter, which has one for each family at least."""
    if prompter is None:
        return False
    prefixes = dict.fromkeys(network.prefix for network in networks[:-1])
    which = " and ".join([*prefixes, str(networks[-1])])
    answer = await prompter.ask(f"Share with the machines of {which}? [y/N] ", echo=True)
    return (answer or "").strip().lower() in ("y", "yes")
