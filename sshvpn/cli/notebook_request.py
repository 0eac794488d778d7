"""From the words of ``sshvpn notebook`` to a profile: HOST, defaults, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from sshvpn.cli.hosts import checked_name, default_host, joined
from sshvpn.cli.lan_options import (
    TypedWishes,
    refuse_portal_alone,
    refuse_portal_twice,
    refuse_tokens_alone,
)
from sshvpn.cli.typed import keep
from sshvpn.errors import UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import EngineName, ForwardProfile, JupyterWay, NotebookWish, SshOptions
from sshvpn.spec import (
    is_host,
    make_wish,
    parse_destination,
    parse_directory,
    parse_forward,
    parse_jupyter,
)

if TYPE_CHECKING:
    from sshvpn.config import Config, NotebookEntry

FIRST_PORT = 9999
START_WITHIN_S = 120.0
"""How long the first start may take: Jupyter from a network file system takes its time."""
_PLACEHOLDER_PORT = 8888
"""Where Jupyter listens is known once it was found."""


@dataclass(frozen=True, slots=True)
class NotebookWords:
    """What was typed. ``jupyter`` has the texts of ``--command`` and its like."""

    host: str | None
    directory: str | None = None
    jupyter: Mapping[JupyterWay, str | None] = field(default_factory=dict)
    port: int | None = None
    lan: bool | None = None
    engine: EngineName | None = None
    name: str | None = None
    timeout_s: float | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    wishes: TypedWishes = field(default_factory=TypedWishes)


def build_profile(typed: NotebookWords) -> ForwardProfile:
    """Return what the words and the configuration mean together.

    What is typed goes before what the configuration says. Raises UsageError, and ConfigError
    for a configuration that is wrong.
    """
    from sshvpn.config import load

    config = load()
    host = typed.host if typed.host is not None else _default(config)
    if not is_host(host):
        raise UsageError(f"'{host}' is no HOST", "sshvpn notebook HOST finds the port by itself")
    entry = config.notebooks.get(host)
    section = entry or config.tunnels.get(host) or config.forwards.get(host)
    port = typed.port or (entry.port if entry else None)
    lan = typed.lan if typed.lan is not None or entry is None else entry.lan
    wishes = typed.wishes.over(
        announce=entry.announce if entry else True,
        portal=entry.portal if entry else None,
        tokens=entry.portal_tokens if entry else False,
    )
    specs = (parse_forward(f"{port or FIRST_PORT}:{_PLACEHOLDER_PORT}"),)
    refuse_portal_alone(typed.wishes, is_shared=bool(lan))
    refuse_portal_twice(wishes, specs)
    refuse_tokens_alone(wishes)
    return ForwardProfile(
        name=host if typed.name is None else checked_name(typed.name),
        host=section.host if section else host,
        destination=section.destination if section else parse_destination(host),
        specs=specs,
        # On this machine it is always at localhost, which browsers trust more than an address.
        binds=("localhost",) if lan else (),
        lan=bool(lan),
        lan_trusts=bool(typed.lan),
        engine=typed.engine or (entry.engine if entry else EngineName.AUTO),
        ssh=joined(typed.ssh, section.ssh) if section else typed.ssh,
        named=typed.name is not None or entry is not None,
        timeout_s=typed.timeout_s or (entry.timeout_s if entry else None) or START_WITHIN_S,
        notebook=_wish(typed, entry, has_port=port is not None),
        typed=keep(replace(typed, host=host)),
        wishes=wishes,
    )


def _default(config: Config) -> str:
    return default_host(
        config,
        (*config.notebooks, *config.tunnels),
        "sshvpn notebook HOST, $SSHVPN_HOST or default_host",
    )


def _wish(typed: NotebookWords, entry: NotebookEntry | None, *, has_port: bool) -> NotebookWish:
    configured = entry.wish if entry else NotebookWish()
    said: dict[JupyterWay, tuple[str, ...] | None] = {
        way: parse_jupyter(way, text) for way, text in typed.jupyter.items() if text is not None
    }
    if not said and configured.words:
        said = {configured.way: configured.words}
    directory = configured.directory
    if typed.directory is not None:
        directory = parse_directory(typed.directory)
    return make_wish(directory, said, has_port=has_port)
