"""A forward that runs: one connection, and the listeners that a profile wants on it.

The session is driven by the supervisor (``bring_up``, ``wait_lost``, ``tear_down``). It never
decides whether to try again; it compares what listens with what is wanted, and follows
adapters that gain and lose addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sshvpn.boundary import Connection, ForwardEngine, Interfaces, Prompter, TrustStore
from sshvpn.errors import AdapterAwayError, PrivilegeError, SshvpnError, TakenError, UsageError
from sshvpn.following import follow
from sshvpn.frozen import dataclass
from sshvpn.listeners import (
    Addresses,
    follows_adapters,
    is_address,
    url_of,
    wanted_listeners,
)
from sshvpn.model import (
    LOOPBACK6,
    Direction,
    Endpoint,
    ForwardProfile,
    InterfaceAddress,
    Listener,
    TcpEndpoint,
    TcpPath,
    Traffic,
)
from sshvpn.odometer import NO_TRAFFIC, Odometer
from sshvpn.path_report import path_record, tell_path
from sshvpn.session import ProfileSession
from sshvpn.sharing import LanSharing, tell_untrusted

log = logging.getLogger("sshvpn.forward")

RETRY_LISTENERS_S = 2.0
"""How often a listener that could not be opened is tried again while the connection stands."""

DRAIN_LOOK_S = 1.0
"""How often is looked whether a connection that takes nothing new has flows yet."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A listener as the connection knows it, and where it listens."""

    listener: Listener
    where: Endpoint


class ForwardSession(ProfileSession[ForwardProfile]):
    """Implements session.Session for ``sshvpn forward``."""

    kind = "forward"
    trusting = "sshvpn forward --lan"
    """The command that trusts a network."""

    def __init__(
        self,
        profile: ForwardProfile,
        engine: ForwardEngine,
        interfaces: Interfaces,
        trust: TrustStore,
    ) -> None:
        super().__init__(profile)
        self.engine = engine
        self._interfaces = interfaces
        self._sharing = LanSharing(interfaces, trust)
        self._connection: Connection | None = None
        self._follower: asyncio.Task[None] | None = None
        self._carried = Odometer()
        self._tuner: asyncio.Task[None] | None = None
        self._path: TcpPath | None = None
        self._ports: dict[int, int] = {}
        self._open: dict[Listener, _Opened] = {}
        self._failed: dict[Listener, SshvpnError] = {}
        self._has_shared = False
        self._drains: set[asyncio.Task[None]] = set()

    def _check_adapters(self, profile: ForwardProfile) -> None:
        refuse_unknown_binds(profile, self._interfaces.names())

    async def _check(self, profile: ForwardProfile) -> None:
        await self.engine.check(profile)

    async def adopt(self, profile: ForwardProfile | None) -> None:
        """Take ``profile`` (None: the same) at the next ``bring_up``; see session.Session.

        Flows that are open stay with the connection that they have, which ends with the last.
        """
        profile = profile or self.profile
        if profile.engine is not self.profile.engine or profile.metrics != self.profile.metrics:
            raise UsageError(
                "the engine and the place of metrics cannot be changed while it is up",
                f"take it down and up again: sshvpn down {self.name}",
            )
        if profile.binds != self.profile.binds:
            self._check_adapters(profile)
        await self._check(profile)
        self._adopted = profile

    def _use(self, profile: ForwardProfile) -> None:
        ports = {self.profile.specs[index]: port for index, port in self._ports.items()}
        self._ports = {
            index: ports[spec] for index, spec in enumerate(profile.specs) if spec in ports
        }
        super()._use(profile)
        self._has_shared = False

    async def bring_up(self, prompter: Prompter | None) -> None:
        """Log in and open the listeners.

        Raises what stopped it, with nothing left open. Where adapters are followed, one
        listener of a SPEC is enough, and the others are tried again.
        """
        self._take_adopted()
        # At the first start only: a reconnect asks nobody.
        if self.profile.lan and not self._has_shared:
            await self.settle_trust(prompter)
        connection = await self.engine.connect(self.profile, prompter)
        self._connection = connection
        try:
            await self._open_listeners(connection)
        except BaseException:
            await self.tear_down()
            raise
        self._has_shared = True
        self._tuner = asyncio.create_task(self._tune(connection))
        self._before = None
        if follows_adapters(self.profile):
            self._follower = asyncio.create_task(self._follow(connection))

    async def _tune(self, connection: Connection) -> None:
        """See to the TCP connection while it is used already."""
        path = await connection.tune(self.profile)
        tell_path(path, self._path)
        self._path = path
        self.on_change()

    async def _open_listeners(self, connection: Connection) -> None:
        """Open all that is wanted; a session of another kind has more to do before and after."""
        await self._reconcile(connection)
        self._judge()

    async def wait_lost(self) -> SshvpnError:
        """Wait for the end of the connection, and return why it ended."""
        if self._connection is None:
            raise RuntimeError("there is no connection to wait for")
        return await self._connection.wait_closed()

    def forsake(self) -> None:
        """Nothing is said at the end of a forward's connection anyhow."""

    def doubt(self) -> None:
        """Nothing is asked here: the engine itself asks the server every few seconds."""

    async def wait_gone(self) -> SshvpnError:
        """Wait for ever: a forward has nothing that somebody else could take from it."""
        never: asyncio.Future[SshvpnError] = asyncio.get_running_loop().create_future()
        return await never

    async def wait_login_possible(self) -> None:
        """Wait until what the last login lacked is back."""
        await self.engine.wait_login_possible()

    async def tear_down(self) -> None:
        """End the connection and its listeners. Nothing there: nothing happens."""
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
            self._follower = None
        if self._tuner is not None:
            self._tuner.cancel()
            await asyncio.gather(self._tuner, return_exceptions=True)
            self._tuner = None
        if self._connection is not None:
            self.traffic()
            connection, self._connection = self._connection, None
            self._carried.end()
            if self._adopted is None:
                await connection.close()
            else:
                await self._retire(connection)
        self._open.clear()
        self._failed.clear()

    async def _retire(self, connection: Connection) -> None:
        """Let ``connection`` take nothing new, and end with the last of its flows."""
        for opened in self._open.values():
            with contextlib.suppress(SshvpnError):
                await connection.close_listener(opened.listener)
        drain = asyncio.create_task(_drain(connection))
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def close(self) -> None:
        """End it for good: a forward has nothing that outlives its connection."""
        self._adopted = None
        await self.tear_down()
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def traffic(self) -> Traffic:
        """Return what its connections have carried."""
        return self._carried.read(self._connection.traffic() if self._connection else NO_TRAFFIC)

    async def settle_trust(self, prompter: Prompter | None) -> None:
        """Trust the LAN that is there now where ``--lan`` says so, or whoever is asked."""
        await self._sharing.settle(prompter, trusts=self.profile.lan_trusts)

    def _shareable(self) -> Sequence[InterfaceAddress]:
        shareable, news = self._sharing.look()
        if self._follower is not None:
            tell_untrusted(news, self.trusting)
        return shareable

    # Listeners --------------------------------------------------------------------------

    def _addresses(self) -> Addresses:
        names = [bind for bind in self.profile.binds if not is_address(bind)]
        loopback6 = any(
            found.address == LOOPBACK6
            for name in self._interfaces.names()
            if name in ("lo", "lo0")
            for found in self._interfaces.addresses(name)
        )
        return Addresses(
            interfaces={name: self._interfaces.addresses(name) for name in names},
            lan=self._shareable() if self.profile.lan else (),
            has_ipv6_loopback=loopback6,
        )

    async def _reconcile(self, connection: Connection) -> bool:
        """Close what is not wanted any more, open what is; return whether anything changed."""
        addresses = await asyncio.to_thread(self._addresses)
        wanted = wanted_listeners(self.profile, addresses, self._ports)
        changed = False
        for listener in [known for known in self._open if known not in wanted]:
            opened = self._open.pop(listener)
            await connection.close_listener(opened.listener)
            log.warning("%s is not listened on any more: the address went", opened.where)
            changed = True
        for gone in [known for known in self._failed if known not in wanted]:
            del self._failed[gone]
        for listener in wanted:
            if self._pinned(listener) not in self._open:
                changed |= await self._try_open(connection, self._pinned(listener))
        return changed

    def _pinned(self, listener: Listener) -> Listener:
        port = self._ports.get(listener.spec)
        if port is None or not isinstance(listener.listen, TcpEndpoint):
            return listener
        return replace(listener, listen=replace(listener.listen, port=port))

    async def _try_open(self, connection: Connection, listener: Listener) -> bool:
        try:
            where = await connection.open_listener(listener)
        except (TakenError, PrivilegeError, UsageError) as error:
            before = self._failed.get(listener)
            self._failed[listener] = error
            # Where no adapter is followed it is raised, and told as the state.
            if self._follower is not None and (before is None or str(before) != str(error)):
                log.warning("%s", error)
            return before is None
        if isinstance(where, TcpEndpoint) and self._asks_for_any_port(listener):
            self._ports[listener.spec] = where.port
        self._failed.pop(listener, None)
        self._open[self._pinned(listener)] = _Opened(listener, where)
        log.info("%s", self._line(listener.spec, where))
        return True

    def _asks_for_any_port(self, listener: Listener) -> bool:
        return self.profile.specs[listener.spec].listen == 0

    def _judge(self) -> None:
        """Raise where a SPEC cannot be served as it was asked for."""
        if not follows_adapters(self.profile):
            for error in self._failed.values():
                raise error
            return
        for index, spec in enumerate(self.profile.specs):
            if any(listener.spec == index for listener in self._open):
                continue
            for listener, error in self._failed.items():
                if listener.spec == index:
                    raise error
            if not self._has_shared:
                raise self._nowhere(spec.text)
        for error in self._failed.values():
            log.warning("%s", error)
        tell_untrusted(self._sharing.untrusted, self.trusting)

    def _nowhere(self, spec: str) -> SshvpnError:
        error = AdapterAwayError if self.is_service else SshvpnError
        if self._sharing.untrusted:
            return error(
                f"{spec} is not shared: {self._sharing.untrusted[0]} is not a trusted network",
                "say --lan on the command line to trust it",
            )
        if self.profile.lan:
            return error(
                f"{spec} is shared with nobody: no adapter of this machine is on a LAN",
                "ip address lists them; --bind ADAPTER takes any of them",
            )
        return error(
            f"{spec} has nowhere to listen: {', '.join(self.profile.binds)} has no address",
            "give the adapter an address, or --bind another",
        )

    async def _follow(self, connection: Connection) -> None:
        """Reconcile after every change of an adapter, and while something is missing."""

        async def reconcile() -> bool:
            try:
                if await self._reconcile(connection):
                    self.on_change()
            except SshvpnError as error:  # the connection goes: wait_lost tells why
                log.debug("listeners not followed: %s", error)
                return False
            return True

        await follow(
            self._interfaces.changes(),
            reconcile=reconcile,
            look_again_s=lambda: (
                RETRY_LISTENERS_S if self._failed or self._sharing.untrusted else None
            ),
            log=log,
        )

    # What is told -----------------------------------------------------------------------

    def _line(self, index: int, where: Endpoint) -> str:
        spec = self.profile.specs[index]
        host = self.profile.host
        if spec.direction is Direction.REMOTE:
            return f"{host} {where} -> {spec.target} here"
        target = "SOCKS" if spec.target is None else str(spec.target)
        return f"{url_of(spec, where)} -> {host} {target}"

    def describe(self) -> list[dict[str, Any]]:
        """Return what ``status --json`` says of each SPEC, as far as the session knows it."""
        records = []
        for index, spec in enumerate(self.profile.specs):
            places = [opened.where for key, opened in self._open.items() if key.spec == index]
            error = next((e for key, e in self._failed.items() if key.spec == index), None)
            if error is None and self._follower is not None and not places:
                error = self._nowhere(spec.text)
            records.append(
                {
                    "name": self.name,
                    "host": self.profile.host,
                    "engine": self.engine.name,
                    "direction": spec.direction.value,
                    "spec": spec.text,
                    "listen": [str(where) for where in places],
                    "target": "socks5" if spec.target is None else str(spec.target),
                    "url": url_of(spec, places[0]) if places else None,
                    "congestion_control": path_record(self._path),
                    "last_error": error.as_record() if error else None,
                }
            )
        return records


def refuse_unknown_binds(profile: ForwardProfile, known: Sequence[str]) -> None:
    """Raise UsageError where an adapter of ``--bind`` is none of those that are ``known``."""
    for bind in profile.binds:
        if not is_address(bind) and bind not in known:
            raise UsageError(
                f"--bind {bind}: not an address, and no adapter of this machine",
                f"there are: {', '.join(known)}",
            )


async def _drain(connection: Connection) -> None:
    closed = asyncio.create_task(connection.wait_closed())
    try:
        while connection.traffic().connections and not closed.done():
            await asyncio.wait({closed}, timeout=DRAIN_LOOK_S)
    finally:
        closed.cancel()
        await connection.close()
