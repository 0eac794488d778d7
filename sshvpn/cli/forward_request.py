"""From the words of ``sshvpn forward`` to a profile: HOST or SPEC, defaults, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING

from sshvpn.cli.hosts import checked_name, default_host, joined, understood, with_keepalive
from sshvpn.cli.lan_options import TypedWishes, refuse_portal_alone, refuse_portal_twice
from sshvpn.cli.typed import keep
from sshvpn.errors import UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import (
    Direction,
    EngineName,
    ForwardProfile,
    ForwardSpec,
    SshOptions,
    Tuning,
)
from sshvpn.spec import (
    is_host,
    parse_address_port,
    parse_bind,
    parse_destination,
    parse_dynamic,
    parse_forward,
    refuse_twins,
    shown,
)

if TYPE_CHECKING:
    from sshvpn.config import Config, ForwardEntry


@dataclass(frozen=True, slots=True)
class ForwardWords:
    """What was typed. None, or an empty tuple: nothing was said.

    ``default_timeout_s`` holds where neither the words nor the configuration say one.
    """

    words: Sequence[str] = ()
    local: Sequence[str] = ()
    remote: Sequence[str] = ()
    dynamic: Sequence[str] = ()
    host: str | None = None
    name: str | None = None
    binds: tuple[str, ...] = ()
    lan: bool | None = None
    engine: EngineName | None = None
    metrics: str | None = None
    timeout_s: float | None = None
    default_timeout_s: float | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    keepalive_s: int | None = None
    wishes: TypedWishes = field(default_factory=TypedWishes)


def build_profile(typed: ForwardWords) -> ForwardProfile:
    """Return what the words and the configuration mean together.

    What is typed goes before what the configuration says. Raises UsageError, and ConfigError
    for a configuration that is wrong.
    """
    from sshvpn.config import load

    if "" in typed.words:
        raise UsageError(
            "'' is neither a HOST nor a SPEC", "is a variable empty? leave the word out, or say it"
        )
    config = load()
    hosts = [word for word in typed.words if is_host(word)]
    specs = _specs(typed)
    host = _host(typed, hosts, config)
    entry = config.forwards.get(host)
    if entry is None and not specs and host in config.notebooks:
        return _of_notebook(typed, host)
    if entry is None and not specs:
        raise UsageError(
            f"what should be forwarded from {host}?",
            f"add a SPEC: sshvpn forward {host} 8888",
        )
    return _merged(typed, host, specs, entry, config)


def _of_notebook(typed: ForwardWords, host: str) -> ForwardProfile:
    """Return what ``sshvpn notebook`` means by that profile; a service runs it so."""
    from sshvpn.cli import notebook_request

    words = notebook_request.NotebookWords(
        host=host, lan=typed.lan, engine=typed.engine, name=typed.name,
        timeout_s=typed.timeout_s, ssh=typed.ssh, wishes=typed.wishes,
    )  # fmt: skip
    return notebook_request.build_profile(words)


def _without_hosts(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if not is_host(word))


def _specs(typed: ForwardWords) -> tuple[ForwardSpec, ...]:
    plain = [*_without_hosts(typed.words), *typed.local]
    return (
        *(parse_forward(text) for text in plain),
        *(parse_forward(text, Direction.REMOTE) for text in typed.remote),
        *(parse_dynamic(text) for text in typed.dynamic),
    )


def _host(typed: ForwardWords, hosts: Sequence[str], config: Config) -> str:
    named = [*hosts, *([typed.host] if typed.host is not None else [])]
    if len(named) > 1:
        raise UsageError(
            f"more than one HOST: {', '.join(map(shown, named))}",
            "one forward has one host; start two",
        )
    if named:
        return named[0]
    return default_host(
        config,
        (*config.forwards, *config.tunnels),
        "sshvpn forward HOST SPEC, --host, $SSHVPN_HOST or default_host",
    )


def _merged(
    typed: ForwardWords,
    host: str,
    specs: tuple[ForwardSpec, ...],
    entry: ForwardEntry | None,
    config: Config,
) -> ForwardProfile:
    section = entry or config.tunnels.get(host)
    lan = typed.lan
    binds = tuple(understood("--bind", parse_bind, bind) for bind in typed.binds)
    engine = typed.engine
    timeout_s = typed.timeout_s
    metrics = (
        None
        if typed.metrics is None
        else understood("--metrics", parse_address_port, typed.metrics)
    )
    keepalive_s = typed.keepalive_s
    if section is not None:
        keepalive_s = keepalive_s or section.keepalive_s
    if entry is not None:
        binds = binds or (() if lan else entry.binds)
        lan = entry.lan if lan is None and not typed.binds else lan
        engine = engine or entry.engine
        timeout_s = timeout_s or entry.timeout_s
        metrics = metrics or entry.metrics
    wanted = specs or (entry.specs if entry is not None else ())
    refuse_twins(wanted, binds, lan=bool(lan))
    wishes = (
        typed.wishes.over(announce=True, portal=None)
        if entry is None
        else typed.wishes.over(entry.announce, entry.portal)
    )
    refuse_portal_alone(typed.wishes, is_shared=bool(lan))
    refuse_portal_twice(wishes, wanted)
    return ForwardProfile(
        name=host if typed.name is None else checked_name(typed.name),
        host=host,
        destination=section.destination if section else parse_destination(host),
        specs=wanted,
        binds=binds,
        lan=bool(lan),
        lan_trusts=bool(typed.lan),
        engine=engine or EngineName.AUTO,
        ssh=joined(
            with_keepalive(typed.ssh, keepalive_s), section.ssh if section else SshOptions()
        ),
        named=typed.name is not None or (entry is not None and not specs),
        metrics=metrics,
        timeout_s=timeout_s or typed.default_timeout_s,
        tuning=section.tuning if section else Tuning.AUTO,
        typed=keep(replace(typed, words=_without_hosts(typed.words), host=host)),
        wishes=wishes,
    )
