"""Which SPECs would listen at the same place. Pure: an adapter's addresses are not known here.

What is not certain is no twin: it is left to the kernel, or to the server, to refuse it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sshvpn.errors import UsageError
from sshvpn.model import LOOPBACK4, LOOPBACK6, Direction, ForwardSpec, UnixEndpoint
from sshvpn.spec.words import has_ipv4_shape

_EVERY4, _EVERY6 = "0.0.0.0", "::"  # noqa: S104 (only to be compared)
_LAN = "--lan"
_BY_NAME = {
    "localhost": frozenset({LOOPBACK4, LOOPBACK6}),
    "*": frozenset({_EVERY4, _EVERY6}),
}

Twins = tuple[int, int] | None
"""The indexes of the first two SPECs that would listen at one place, if any do."""


def forward_twins(
    specs: Sequence[ForwardSpec], binds: Sequence[str] = (), *, lan: bool = False
) -> Twins:
    """Return the twins of a forward; ``binds`` and ``lan`` say where a SPEC without BIND listens.

    A wildcard is at every address of its family. The server's listeners are compared as they are
    written: what it makes of an address is its own affair (GatewayPorts).
    """
    usual = frozenset(
        {*(host for bind in binds for host in _hosts(bind)), *([_LAN] if lan else [])}
    )
    return _first(specs, [_places(spec, usual or _BY_NAME["localhost"]) for spec in specs])


def published_twins(specs: Sequence[ForwardSpec]) -> Twins:
    """Return the twins of a tunnel's published services, of which ``*`` are the LAN's addresses."""
    return _first(specs, [frozenset({spec.bind or "*"}) for spec in specs], wildcards=False)


def refuse_twins(
    specs: Sequence[ForwardSpec], binds: Sequence[str] = (), *, lan: bool = False
) -> None:
    """Raise UsageError for two SPECs of a forward that would listen at the same place."""
    twins = forward_twins(specs, binds, lan=lan)
    if twins is not None:
        raise twins_error(specs, twins)


def twins_error(specs: Sequence[ForwardSpec], twins: tuple[int, int]) -> UsageError:
    """Return what is told of ``twins``."""
    first, second = (specs[index] for index in twins)
    other = "path" if isinstance(first.listen, UnixEndpoint) else "port"
    return UsageError(
        f"{first.text} and {second.text} would listen at the same place",
        f"give one of them another {other}",
    )


def _first(
    specs: Sequence[ForwardSpec], places: Sequence[frozenset[str]], *, wildcards: bool = True
) -> Twins:
    seen: dict[tuple[bool, int | str], list[int]] = {}
    for index, spec in enumerate(specs):
        if spec.listen == 0:
            continue  # any free port
        is_remote = spec.direction is Direction.REMOTE
        listen = _path(spec.listen) if isinstance(spec.listen, UnixEndpoint) else spec.listen
        others = seen.setdefault((is_remote, listen), [])
        for other in others:
            if places[other] & places[index] or (
                wildcards and not is_remote and _overlap(places[other], places[index])
            ):
                return other, index
        others.append(index)
    return None


def _path(socket: UnixEndpoint) -> str:
    """Return its path without ``//`` and ``/./``; ``..`` stays, there may be a link before it."""
    return "/".join(part for part in socket.path.split("/") if part not in ("", "."))


def _places(spec: ForwardSpec, usual: frozenset[str]) -> frozenset[str]:
    if isinstance(spec.listen, UnixEndpoint):
        return frozenset({""})
    if spec.direction is Direction.REMOTE:
        return frozenset({spec.bind or "localhost"})
    return usual if spec.bind is None else _hosts(spec.bind)


def _hosts(bind: str) -> frozenset[str]:
    return _BY_NAME.get(bind, frozenset({bind}))


def _overlap(some: frozenset[str], others: frozenset[str]) -> bool:
    return _covers(some, others) or _covers(others, some)


def _covers(wide: frozenset[str], others: frozenset[str]) -> bool:
    """Whether a wildcard of ``wide`` is at a place of ``others``, whatever addresses there are."""
    return (
        wide >= _BY_NAME["*"]
        or (_EVERY4 in wide and any(has_ipv4_shape(host) for host in others))
        or (_EVERY6 in wide and any(":" in host for host in others))
    )
