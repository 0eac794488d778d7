"""The listeners of ssh itself, for published services that the kernel cannot lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sshvpn import ends
from sshvpn.boundary import TunnelConnection
from sshvpn.ends import Service, Site
from sshvpn.model import LOOPBACK4, Direction, Listener, TcpEndpoint


class SshListeners:
    """What ssh listens on for one tunnel; forgotten, not closed, when its connection has gone."""

    def __init__(self) -> None:
        self._open: dict[Listener, TcpEndpoint] = {}

    @property
    def open(self) -> Mapping[Listener, TcpEndpoint]:
        """The listeners, and where they listen."""
        return dict(self._open)

    def forget(self) -> None:
        """Take it that none is there: the connection has ended."""
        self._open.clear()

    async def reconcile(
        self, connection: TunnelConnection, site: Site, services: Sequence[Service]
    ) -> None:
        """Close what is not wanted any more, open what is. Raises what stopped a listener."""
        wanted = dict.fromkeys(wanted_listeners(site, services))
        for gone in [one for one in self._open if one not in wanted]:
            del self._open[gone]
            await connection.close_listener(gone)
        for listener in wanted:
            if listener not in self._open:
                where = await connection.open_listener(listener)
                if isinstance(where, TcpEndpoint):
                    self._open[listener] = where


def wanted_listeners(site: Site, services: Sequence[Service]) -> Iterator[Listener]:
    """Yield what ssh has to listen on: of ``services`` those without a port at the server's end."""
    for index, service in enumerate(services):
        spec, target = service.spec, service.target
        if service.port is not None or not isinstance(spec.listen, int):
            continue
        places = ends.listen_addresses(spec, site.shared)
        for here in places:
            where = TcpEndpoint(here.address, spec.listen)
            adapter, number = here.interface, here.interface_index
            yield Listener(Direction.LOCAL, where, target, adapter, index, number)
        if not places:
            host = LOOPBACK4 if spec.bind in (None, "*", "localhost") else spec.bind
            where = TcpEndpoint(host, spec.listen)
            yield Listener(Direction.LOCAL, where, target, spec=index)
