"""What is said by mDNS on one adapter: our host names, then the services at them.

::

    probing ──nobody answers──> claimed ──announced, services registered──> … ──> goodbye
       │  ▲                        │
       │  └──── conflict ──────────┘       (RFC 6762, section 9: probe again)
       └── conflict: whoever owns this is told, and comes again under another name
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zeroconf import DNSIncoming, IPVersion, NonUniqueNameException, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from sshvpn.frozen import dataclass
from sshvpn.lan.host_names import HostNames, Verdict
from sshvpn.lan.multicast import PORT, Multicast, keep_to
from sshvpn.presence import Adapter
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.lan")

_PROBES = 3
_PROBE_EVERY_S = 0.25
_DEFER_S = 1.0
"""RFC 6762, section 8.2: so long waits who lost a simultaneous probe."""
_ANNOUNCE_AGAIN_S = 1.0
"""Section 8.3: twice at least, a second apart."""
_GOODBYES = 3
_GOODBYE_EVERY_S = 0.125
_LONGEST_PATH = 255 - len("path=")
_TELL_AGAIN_S = 0.1
"""At most so often the names are told to all who ask (a neighbour may ask without end)."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A service that is to be found: ``_http._tcp`` and such. ``host`` is the name it is at.

    ``path`` is that of its page, where it is one.
    """

    instance: str
    kind: str
    host: str
    port: int
    path: str = "/"

    @property
    def full_name(self) -> str:
        """Its name in DNS-SD (RFC 6763, 4.1)."""
        return f"{self.instance}.{self.kind}.local."


class Link:
    """Says ``names`` ({name: addresses}) and ``services`` on ``adapter``, until :meth:`close`.

    ``ours`` are all our addresses. ``conflict`` is called once when a name is another's: nothing
    more is said then. ``not_before`` (by the loop's clock) is when the first probe may be sent.
    """

    def __init__(
        self,
        adapter: Adapter,
        names: Mapping[str, tuple[str, ...]],
        ours: frozenset[str],
        conflict: Callable[[], None],
        *,
        not_before: float = 0.0,
    ) -> None:
        self.adapter = adapter
        self.names = dict(names)
        self.is_claimed = asyncio.Event()
        self._host_names = HostNames(names, ours)
        self._conflict = conflict
        self._not_before = not_before
        self._multicast = Multicast(adapter, self._take)
        self._heard = asyncio.Event()
        self._verdict = Verdict.NOTHING
        self._told_at = 0.0
        self._defence: asyncio.TimerHandle | None = None
        self._zeroconf: AsyncZeroconf | None = None
        self._services: dict[Announced, ServiceInfo] = {}
        self._wanted: frozenset[Announced] = frozenset()
        self._changed = asyncio.Event()
        self._has_announced = False
        self._task = asyncio.create_task(self._live())

    def show(self, services: Iterable[Announced]) -> None:
        """Say these services, and no others, once the names are ours."""
        self._wanted = frozenset(services)
        self._changed.set()

    async def close(self) -> None:
        """Withdraw all with goodbyes, and leave. Twice is fine."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        goodbyes = [self._say_goodbye()] if self._has_announced else []
        if self._zeroconf is not None:
            goodbyes.append(self._zeroconf.async_unregister_all_services())
        await asyncio.gather(*goodbyes)
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None
        self.is_claimed.clear()
        self._multicast.close()

    async def _say_goodbye(self) -> None:
        self.is_claimed.clear()
        for number in range(_GOODBYES):
            await asyncio.sleep(_GOODBYE_EVERY_S if number else 0)
            self._send(self._host_names.announcement(goodbye=True))

    async def _live(self) -> None:
        try:
            await self._hold()
        except (OSError, RuntimeError) as error:
            log.warning("nothing is announced on %s any more: %s", self.adapter.name, error)

    async def _hold(self) -> None:
        await self._multicast.open()
        rest_s = max(self._not_before - asyncio.get_running_loop().time(), 0)
        await asyncio.sleep(rest_s + random.uniform(0, _PROBE_EVERY_S))  # noqa: S311 (jitter)
        while await self._claim():
            self.is_claimed.set()
            serving = asyncio.create_task(self._serve())
            try:
                await self._heard.wait()
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
            # Section 9: what is in conflict has to be probed for again.
            self.is_claimed.clear()
            self._heard.clear()
        self._conflict()

    async def _claim(self) -> bool:
        """Probe; return whether the names are ours."""
        sent = 0
        while sent < _PROBES:
            self._heard.clear()
            self._verdict = Verdict.NOTHING
            self._send(self._host_names.probe())
            sent += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await within(_PROBE_EVERY_S, self._heard.wait())
            if self._verdict is Verdict.CONFLICT:
                return False
            if self._verdict is Verdict.WAIT:
                await asyncio.sleep(_DEFER_S)
                sent = 0
        self._heard.clear()
        return True

    async def _serve(self) -> None:
        self._has_announced = True
        self._send(self._host_names.announcement())
        again = asyncio.get_running_loop().call_later(_ANNOUNCE_AGAIN_S, self._announce)
        try:
            while True:
                self._changed.clear()
                try:
                    await self._reconcile()
                except (OSError, RuntimeError) as error:
                    where = self.adapter.name
                    log.warning("the services are not announced on %s: %s", where, error)
                await self._changed.wait()
        finally:
            again.cancel()

    def _announce(self) -> None:
        self._send(self._host_names.announcement())

    async def _reconcile(self) -> None:
        if self._zeroconf is None:
            if not self._wanted:
                return
            self._zeroconf = await _zeroconf_on(self.adapter)
        for gone in [one for one in self._services if one not in self._wanted]:
            await self._zeroconf.async_unregister_service(self._services.pop(gone))
        new = [one for one in self._wanted if one not in self._services]
        await asyncio.gather(*(self._register(self._zeroconf, one) for one in new))

    async def _register(self, zeroconf: AsyncZeroconf, service: Announced) -> None:
        # One string of a TXT record holds 255 bytes (RFC 6763, 6.1).
        path = service.path if len(service.path.encode()) <= _LONGEST_PATH else "/"
        info = ServiceInfo(
            f"{service.kind}.local.",
            service.full_name,
            port=service.port,
            server=service.host,
            properties={"path": path} if "http" in service.kind else {},
            parsed_addresses=list(self.names[service.host]),
        )
        try:
            await zeroconf.async_register_service(info, allow_name_change=True)
        except NonUniqueNameException as error:  # a name of another that nothing makes unique
            log.warning("%s is not announced: %s", service.instance, error)
            return
        self._services[service] = info

    # What is heard ----------------------------------------------------------------------

    def _take(self, packet: bytes, source: tuple[str, int]) -> None:
        message = DNSIncoming(packet)
        if not message.valid:
            return
        is_claimed = self.is_claimed.is_set()
        verdict = self._host_names.judge(message, is_claimed=is_claimed)
        if verdict is Verdict.CONFLICT or (verdict is Verdict.WAIT and not is_claimed):
            self._verdict = verdict
            self._heard.set()
        elif verdict is Verdict.DEFEND:
            self._defend(message, source)

    def _defend(self, message: DNSIncoming, source: tuple[str, int]) -> None:
        if not message.is_query():
            self._announce_soon()
        elif source[1] != PORT:
            for packet in self._host_names.answer(message, is_legacy=True):
                self._multicast.send(packet, source)
        elif (now := asyncio.get_running_loop().time()) >= self._told_at + _TELL_AGAIN_S:
            answer = self._host_names.answer(message, is_legacy=False)
            self._told_at = now if answer else self._told_at
            self._send(answer)

    def _announce_soon(self) -> None:
        """Say it again, but not more often than who asks is answered: anybody may say goodbye."""
        if self._defence is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), self._told_at + _TELL_AGAIN_S)
            self._defence = loop.call_at(at, self._tell_again)

    def _tell_again(self) -> None:
        self._defence = None
        if self.is_claimed.is_set():
            self._told_at = asyncio.get_running_loop().time()
            self._announce()

    def _send(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            self._multicast.send(packet)


async def _zeroconf_on(adapter: Adapter) -> AsyncZeroconf:
    """Return a responder for services that speaks and hears on ``adapter`` alone."""
    interfaces: list[Any] = [*adapter.hosts]
    versions = {ipaddress.ip_address(host).version for host in interfaces}
    version = IPVersion.All
    if len(versions) == 1:
        version = IPVersion.V4Only if versions == {4} else IPVersion.V6Only
    zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=version)
    try:
        await zeroconf.zeroconf.async_wait_for_start()
        # Before anything is registered: what was heard of other adapters until now is not
        # answered, for there is nothing to say.
        for reader in zeroconf.zeroconf.engine.readers:
            keep_to(reader.transport.get_extra_info("socket"), adapter.name)
    except BaseException:
        await zeroconf.async_close()
        raise
    return zeroconf
