"""Protocols for all that is outside: what the capabilities may ask of the world.

The real things live in ``system/`` and ``lan/``; tests put fakes in their place, and one
contract suite runs over both. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sshvpn.errors import SshvpnError
from sshvpn.model import (
    Endpoint,
    ForwardProfile,
    InterfaceAddress,
    LanNetwork,
    Listener,
    Traffic,
)


class Prompter(Protocol):
    """Somebody who can be asked: a person at a terminal."""

    def is_there(self) -> bool:
        """Whether there is anybody to ask now."""
        ...

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Return what was typed, or None when nobody is there or the person gave up."""
        ...

    async def tell(self, text: str) -> None:
        """Show a line that wants no answer (touch your security key …)."""
        ...


class Connection(Protocol):
    """One SSH connection that stands, until :meth:`wait_closed` returns."""

    async def open_listener(self, listener: Listener) -> Endpoint:
        """Make ``listener`` listen, and return where (port 0 resolved).

        Raises TakenError, PrivilegeError, ForwardingRefusedError or another SshvpnError; the
        connection lives on.
        """
        ...

    async def close_listener(self, listener: Listener) -> None:
        """Stop listening. What is open lives on. Not there: nothing happens."""
        ...

    async def wait_closed(self) -> SshvpnError:
        """Wait until the connection has ended, and return why."""
        ...

    async def close(self) -> None:
        """End the connection and all its listeners. May be called twice."""
        ...

    def traffic(self) -> Traffic:
        """Return what has been carried so far; never blocks."""
        ...


class ForwardEngine(Protocol):
    """A way to make SSH connections that forward."""

    @property
    def name(self) -> str:
        """The name in ``status --json``: ``openssh`` or ``sshtunnel``."""
        ...

    async def check(self, profile: ForwardProfile) -> None:
        """Raise UsageError, naming the other engine, for what this one cannot honour.

        Makes no connection.
        """
        ...

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> Connection:
        """Log in, and return the connection once it can open listeners.

        Without ``prompter`` nobody is asked: what would need a person is LoginNeededError.
        Raises an SshvpnError whose class says whether to retry. Cancelled: nothing is left.
        """
        ...

    async def wait_login_possible(self) -> None:
        """Return when what the last login lacked is back, an agent with its key.

        For ever where nothing but a person can help.
        """
        ...


class Interfaces(Protocol):
    """The adapters of this machine and their addresses."""

    def names(self) -> Sequence[str]:
        """Return the names of all adapters."""
        ...

    def addresses(self, interface: str) -> Sequence[InterfaceAddress]:
        """Return one adapter's addresses that can be listened on (no link-local); may be none.

        An adapter that is not there has none.
        """
        ...

    def lan(self) -> Sequence[InterfaceAddress]:
        """Return the addresses of the LAN as cli.md defines it, of all its adapters."""
        ...

    def network_of(self, address: InterfaceAddress) -> LanNetwork:
        """Return the network around ``address`` as trust remembers it, router's MAC included."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield once after every change of a link, an address or a route (coalesced)."""
        ...


class TrustStore(Protocol):
    """The networks that this user has said yes to."""

    def is_trusted(self, network: LanNetwork) -> bool:
        """Whether ``network`` is remembered."""
        ...

    def remember(self, network: LanNetwork) -> None:
        """Remember ``network``; twice changes nothing."""
        ...
