"""The settings of the server's kernel that a tunnel's end changes, and what they were; pure.

The agent makes the same of the same configuration (``agent/09-forwarding.sh``), in sh;
tests/contract/test_agent_twin.py holds the two together. Paths are below /proc/sys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sshvpn.errors import RefusedError
from sshvpn.remote.protocol import Adapter, Facts, RemoteEnd

_LOOSE = 2
"""Of rp_filter (RFC 3704, 2.4), and of accept_ra: also where one forwards."""


class Settings:
    """What the settings are while an end is made; begins with what the facts say.

    ``device`` may not be there yet: then it is made like the adapter ``default``.
    """

    def __init__(self, facts: Facts, device: str) -> None:
        self._device = device
        self._adapters = {adapter.name: adapter for adapter in facts.adapters}
        default = self._adapters.get("default")
        if device not in self._adapters and default is not None:
            self._adapters[device] = dataclasses.replace(default, name=device)
        self._values = {
            path: value
            for adapter in self._adapters.values()
            for path, value in _values(adapter)
            if value is not None
        }
        self._before = self._values | dict(facts.before)

    def forwarded_before(self, family: int, adapter: str) -> bool:
        """Whether ``adapter`` forwarded before any tunnel."""
        of_all = not self._was_off("net/ipv6/conf/all/forwarding")
        if family == 4:  # noqa: PLR2004 (its name)
            return not self._was_off(f"net/ipv4/conf/{adapter}/forwarding")
        if self._has_force(adapter):
            return of_all or not self._was_off(f"net/ipv6/conf/{adapter}/force_forwarding")
        return of_all

    def _was_off(self, path: str) -> bool:
        return self._before.get(path) == 0

    def _has_force(self, adapter: str) -> bool:
        return f"net/ipv6/conf/{adapter}/force_forwarding" in self._values

    def changes(self, end: RemoteEnd, *, needs_localnet: bool) -> Iterator[tuple[str, int]]:
        """Yield the settings that ``end`` changes with their new values, in order.

        Raises RefusedError for an adapter that the server does not have.
        """
        for name in (*end.forward, *end.loose):
            if name not in self._adapters:
                raise RefusedError(f"the server has no adapter {name}", "on it: ip link")
        if needs_localnet:
            yield f"net/ipv4/conf/{self._device}/route_localnet", 1
        for name in (self._device, *end.forward) if end.forward else ():
            yield from self._forwarding(name)
        for name in end.loose:
            of_all = self._values["net/ipv4/conf/all/rp_filter"]
            own = self._values[f"net/ipv4/conf/{name}/rp_filter"]
            # The higher of the two counts (ip-sysctl: rp_filter).
            if max(of_all, own) == 1:
                yield from self._change(f"net/ipv4/conf/{name}/rp_filter", _LOOSE)

    def _forwarding(self, adapter: str) -> Iterator[tuple[str, int]]:
        # ip_forward is never written: it resets all adapters.
        yield from self._change(f"net/ipv4/conf/{adapter}/forwarding", 1)
        if f"net/ipv6/conf/{adapter}/forwarding" not in self._values:
            return
        if self._has_force(adapter):
            yield from self._change(f"net/ipv6/conf/{adapter}/force_forwarding", 1)
        else:
            yield from self._forwarding_of_all()

    def _forwarding_of_all(self) -> Iterator[tuple[str, int]]:
        """Before Linux 6.17 there is one switch, which moves that of every adapter."""
        conf = "net/ipv6/conf"
        # The shell's own order of names, without a locale.
        for name in sorted(self._adapters):
            if f"{conf}/{name}/forwarding" not in self._values:
                continue
            # At the switch, an adapter forgets the routes that routers told it, but with 2.
            if self._values.get(f"{conf}/{name}/accept_ra") == 1:
                if name in ("all", "default"):
                    continue
                yield from self._change(f"{conf}/{name}/accept_ra", _LOOSE)
            if name != "all":
                yield from self._change(f"{conf}/{name}/forwarding", 1)
        yield from self._change(f"{conf}/all/forwarding", 1)

    def _change(self, path: str, value: int) -> Iterator[tuple[str, int]]:
        if self._values.get(path) != value:
            self._values[path] = value
            yield path, value


def _values(adapter: Adapter) -> Iterator[tuple[str, int | None]]:
    four, six = f"net/ipv4/conf/{adapter.name}", f"net/ipv6/conf/{adapter.name}"
    yield f"{four}/forwarding", adapter.forwarding
    yield f"{four}/rp_filter", adapter.rp_filter
    yield f"{six}/forwarding", adapter.forwarding6
    yield f"{six}/force_forwarding", adapter.force_forwarding6
    yield f"{six}/accept_ra", adapter.accept_ra
