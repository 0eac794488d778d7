"""Protocols for all that is outside: what the capabilities may ask of the world.

The real things live in ``system/`` and ``lan/``; tests put fakes in their place, and one
contract suite runs over both. Nothing here does anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line passes by here too: plans take a while to import
    import asyncio
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from sshvpn.errors import SshvpnError
    from sshvpn.model import (
        Endpoint,
        ForwardProfile,
        InterfaceAddress,
        LanNetwork,
        Listener,
        TcpCounters,
        TcpEndpoint,
        TcpPath,
        Traffic,
        TunnelProfile,
    )
    from sshvpn.plan.request import Bypass, Facts
    from sshvpn.plan.state import NetworkState
    from sshvpn.plan.steps import Step
    from sshvpn.remote import protocol


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


class RemoteCommand(Protocol):
    """A command that runs at the server. What it writes to its stderr is not heard."""

    async def write(self, data: bytes) -> None:
        """Send ``data`` to its standard input; nothing happens where it has ended."""
        ...

    async def read_line(self) -> str | None:
        """Return its next line, None at the end. A line that is too long ends it, too."""
        ...

    async def close(self) -> None:
        """End its input, and hear no more. Twice is fine."""
        ...


class WebClient(Protocol):
    """Asks web servers that can be reached from this machine."""

    async def status(self, url: str, host: str | None, headers: Mapping[str, str]) -> int | None:
        """Return the status of a GET of ``url``, None where nobody answers like a web server.

        ``host`` is the Host that is asked for, where that is not the URL's own. A certificate is
        not looked at: whoever answers came by our own listener.
        """
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

    async def run(self, command: str) -> RemoteCommand:
        """Start ``command`` at the server, by the login's shell. Raises an SshvpnError."""
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

    async def tune(self, profile: ForwardProfile) -> TcpPath:
        """Make the TCP connection under it fit for long and lossy paths; return what it got.

        Takes some seconds at most, and never fails: what cannot be had is in the notes.
        """
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


class LocalEnd(Protocol):
    """This machine's end of one tunnel, changed by the privileged helper.

    When this process ends, however it does, all that it put into the kernel goes.
    """

    async def open(self) -> int:
        """Return the tunnel's unit (sshvpn.plan.marks), its own for as long as it lives.

        What an earlier one has left is swept. It comes before all else, and again is fine. Raises
        TakenError where the tunnel is up.
        """
        ...

    async def facts(self) -> Facts:
        """Return what this machine is like."""
        ...

    async def read(self) -> NetworkState:
        """Return what the tunnel has in the kernel now."""
        ...

    async def apply(self, steps: Sequence[Step]) -> None:
        """Make the steps, all or none. Raises an SshvpnError that names the one that failed."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield at the start, and after changes of the firewall, a rule, a setting (coalesced).

        Not after those of another tunnel's alone.
        """
        ...

    async def bypass(self) -> Bypass:
        """Let this process and all that it starts go around a default route; return how.

        Raises PrivilegeError where that cannot be.
        """
        ...

    async def pace(self, sock: socket.socket, name: str) -> None:
        """Let a TCP socket be paced by the congestion control ``name``, as root may.

        Raises PrivilegeError where the kernel has none of that name.
        """
        ...

    async def wait_gone(self) -> SshvpnError:
        """Wait until nothing can be changed any more, only removed by close(); return why."""
        ...

    async def close(self) -> Sequence[str]:
        """Remove all, and return what could not be removed; twice is fine."""
        ...


class LocalView(Protocol):
    """This machine as it would be for a tunnel; nothing is changed."""

    async def unit(self) -> int:
        """Return the unit that it would get. Raises TakenError where it is up."""
        ...

    async def facts(self) -> Facts:
        """Return what this machine is like."""
        ...

    async def bypass(self) -> Bypass:
        """Return how ssh would go around a default route.

        Raises PrivilegeError where it surely could not.
        """
        ...


class TunnelConnection(Protocol):
    """One SSH connection that carries packets, with the agent at its other end."""

    @property
    def facts(self) -> protocol.Facts | None:
        """What the agent found at the server; None where the login runs no agent."""
        ...

    async def configure(self, end: protocol.RemoteEnd) -> None:
        """Let the agent make the server's end what ``end`` says, and wait until it stands.

        May be called again. Raises an SshvpnError.
        """
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield when something at the server may have undone what was configured."""
        ...

    async def open_listener(self, listener: Listener) -> Endpoint:
        """As :meth:`Connection.open_listener`, over the same connection."""
        ...

    async def close_listener(self, listener: Listener) -> None:
        """As :meth:`Connection.close_listener`."""
        ...

    async def wait_closed(self) -> SshvpnError:
        """Wait until the connection, or the agent, has ended, and return why."""
        ...

    async def close(self, *, is_lost: bool = False) -> None:
        """End it. The agent is asked to undo what it did, and waited for; twice is fine.

        ``is_lost``: nothing crosses it any more, so nothing is said, and nobody waited for.
        """
        ...

    async def tune(
        self, profile: TunnelProfile, pace: Callable[[socket.socket, str], Awaitable[None]]
    ) -> TcpPath:
        """Make the TCP connection under it fit for long and lossy paths; return what it got.

        ``pace`` is :meth:`LocalEnd.pace`. Takes some seconds at most, and never fails: what
        cannot be had is in the notes.
        """
        ...

    def counters(self) -> TcpCounters | None:
        """Return what its TCP connection shows; None where it cannot be told, and once it is gone.

        What the server acknowledges counts there: while those bytes grow, it is heard.
        """
        ...


class TunnelCarrier(Protocol):
    """A way to carry packets over SSH: a transport."""

    @property
    def name(self) -> str:
        """The name in ``status --json``: ``w`` or ``stream``."""
        ...

    @property
    def reason(self) -> str:
        """Why it is this one, in a few words."""
        ...

    @property
    def default_mtu(self) -> int:
        """The MTU of the tunnel in bytes, where none is asked for: what goes best."""
        ...

    @property
    def is_guarded(self) -> bool:
        """Whether it dies of IPv4 packets of 20 bytes and fewer, and so needs a guard."""
        ...

    async def check(self, profile: TunnelProfile) -> None:
        """Raise UsageError for what it cannot honour. Makes no connection."""
        ...

    async def peers(self, profile: TunnelProfile) -> Sequence[str]:
        """Return the addresses that the connection is made to, as far as they are known."""
        ...

    async def look(
        self, profile: TunnelProfile, label: str, prompter: Prompter | None
    ) -> protocol.Facts | None:
        """Log in, and return what the server is like; nothing is changed there.

        None where the login runs no agent, and :meth:`connect` would do without. Raises as that.
        """
        ...

    async def connect(
        self,
        profile: TunnelProfile,
        label: str,
        device: asyncio.Future[int],
        prompter: Prompter | None,
    ) -> TunnelConnection:
        """Log in, and return the connection once the agent has told what it found.

        ``device`` is done, with its unit, when this machine's device is there; what it has no
        need of is done meanwhile. Without ``prompter`` nobody is asked. Raises an SshvpnError
        whose class says whether to retry. Cancelled: nothing is left.
        """
        ...

    async def wait_login_possible(self) -> None:
        """As :meth:`ForwardEngine.wait_login_possible`."""
        ...


class Way(Protocol):
    """The way to the server: this machine's own address and adapter, and who answers there.

    Where ssh goes by a proxy of the user's own nothing can be told of it.
    """

    def changes(self) -> AsyncIterator[None]:
        """Yield after the way has become another one, and after the machine has slept."""
        ...

    async def wait_open(self) -> bool:
        """Return True once connections are taken that were not taken before.

        False as soon as it is known that they were taken all along, or that it cannot be told.
        """
        ...

    async def note(self) -> None:
        """Remember the way by which a connection was made just now."""
        ...

    def is_gone(self) -> bool:
        """Whether the way that was noted last has ended here, and there is another one."""
        ...


class Prober(Protocol):
    """Asks the network whether somebody is there."""

    async def round_trip_s(
        self, address: str, source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        """Return how long ``address`` took to answer a packet from ``source``; None: it did not.

        Any answer counts, a refusal too. ``is_sparing``: with one packet where that is enough.
        Needs no privilege.
        """
        ...

    def check_free(self, address: str, port: int) -> None:
        """Raise TakenError where something listens on that TCP port of this machine."""
        ...

    def check_may_listen(self, address: str, port: int) -> None:
        """Raise TakenError as :meth:`check_free`, PrivilegeError where this user may not listen."""
        ...

    async def holder_of(self, interface: str, address: str, quiet: asyncio.Event) -> str | None:
        """Return the MAC of who has ``address`` at ``interface`` (ARP, NDP), None if nobody.

        ``quiet`` is set before, when nobody has answered at once, and nothing speaks for one.
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

    def counters(self, interface: str) -> tuple[int, int] | None:
        """Return the bytes that an adapter has received and sent, None where it is not there."""
        ...

    def changes(self, unit: int | None = None) -> AsyncIterator[None]:
        """Yield once after every change of a link, an address or a route (coalesced).

        With a tunnel's ``unit`` not after those of other tunnels' devices alone.
        """
        ...


class TrustStore(Protocol):
    """The networks that this user has said yes to."""

    def is_trusted(self, network: LanNetwork) -> bool:
        """Whether ``network`` is remembered."""
        ...

    def remember(self, network: LanNetwork) -> None:
        """Remember ``network``; twice changes nothing."""
        ...


class LanServer(Protocol):
    """The process that speaks to the machines of the LAN: names by mDNS, and the portal."""

    async def start(
        self,
        reachable: Callable[[tuple[str, ...], tuple[TcpEndpoint, ...]], None],
        warn: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        """Start it. Raises OSError.

        ``reachable`` is called with its host names and the portal's places when they change,
        ``warn`` with what a person should know, ``ended`` when it has ended by itself.
        """
        ...

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Hand it what is to be told from now on (sshvpn.lan.main)."""
        ...

    async def close(self) -> None:
        """Let it withdraw all, and return when it has ended. Twice is fine."""
        ...


class Manager(Protocol):
    """The service manager that started this process: sd_notify(3)."""

    @property
    def watchdog_s(self) -> float | None:
        """Within which time it wants to hear of this process, in seconds; None: it does not."""
        ...

    @property
    def hides_owners(self) -> bool:
        """Whether it has put this process where root's files are nobody's, and could let it out."""
        ...

    def say(self, **variables: str) -> None:
        """Tell it ``READY="1"``, ``STATUS=…`` and so on; never blocks, never fails."""
        ...

    def say_reloading(self, status: str) -> None:
        """Tell it that what runs is being made anew; ``READY`` tells that it is done."""
        ...

    def close(self) -> None:
        """Tell nothing more. Twice is fine."""
        ...
