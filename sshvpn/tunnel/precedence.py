"""What comes first where a network is on both sides of a tunnel: what each machine has there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from sshvpn import ends
from sshvpn.ends import Service, Site
from sshvpn.errors import TakenError, UsageError
from sshvpn.plan.desired import desired
from sshvpn.plan.request import Facts, TunnelAddresses, TunnelPlan
from sshvpn.plan.state import NetworkState
from sshvpn.remote.protocol import RemoteEnd

log = logging.getLogger("sshvpn.tunnel")


class Precedence:
    """Decides it for one tunnel, and tells of it once.

    At a first start an overlap is an error. One that has run gives way, as long as this machine
    is in such a network: it may have been carried there.
    """

    def __init__(self) -> None:
        self._here = _Told("it is not reached by the tunnel")
        self._there = _Told("the LAN gets no answers through the tunnel")

    def desired(self, plan: TunnelPlan, here: Facts, *, has_run: bool) -> NetworkState:
        """Return the state that ``plan`` wants. Raises as :func:`sshvpn.plan.desired.desired`."""
        try:
            wanted = desired(plan, here)
        except (UsageError, TakenError) as error:
            if not has_run:
                raise
            wanted = desired(replace(plan, gives_way=True), here)
            self._here.tell(str(error))
        else:
            self._here.forget()
        return wanted

    def remote_end(
        self, site: Site, addresses: TunnelAddresses, services: Sequence[Service], *, has_run: bool
    ) -> RemoteEnd:
        """Return what the server's end shall be. Raises as :func:`sshvpn.ends.remote_end`."""
        try:
            wanted = ends.remote_end(site, addresses, services)
        except (UsageError, TakenError) as error:
            if not has_run:
                raise
            wanted = ends.remote_end(site, addresses, services, gives_way=True)
            self._there.tell(str(error))
        else:
            self._there.forget()
        return wanted


class _Told:
    """What was told last of one end, and what follows from it."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._last = ""

    def tell(self, error: str) -> None:
        if self._last != error:
            log.warning("%s: as long as that is so, %s", error, self._consequence)
        self._last = error

    def forget(self) -> None:
        self._last = ""
