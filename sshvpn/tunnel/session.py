"""A tunnel that runs: its device here, one connection, the server's end, the LAN that is let in.

::

    bring_up    device ── connect ── addresses of both ends ── probe ── the LAN is let in
    running     follows adapters, puts back what is removed of ours, probes while it is quiet
    tear_down   the gate closes, the connection ends; the device and its routes stay (closed)
    close       all goes

The session is driven by the supervisor and never decides whether to try again. What is wanted
of the two ends is decided by sshvpn.ends and sshvpn.plan; here it is compared and applied.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from sshvpn import ends, pulse
from sshvpn.boundary import Prompter, TunnelConnection
from sshvpn.ends import Service, Site
from sshvpn.errors import SshvpnError
from sshvpn.following import follow
from sshvpn.model import InterfaceAddress, TcpPath, Traffic, TunnelProfile
from sshvpn.path_report import tell_path
from sshvpn.plan.request import Facts, TunnelAddresses
from sshvpn.plan.state import Gate
from sshvpn.remote import protocol
from sshvpn.session import ProfileSession
from sshvpn.sharing import tell_untrusted
from sshvpn.tunnel.change import is_the_same, refuse_change, rehearse_change
from sshvpn.tunnel.first_look import first_look, refuse_taken_ports, refuse_unknown_adapters
from sshvpn.tunnel.lan_address import LanAddress
from sshvpn.tunnel.life import TunnelLife
from sshvpn.tunnel.listeners import SshListeners
from sshvpn.tunnel.own_end import OwnEnd, Seen
from sshvpn.tunnel.precedence import Precedence
from sshvpn.tunnel.record import Standing, record
from sshvpn.tunnel.surroundings import Identity, Surroundings
from sshvpn.tunnel.telling import tell_remote

log = logging.getLogger("sshvpn.tunnel")

LOOK_AGAIN_S = 2.0
"""How often is looked again while a network waits for its trust, or something cannot be mended."""


class TunnelSession(ProfileSession[TunnelProfile]):
    """Implements session.Session for ``sshvpn up``."""

    kind = "tunnel"

    def __init__(
        self,
        profile: TunnelProfile,
        identity: Identity,
        outside: Surroundings,
    ) -> None:
        super().__init__(profile)
        self._identity = identity
        self._local = outside.local
        self._carrier = outside.carrier
        self._interfaces = outside.interfaces
        self._sharing = outside.sharing
        self._prober = outside.prober
        self._own = OwnEnd(outside.local, identity)
        self._precedence = Precedence()
        self._connection: TunnelConnection | None = None
        self._site: Site | None = None
        self._addresses: TunnelAddresses | None = None
        self._services: tuple[Service, ...] = ()
        self._peers: tuple[str, ...] = ()
        self._remote_end: protocol.RemoteEnd | None = None
        self._is_remote_stale = False
        self._listeners = SshListeners()
        self._gate = Gate.AWAY
        self._path: TcpPath | None = None
        self._life = TunnelLife(outside.prober, self._received)
        self._lan_address = LanAddress(outside.prober)
        self._tasks: list[asyncio.Task[Any]] = []
        self._one_at_a_time = asyncio.Lock()
        self._lost_at: float | None = None
        self._is_lost = False
        self._has_run = False
        self._gives_way = False  # this very profile has run
        self._gave_way = False  # the one before those adopted since had
        self._trouble: str | None = None

    # session.Session --------------------------------------------------------------------

    @property
    def _can_configure(self) -> bool:
        return self._site is not None and self._site.can_configure

    @property
    def _may_share(self) -> bool:
        return self.profile.lan is not False

    async def adopt(self, profile: TunnelProfile | None) -> None:
        """Take ``profile`` (None: the same) at the next ``bring_up``; see session.Session."""
        profile = profile or self.profile
        refuse_change(self.profile, profile)
        if profile.lan_interfaces != self.profile.lan_interfaces:
            self._check_adapters(profile)
        await self._check(profile)
        if self._site and not (self._gives_way and is_the_same(self.profile, profile)):
            rehearse_change(replace(self._site, profile=profile))
        self._adopted = profile

    def go_back(self) -> bool:
        """Take the profile again that was there before; see session.Session."""
        gave_way = self._gave_way
        is_back = super().go_back()
        if is_back:
            self._gives_way = gave_way
        return is_back

    def _use(self, profile: TunnelProfile) -> None:
        if not is_the_same(self.profile, profile):
            self._gave_way, self._gives_way = self._gave_way or self._gives_way, False
        super()._use(profile)
        self._sharing.limit(profile.lan_interfaces)
        self._has_run = False  # what is looked at before the first start is looked at again

    def _check_adapters(self, profile: TunnelProfile) -> None:
        refuse_unknown_adapters(profile, self._interfaces.names())

    async def _check(self, profile: TunnelProfile) -> None:
        await self._carrier.check(profile)

    async def bring_up(self, prompter: Prompter | None) -> None:
        """Log in, configure both ends, prove that a packet crosses, let the LAN in.

        Raises what stopped it; the device stays, closed.
        """
        begun_at = time.monotonic()
        self._take_adopted()
        if self.profile.has_default:
            await self._own.ensure_bypass()
        # None of them needs another one's result, but where the transport does.
        is_new = self._own.state.link is None
        making = asyncio.create_task(
            self._own.ensure_device(self.profile, self._carrier.default_mtu)
        )
        seeing = asyncio.create_task(self._see_here(making)) if is_new else None
        looking = asyncio.create_task(self._first_look())
        tuning: asyncio.Task[TcpPath] | None = None
        try:
            self._connection = await self._connected(making, prompter)
            tuning = asyncio.create_task(self._connection.tune(self.profile, self._local.pace))
            await looking
            if self._may_share and not self._has_run:
                await self._sharing.settle(prompter, trusts=self.profile.lan_trusts)
            # They never go into the tunnel, whatever the routes say.
            self._peers = tuple(await self._carrier.peers(self.profile))
            await self._reconcile(Gate.PROBING, await seeing if seeing else None)
            assert self._addresses is not None  # noqa: S101 (they were just given)
            await self._life.prove(self._addresses)
            self._note_path(await tuning)
            await self._reconcile(Gate.OPEN, as_seen=True)
        except BaseException:
            begun = [task for task in (making, seeing, looking, tuning) if task is not None]
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)
            await self.tear_down()
            raise
        if self._has_run:  # the first one may have waited for a person, or for the way
            self._life.note_made(time.monotonic() - begun_at)
        self._has_run = self._gives_way = True
        self._gave_way, self._before = False, None
        self._tasks = [asyncio.create_task(self._follow(self._connection))]

    async def _see_here(self, device: asyncio.Task[int]) -> Seen:
        await asyncio.shield(device)
        return await self._own.see()

    async def _connected(
        self, device: asyncio.Task[int], prompter: Prompter | None
    ) -> TunnelConnection:
        """Log in while the device is made. Raises what stopped either of them."""
        connecting = asyncio.create_task(
            self._carrier.connect(self.profile, self._identity.remote_label, device, prompter)
        )
        try:
            await asyncio.wait({connecting, device}, return_when=asyncio.FIRST_EXCEPTION)
            if device.done():
                device.result()
            return await connecting
        except BaseException:
            connecting.cancel()
            (made,) = await asyncio.gather(connecting, return_exceptions=True)
            if not isinstance(made, BaseException):
                await made.close()
            raise

    def _note_path(self, path: TcpPath) -> None:
        before, self._path = self._path, path
        tell_path(path, before)

    async def wait_lost(self) -> SshvpnError:
        """Wait until the connection ends, or nothing comes through it, and return why."""
        if self._connection is None:
            raise RuntimeError("there is no connection to wait for")
        closed = asyncio.create_task(self._connection.wait_closed())
        assert self._addresses is not None  # noqa: S101 (a connection that stands has them)
        watching = self._life.watch(
            self._addresses, self._connection, self.profile.keepalive_s or pulse.KEEPALIVE_S
        )
        silent = asyncio.create_task(watching)
        racing = {closed, silent}
        try:
            done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            self.forsake()
            return done.pop().result()
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)

    def forsake(self) -> None:
        """Say nothing more over the connection."""
        self._is_lost = True

    def doubt(self) -> None:
        """Ask at once whether packets still cross."""
        self._life.doubt()

    async def wait_gone(self) -> SshvpnError:
        """Wait until nobody is left who could change this machine's end, and return why."""
        return await self._local.wait_gone()

    async def wait_login_possible(self) -> None:
        """Wait until what the last login lacked is back."""
        await self._carrier.wait_login_possible()

    async def tear_down(self) -> None:
        """Close the gate and end the connection; the device and its routes stay."""
        await self._end_tasks()
        self._gate = Gate.AWAY
        await self._own.close_gate()
        self._listeners.forget()
        self._remote_end = None
        connection, self._connection = self._connection, None
        is_lost, self._is_lost = self._is_lost, False
        if connection is not None:
            self._lost_at = time.time()
            await connection.close(is_lost=is_lost)

    async def close(self) -> None:
        """Remove all. Both ends go at the same time: neither waits for the other."""
        connection, self._connection = self._connection, None
        await self._end_tasks()
        await self._lan_address.close()
        removing = asyncio.create_task(self._own.remove())
        if connection is not None:
            await connection.close()
        await removing
        self._tell_lease(connection)

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell_lease(self, connection: TunnelConnection | None) -> None:
        """Tell when the server's end goes, where it could not be told to."""
        if connection is None and self._lost_at is not None and self._can_configure:
            end = time.strftime("%H:%M", time.localtime(self._lost_at + protocol.DEFAULT_LEASE_S))
            log.warning(
                "the server cannot be reached; what it has of this tunnel goes by itself by %s", end
            )

    def traffic(self) -> Traffic:
        """Return the device's own counters: they go on over reconnects."""
        device = self._own.device
        counters = None if device is None else self._interfaces.counters(device)
        received, sent = counters or (None, None)
        return Traffic(received, sent, connections=None, rtt_s=self._life.rtt_s)

    # Both ends --------------------------------------------------------------------------

    async def _reconcile(
        self, gate: Gate | None = None, seen: Seen | None = None, *, as_seen: bool = False
    ) -> bool:
        """Make both ends what they shall be now; return whether anything had to change.

        ``seen`` is this machine when the device was just made, and is trusted if that was moments
        ago; so is with ``as_seen`` all that was seen the last time.
        """
        async with self._one_at_a_time:
            connection = self._connection
            if connection is None:
                return False
            gate = gate or self._gate
            if seen is not None and not seen.is_recent:
                seen = None
            last = self._site if as_seen else None
            site = last or await self._look(connection, seen.here if seen else None)
            now = self._own.state if last or seen else None
            addresses = self._addresses_for(site)
            services = ends.services_of(site)
            before = (self._own.state, self._remote_end, tuple(self._listeners.open))
            if not self._has_run:
                refuse_taken_ports(site, services, self._prober)
            plan = ends.local_plan(site, addresses, services, gate)
            wanted = self._precedence.desired(plan, site.local, has_run=self._gives_way)
            remote = self._precedence.remote_end(site, addresses, services, has_run=self._gives_way)
            is_stale, self._is_remote_stale = self._is_remote_stale, False
            if site.can_configure and (is_stale or remote != self._remote_end):
                # Both at once: neither end needs the other's for its own.
                await asyncio.gather(self._own.apply(wanted, now), connection.configure(remote))
                self._remote_end = remote
                tell_remote(site, remote, self._identity.remote_label)
            else:
                await self._own.apply(wanted, now)
            self._site, self._addresses, self._services = site, addresses, services
            self._gate = gate
            if gate is Gate.OPEN:
                await self._listeners.reconcile(connection, site, services)
            return before != (self._own.state, self._remote_end, tuple(self._listeners.open))

    async def _look(self, connection: TunnelConnection, here: Facts | None = None) -> Site:
        shared: Sequence[InterfaceAddress] = ()
        if self._may_share:
            shared, news = await asyncio.to_thread(self._sharing.look)
            tell_untrusted(news, f"sshvpn up {self.name} --lan")
        return Site(
            profile=self._lan_address.granted(self.profile),
            label=self._identity.label,
            unit=await self._local.open(),
            owner=self._identity.owner,
            local=here or await self._local.facts(),
            remote=connection.facts,
            shared=tuple(shared),
            peers=self._peers,
            bypass=self._own.bypass,
            default_mtu=self._carrier.default_mtu,
            is_guarded=self._carrier.is_guarded,
        )

    def _addresses_for(self, site: Site) -> TunnelAddresses:
        """Return the addresses: while a connection stands they stay what they are."""
        if self._remote_end is not None and self._addresses is not None:
            return self._addresses
        return ends.choose_addresses(site)

    # What is published ------------------------------------------------------------------

    async def _first_look(self) -> None:
        if not self._has_run:
            await first_look(self.profile, self._sharing, self._lan_address, waits=self.is_service)

    # Life -------------------------------------------------------------------------------

    def _received(self) -> int:
        return self.traffic().rx_bytes or 0

    async def _follow(self, connection: TunnelConnection) -> None:
        """Reconcile after every change of an adapter, an address, a route or the firewall."""
        await follow(
            self._interfaces.changes(self._own.unit),
            self._local.changes(),
            self._lan_address.changes(),
            self._remote_changes(connection),
            reconcile=self._reconcile_again,
            look_again_s=lambda: LOOK_AGAIN_S if self._sharing.untrusted or self._trouble else None,
            log=log,
            at_once=True,  # whatever has changed since the last look
        )

    async def _reconcile_again(self) -> bool:
        before, self._trouble = self._trouble, None
        try:
            if await self._reconcile():
                self.on_change()
        except SshvpnError as error:
            self._trouble = str(error)
            if self._trouble != before:
                log.warning("%s", error)
        return True

    async def _remote_changes(self, connection: TunnelConnection) -> AsyncIterator[None]:
        async for _ in connection.changes():
            self._is_remote_stale = True
            yield

    # What is told -----------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Return the record of ``status --json``, without what the supervisor adds."""
        traffic = self.traffic()
        standing = Standing(
            device=self._own.device,
            site=self._site,
            addresses=self._addresses,
            services=self._services,
            routes=frozenset(r.prefix for r in self._own.state.routes if r.device is not None),
            listeners=self._listeners.open,
            rtt_s=self._life.rtt_s,
            received=traffic.rx_bytes,
            sent=traffic.tx_bytes,
            path=self._path,
        )
        told = record(self.profile, self._carrier.name, standing, self._carrier.reason)
        lost = self._lan_address.lost
        return [{**told, "last_error": lost.as_record() if lost else None}]
