"""The names of a session on all shared adapters: one name everywhere, another where it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TypeAlias

from sshvpn.lan.brake import Brake
from sshvpn.lan.link import Announced, Link
from sshvpn.presence import LONGEST_LABEL, Adapter, Presence

log = logging.getLogger("sshvpn.lan")

KINDS = {
    "http": "_http._tcp",
    "https": "_https._tcp",
    "ssh": "_ssh._tcp",
    "postgresql": "_postgresql._tcp",
    "mysql": "_mysql._tcp",
    "mqtt": "_mqtt._tcp",
    "redis": "_redis._tcp",
    "vnc": "_rfb._tcp",
    "rdp": "_rdp._tcp",
}
"""The service name of each scheme (RFC 6335; IANA's registry). Other services have a name only."""
GATEWAY = "-gateway"
"""What is added to the name for this machine's own addresses, where the remote host has one."""

_Key: TypeAlias = tuple[Adapter, str, frozenset[str]]


class Responder:
    """Says what :meth:`show` was given. ``changed`` is called when the names have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._links: dict[_Key, Link] = {}
        self._presence: Presence | None = None
        self._portal_port: int | None = None
        self._number = 1
        self._brake = Brake()
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def label(self) -> str | None:
        """The label that is asked for now: the first, or one with a number."""
        if self._presence is None:
            return None
        return numbered(self._presence.label, self._number)

    @property
    def names(self) -> tuple[str, ...]:
        """The host names that are ours on every adapter, without the dot at the end."""
        links = self._links.values()
        if not links or not all(link.is_claimed.is_set() for link in links):
            return ()
        every = dict.fromkeys(name for link in links for name in link.names)
        return tuple(name.rstrip(".") for name in every)

    async def show(self, presence: Presence | None, portal_port: int | None) -> None:
        """Say this from now on; None withdraws all, and returns when that is said."""
        if presence is None or self._presence is None or presence.label != self._presence.label:
            self._number = 1
        self._presence, self._portal_port = presence, portal_port
        await self._reconcile()

    async def _reconcile(self) -> None:
        async with self._one_at_a_time:
            wanted = dict(self._wanted())
            gone = [self._links.pop(key) for key in [*self._links] if key not in wanted]
            await asyncio.gather(*(link.close() for link in gone))
            for key, names in wanted.items():
                if key not in self._links and (link := self._open(key, names)) is not None:
                    self._links[key] = link
            for (adapter, _, _), link in self._links.items():
                link.show(self._services(adapter))
        self._changed()

    def _wanted(self) -> Iterator[tuple[_Key, dict[str, tuple[str, ...]]]]:
        label = self.label
        if self._presence is None or label is None:
            return
        adapters = self._presence.adapters
        ours = frozenset(host for adapter in adapters for host in adapter.hosts)
        ours |= {a.appears_as for a in adapters if a.appears_as is not None}
        for adapter in adapters:
            yield (adapter, label, ours), names_on(adapter, label)

    def _open(self, key: _Key, names: dict[str, tuple[str, ...]]) -> Link | None:
        adapter, label, ours = key
        try:
            link = Link(
                adapter,
                names,
                ours,
                lambda: self._take_conflict(label),
                not_before=self._not_before,
            )
        except OSError as error:
            log.warning("%s.local is not announced on %s: %s", label, adapter.name, error.strerror)
            return None
        task = asyncio.create_task(self._tell_claim(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return link

    async def _tell_claim(self, link: Link) -> None:
        await link.is_claimed.wait()
        self._changed()

    def _services(self, adapter: Adapter) -> Iterator[Announced]:
        if self._presence is not None and self.label is not None:
            yield from services_on(adapter, self._presence, self.label, self._portal_port)

    # Conflicts --------------------------------------------------------------------------

    def _take_conflict(self, label: str) -> None:
        if label != self.label:
            return  # another adapter has told already
        self._not_before = self._brake.take_conflict(asyncio.get_running_loop().time())
        self._number += 1
        log.warning("%s.local is another machine's name: trying %s.local", label, str(self.label))
        task = asyncio.create_task(self._reconcile())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def numbered(label: str, number: int) -> str:
    """Return the label that comes after ``number - 1`` conflicts: ``gpu-box``, ``gpu-box-2``."""
    tail = "" if number == 1 else f"-{number}"
    return f"{label[: LONGEST_LABEL - len(GATEWAY) - len(tail)].rstrip('-')}{tail}"


def names_on(adapter: Adapter, label: str) -> dict[str, tuple[str, ...]]:
    """Return the host names on ``adapter`` with their addresses.

    The name is the remote host's where that has an address of this network, and this machine's
    addresses have another name there; else the name is at this machine's addresses.
    """
    if adapter.appears_as is None:
        return {f"{label}.local.": adapter.hosts}
    return {
        f"{label}.local.": (adapter.appears_as,),
        f"{label}{GATEWAY}.local.": adapter.hosts,
    }


def services_on(
    adapter: Adapter, presence: Presence, label: str, portal_port: int | None
) -> Iterator[Announced]:
    """Yield what is to be found on ``adapter``: the portal, if there is one, and the services.

    Each is at this machine's name there; what has failed leaves the portal alone.
    """
    host = f"{label}{GATEWAY if adapter.appears_as else ''}.local."
    if portal_port is not None:
        yield Announced(label, KINDS["http"], host, portal_port)
    for service in presence.services:
        kind = KINDS.get(service.scheme)
        ports = {place.port for place in service.places if place.address in adapter.hosts}
        for port in sorted(ports) if kind is not None and not presence.is_over else ():
            yield Announced(f"{label} {port}", str(kind), host, port, service.path)
