"""From the words of ``sshvpn forward`` to a profile: HOST or SPEC, defaults, configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sshvpn import control, wiring
from sshvpn.errors import UsageError
from sshvpn.model import (
    Direction,
    EngineName,
    ForwardProfile,
    ForwardSpec,
    SshOptions,
)
from sshvpn.spec import is_host, parse_destination, parse_dynamic, parse_forward

if TYPE_CHECKING:
    from sshvpn.config import Config, ForwardEntry

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+-]{0,63}")


@dataclass(frozen=True, slots=True)
class ForwardWords:
    """What was typed."""

    words: Sequence[str]
    local: Sequence[str]
    remote: Sequence[str]
    dynamic: Sequence[str]
    host: str | None
    name: str | None
    binds: tuple[str, ...]
    lan: bool | None
    engine: EngineName | None
    timeout_s: float | None
    ssh: SshOptions


def build_profile(typed: ForwardWords) -> ForwardProfile:
    """Return what the words and the configuration mean together.

    What is typed goes before what the configuration says. Raises UsageError, and ConfigError
    for a configuration that is wrong.
    """
    from sshvpn.config import load

    config = load()
    hosts = [word for word in typed.words if is_host(word)]
    specs = _specs(typed)
    host = _host(typed, hosts, config)
    entry = config.forwards.get(host)
    if entry is None and not specs:
        raise UsageError(
            f"what should be forwarded from {host}?",
            f"add a SPEC: sshvpn forward {host} 8888",
        )
    return _merged(typed, host, specs, entry, config)


def _specs(typed: ForwardWords) -> tuple[ForwardSpec, ...]:
    plain = [*(word for word in typed.words if not is_host(word)), *typed.local]
    return (
        *(parse_forward(text) for text in plain),
        *(parse_forward(text, Direction.REMOTE) for text in typed.remote),
        *(parse_dynamic(text) for text in typed.dynamic),
    )


def _host(typed: ForwardWords, hosts: Sequence[str], config: Config) -> str:
    named = [*hosts, *([typed.host] if typed.host is not None else [])]
    if len(named) > 1:
        raise UsageError(
            f"more than one HOST: {', '.join(named)}", "one forward has one host; start two"
        )
    if named:
        return named[0]
    default = os.environ.get("SSHVPN_HOST") or config.default_host
    if default:
        return default
    tunnels = [
        snapshot["name"]
        for snapshot in control.snapshots(wiring.runtimes()).values()
        if snapshot["kind"] == "tunnel"
    ]
    if len(tunnels) == 1:
        return str(tunnels[0])
    known = sorted({*tunnels, *config.forwards, *config.tunnels})
    raise UsageError(
        "no HOST: none was said, and there is no default",
        f"name one of: {', '.join(known)}"
        if known
        else "say it: sshvpn forward HOST SPEC, --host, $SSHVPN_HOST or default_host",
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
    binds = typed.binds
    engine = typed.engine
    timeout_s = typed.timeout_s
    if entry is not None:
        binds = binds or (() if lan else entry.binds)
        lan = entry.lan if lan is None and not typed.binds else lan
        engine = engine or entry.engine
        timeout_s = timeout_s or entry.timeout_s
    wanted = specs or (entry.specs if entry is not None else ())
    _refuse_twins(wanted)
    return ForwardProfile(
        name=host if typed.name is None else _checked_name(typed.name),
        host=host,
        destination=section.destination if section else parse_destination(host),
        specs=wanted,
        binds=binds,
        lan=bool(lan),
        lan_trusts=bool(typed.lan),
        engine=engine or EngineName.AUTO,
        ssh=_joined(typed.ssh, section.ssh) if section else typed.ssh,
        named=typed.name is not None or (entry is not None and not specs),
        timeout_s=timeout_s,
    )


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: not a name", "letters, digits and . _ - @ : +, up to 64 of them"
        )
    return name


def _refuse_twins(specs: Sequence[ForwardSpec]) -> None:
    seen: dict[tuple[bool, str | None, object], str] = {}
    for spec in specs:
        place = (spec.direction is Direction.REMOTE, spec.bind, spec.listen)
        if place in seen and spec.listen != 0:
            raise UsageError(
                f"{seen[place]} and {spec.text} would listen at the same place",
                "give one of them another port",
            )
        seen[place] = spec.text


def _joined(typed: SshOptions, configured: SshOptions) -> SshOptions:
    # The first value of an option wins in ssh: what was typed goes first.
    return SshOptions(
        config_file=typed.config_file or configured.config_file,
        identity_files=(*typed.identity_files, *configured.identity_files),
        jump=typed.jump or configured.jump,
        options=(*typed.options, *configured.options),
    )
