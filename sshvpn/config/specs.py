"""SPECs of a profile, each with its place in the file: which do not go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sshvpn.config.value import Table, Value
from sshvpn.model import Direction, EngineName, ForwardSpec
from sshvpn.spec import not_carried, parse_dynamic, parse_forward, twins_error
from sshvpn.spec.twins import Twins

Placed = Sequence[tuple[Value, ForwardSpec]]


def placed_specs(table: Table) -> Placed:
    """Return all SPECs of a forward. Raises ConfigError."""
    return [
        (item, item.parsed(parser))
        for key, parser in _PARSERS.items()
        for item in table.each(key, lambda item: item)
    ]


def refuse_twins(placed: Placed, twins: Twins) -> None:
    """Raise ConfigError, at the second of ``twins``, where there are any."""
    if twins is not None:
        error = twins_error([spec for _, spec in placed], twins)
        raise placed[twins[1]][0].error(error.message, error.hint)


def refuse_not_carried(placed: Placed, engine: EngineName) -> None:
    """Raise ConfigError for a SPEC that the profile's own ``engine`` has no way to carry."""
    for item, spec in placed if engine is EngineName.SSHTUNNEL else ():
        message = not_carried(spec)
        if message is not None:
            raise item.error(message, 'write engine = "openssh", or leave it out')


def _parse_remote(text: str) -> ForwardSpec:
    return parse_forward(text, Direction.REMOTE)


_PARSERS: Mapping[str, Callable[[str], ForwardSpec]] = {
    "specs": parse_forward,
    "remote_specs": _parse_remote,
    "dynamic_specs": parse_dynamic,
}
