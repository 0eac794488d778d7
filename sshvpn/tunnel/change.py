"""A tunnel's profile is edited while it is up: what of it can be taken over; pure."""

from __future__ import annotations

from dataclasses import replace

from sshvpn import ends
from sshvpn.ends import Site
from sshvpn.errors import UsageError
from sshvpn.model import TunnelProfile
from sshvpn.plan.desired import desired
from sshvpn.plan.request import BypassUser
from sshvpn.plan.state import Gate


def refuse_change(before: TunnelProfile, after: TunnelProfile) -> None:
    """Raise UsageError for what a tunnel has for its life: the device is its transport's."""
    for what, old, new in (
        ("the transport", before.transport, after.transport),
        ("the number of streams", before.streams, after.streams),
        ("the place of metrics", before.metrics, after.metrics),
    ):
        if old != new:
            raise UsageError(
                f"{what} cannot be changed while it is up",
                f"take it down and up again: sshvpn down {before.name}",
            )


def is_the_same(before: TunnelProfile, after: TunnelProfile) -> bool:
    """Whether nothing is another but who has said that the network is trusted."""
    return replace(after, lan_trusts=before.lan_trusts) == before


def rehearse_change(site: Site) -> None:
    """Raise UsageError or TakenError for what ``site`` would not take, as far as it is known.

    What depends on the adapters that are shared is seen when they are looked at again.
    """
    site = replace(
        site,
        profile=replace(site.profile, lan_address=None),
        bypass=site.bypass or BypassUser(site.owner),
    )
    addresses = ends.choose_addresses(site)
    services = ends.services_of(site)
    desired(ends.local_plan(site, addresses, services, Gate.AWAY), site.local)
    ends.remote_end(site, addresses, services)
