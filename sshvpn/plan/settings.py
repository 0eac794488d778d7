"""Which of the kernel's settings a tunnel needs raised, on which adapters; pure.

See ip-sysctl.rst of the kernel's documentation. What is wanted is wanted also where it is so
already: another tunnel may have raised it, and must not lower it while this one is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sshvpn.plan import marks
from sshvpn.plan.request import Facts, TunnelPlan
from sshvpn.plan.state import Confined, Setting, Sysctl

LOWEST_MTU6 = 1280
"""IPv6 needs it (RFC 8200, 5): a device with less has none of its settings."""
_STRICT = "1"


def wanted_sysctls(tunnel: TunnelPlan, facts: Facts) -> frozenset[Sysctl]:
    """Return the settings that ``tunnel`` holds; those of its own device die with that."""
    device = marks.device_name(tunnel.unit)
    wanted = {
        (setting, interface): value
        for setting, interface, value in _wanted(tunnel, facts)
        if interface != device or _is_there(setting, tunnel.mtu)
    }
    return frozenset(
        Sysctl(setting, interface, value, _before(facts, setting, interface, device))
        for (setting, interface), value in wanted.items()
    )


def confined(sysctls: Iterable[Sysctl], facts: Facts) -> Iterator[Confined]:
    """Yield the adapters that forward only because of ``sysctls``: to others they must not."""
    all6 = facts.settings.get(Setting.FORWARDING6.value.format("all"), "0")
    for sysctl in sysctls:
        if sysctl.before != "0" or marks.unit_of(sysctl.interface) is not None:
            continue
        if sysctl.setting is Setting.FORWARDING4:
            yield Confined(sysctl.interface, "ip")
        elif sysctl.setting is Setting.FORCE_FORWARDING6 and all6 == "0":
            yield Confined(sysctl.interface, "ip6")
        elif sysctl.setting is Setting.FORWARDING6 and sysctl.interface == "all":
            yield Confined(None, "ip6")


def device_sysctls(unit: int, mtu: int, facts: Facts) -> frozenset[Sysctl]:
    """Return those settings of the unit's device that it must have before it is up."""
    device = marks.device_name(unit)
    return frozenset(
        Sysctl(setting, device, value, _before(facts, setting, device, device))
        for setting, _, value in _of_device(device, facts)
        if _is_there(setting, mtu)
    )


def _is_there(setting: Setting, mtu: int) -> bool:
    return mtu >= LOWEST_MTU6 or "/ipv6/" not in setting.value


def _of_device(device: str, facts: Facts) -> Iterator[tuple[Setting, str, str]]:
    if facts.has_ipv6:
        # No address of its own making, and no questions for routers into the tunnel.
        yield Setting.ADDR_GEN_MODE, device, "1"
        yield Setting.ACCEPT_RA, device, "0"
        yield Setting.ROUTER_SOLICITATIONS, device, "0"


def _wanted(tunnel: TunnelPlan, facts: Facts) -> Iterator[tuple[Setting, str, str]]:
    device = marks.device_name(tunnel.unit)
    yield from _of_device(device, facts)
    if tunnel.has_default:
        # ssh's own answers come in where the routing table, which does not know of its mark,
        # would not send to: loose is enough, and only strict refuses them (RFC 3704).
        for interface in (*_adapters(facts, Setting.RP_FILTER), device):
            if _effective_rp_filter(facts, interface, device) == _STRICT:
                yield Setting.RP_FILTER, interface, "2"
    for lan in tunnel.lans:
        if ":" not in lan.network:
            # Never ip_forward: writing that resets all adapters.
            yield Setting.FORWARDING4, lan.interface, "1"
            yield Setting.FORWARDING4, device, "1"
        else:
            yield from _forwarding6(facts, lan.interface, device)
    for appearance in tunnel.appearances:
        if ":" in appearance.address:
            # NDP answers for others on adapters that are a router's only.
            yield Setting.PROXY_NDP, appearance.interface, "1"
            yield Setting.FORWARDING6, appearance.interface, "1"
            yield from _kept_advertisements(facts)


def _forwarding6(facts: Facts, lan: str, device: str) -> Iterator[tuple[Setting, str, str]]:
    if Setting.FORCE_FORWARDING6.value.format("default") in facts.settings:
        yield Setting.FORCE_FORWARDING6, lan, "1"
        yield Setting.FORCE_FORWARDING6, device, "1"
        return
    # Before Linux 6.17 there is one switch for all.
    yield from _kept_advertisements(facts)
    yield Setting.FORWARDING6, "all", "1"


def _kept_advertisements(facts: Facts) -> Iterator[tuple[Setting, str, str]]:
    # A router forgets what other routers told it, on all adapters, unless this is 2.
    for interface in _adapters(facts, Setting.ACCEPT_RA):
        if facts.settings[Setting.ACCEPT_RA.value.format(interface)] == "1":
            yield Setting.ACCEPT_RA, interface, "2"


def _adapters(facts: Facts, setting: Setting) -> list[str]:
    head, tail = setting.value.split("{}")
    names = [
        path.removeprefix(head).removesuffix(tail)
        for path in facts.settings
        if path.startswith(head) and path.endswith(tail)
    ]
    special = ("all", "default", "lo")
    return sorted(n for n in names if n not in special and marks.unit_of(n) is None)


def _effective_rp_filter(facts: Facts, interface: str, device: str) -> str:
    # The kernel takes the larger of the adapter's and that of all.
    own = facts.settings.get(
        Setting.RP_FILTER.value.format("default" if interface == device else interface), "0"
    )
    return max(own, facts.settings.get(Setting.RP_FILTER.value.format("all"), "0"))


def _before(facts: Facts, setting: Setting, interface: str, device: str) -> str:
    # The device does not exist yet: it will begin as the default says.
    name = "default" if interface == device else interface
    return facts.settings.get(setting.value.format(name), "0")
