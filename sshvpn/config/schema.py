"""Which keys a configuration has, and what they may hold: TOML text -> Config. Pure.

The keys are the options of the command line, in their long form, as cli.md has them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path
from types import MappingProxyType

from sshvpn.config.entries import Config, ForwardEntry, NotebookEntry, TunnelEntry
from sshvpn.config.lines import key_lines
from sshvpn.config.specs import placed_specs, refuse_not_carried, refuse_twins
from sshvpn.config.toml import loads
from sshvpn.config.value import Source, Table, Value
from sshvpn.errors import ConfigError, UsageError
from sshvpn.model import (
    DEFAULT_ROUTE,
    STREAMS_MAX,
    Destination,
    EngineName,
    JupyterWay,
    SshOptions,
    Transport,
    Tuning,
)
from sshvpn.spec import (
    forward_twins,
    is_host,
    make_wish,
    parse_address_port,
    parse_bind,
    parse_destination,
    parse_directory,
    parse_interface,
    parse_jupyter,
    parse_publish,
    parse_ssh_option,
    published_twins,
)

MTU_MIN = 576
"""RFC 791: what every IPv4 host takes."""
MTU_MAX = 16380
"""ssh's tun forwarding dies of a larger packet."""
NAME_MAX = 64
KEEPALIVE_MAX_S = 3600

ROOT_KEYS = ("default_host", "tunnels", "forwards", "notebooks")
FORWARD_KEYS = (
    "host",
    "specs",
    "remote_specs",
    "dynamic_specs",
    "bind",
    "lan",
    "announce",
    "portal",
    "engine",
    "metrics",
    "congestion_control",
    "timeout",
    "keepalive",
    "ssh_options",
)
NOTEBOOK_KEYS = (
    "host",
    "dir",
    "command",
    "python",
    "venv",
    "conda_env",
    "port",
    "lan",
    "announce",
    "portal",
    "portal_tokens",
    "engine",
    "timeout",
    "ssh_options",
)
TUNNEL_KEYS = (
    "host",
    "routes",
    "exclude",
    "lan",
    "lan_interfaces",
    "lan_address",
    "publish",
    "nat",
    "transport",
    "streams",
    "mtu",
    "address",
    "announce",
    "portal",
    "portal_tokens",
    "metrics",
    "remote_device",
    "congestion_control",
    "timeout",
    "keepalive",
    "ssh_options",
)

_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_CIDR = re.compile(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?\Z")


def parse(text: str, file: Path) -> Config:
    """Return the Config that the TOML ``text`` says; ``file`` is its name in messages.

    Raises ConfigError for anything wrong, of which it tells the first.
    """
    root = _root(text, file).table(ROOT_KEYS)
    forwards = _profiles(root, "forwards")
    notebooks = _profiles(root, "notebooks")
    tunnels = _profiles(root, "tunnels")
    return Config(
        default_host=root.get("default_host", _host_text, None),
        forwards=MappingProxyType({name: _forward(name, value) for name, value in forwards}),
        notebooks=MappingProxyType({name: _notebook(name, value) for name, value in notebooks}),
        tunnels=MappingProxyType({name: _tunnel(name, value) for name, value in tunnels}),
        path=file,
    )


def _root(text: str, file: Path) -> Value:
    try:
        document = loads(text)
        return Value(Source(str(file), key_lines(text)), (), document)
    except RecursionError as error:
        raise ConfigError(f"{file}: brackets stand too deep in each other") from error
    except ValueError as error:  # TOMLDecodeError is one; so is a number of too many digits
        message = str(error)
        line = _AT_LINE.search(message)
        place = f"{line[1]}:" if line else f"{max(1, len(text.splitlines()))}:"
        reason = _AT_LINE.sub("", message).removesuffix(" (at end of document)")
        raise ConfigError(f"{file}:{place} {reason}", "the file is TOML: toml.io") from error


def _profiles(root: Table, kind: str) -> list[tuple[str, Value]]:
    """Return the profiles of ``kind`` with their names, which must be good as a HOST."""
    profiles = []
    for name, value in root.get(kind, Value.table, Table(root.place, {})):
        if not is_host(name) or not _is_profile_name(name):
            raise value.error(
                f"'{name[:NAME_MAX]}' is no name for a profile",
                "letters, digits, '.', '_' and '-', not only digits, up to 64",
            )
        profiles.append((name, value))
    return profiles


def _is_profile_name(name: str) -> bool:
    return bool(_NAME.match(name)) and len(name) <= NAME_MAX


# The three kinds of profile -------------------------------------------------------------------


def _forward(name: str, value: Value) -> ForwardEntry:
    table = value.table(FORWARD_KEYS)
    host, destination = _host(table)
    placed = placed_specs(table)
    if not placed:
        raise value.error("there is nothing to forward", 'write specs = ["9999:8888"]')
    entry = ForwardEntry(
        name=name,
        host=host,
        destination=destination,
        specs=tuple(spec for _, spec in placed),
        binds=table.each("bind", lambda item: item.parsed(parse_bind)),
        lan=table.get("lan", Value.flag, default=False),
        announce=table.get("announce", Value.flag, default=True),
        portal=table.get("portal", _portal, None),
        engine=table.get("engine", lambda value: value.one_of(EngineName), EngineName.AUTO),
        metrics=table.get("metrics", lambda value: value.parsed(parse_address_port), None),
        ssh=_ssh(table),
        timeout_s=table.get("timeout", Value.seconds, None),
        tuning=_tuning(table),
        keepalive_s=table.get("keepalive", lambda value: value.number(1, KEEPALIVE_MAX_S), None),
    )
    refuse_twins(placed, forward_twins(entry.specs, entry.binds, lan=entry.lan))
    refuse_not_carried(placed, entry.engine)
    return entry


def _notebook(name: str, value: Value) -> NotebookEntry:
    table = value.table(NOTEBOOK_KEYS)
    host, destination = _host(table)
    port = table.get("port", lambda value: value.number(1, 65535), None)
    try:
        wish = make_wish(
            table.get("dir", lambda value: value.parsed(parse_directory), ""),
            {way: _jupyter(table, key, way) for key, way in _JUPYTER_KEYS.items()},
            has_port=port is not None,
        )
    except ConfigError:
        raise
    except UsageError as error:
        raise value.error(error.message, error.hint) from error
    return NotebookEntry(
        name=name,
        host=host,
        destination=destination,
        wish=wish,
        port=port,
        lan=table.get("lan", Value.flag, default=False),
        announce=table.get("announce", Value.flag, default=True),
        portal=table.get("portal", _portal, None),
        portal_tokens=table.get("portal_tokens", Value.flag, default=False),
        engine=table.get("engine", lambda value: value.one_of(EngineName), EngineName.AUTO),
        ssh=_ssh(table),
        timeout_s=table.get("timeout", Value.seconds, None),
    )


_JUPYTER_KEYS = {
    "command": JupyterWay.COMMAND,
    "python": JupyterWay.PYTHON,
    "venv": JupyterWay.VENV,
    "conda_env": JupyterWay.CONDA,
}


def _jupyter(table: Table, key: str, way: JupyterWay) -> tuple[str, ...] | None:
    return table.get(key, lambda value: value.parsed(lambda text: parse_jupyter(way, text)), None)


def _tunnel(name: str, value: Value) -> TunnelEntry:
    table = value.table(TUNNEL_KEYS)
    host, destination = _host(table)
    published = table.each("publish", lambda item: (item, item.parsed(parse_publish)))
    publish = tuple(spec for _, spec in published)
    refuse_twins(published, published_twins(publish))
    return TunnelEntry(
        name=name,
        host=host,
        destination=destination,
        routes=table.each("routes", lambda item: item.parsed(parse_route)),
        exclude=table.each("exclude", lambda item: item.parsed(parse_network)),
        lan=table.get("lan", Value.flag, None),
        lan_interfaces=table.each("lan_interfaces", lambda item: item.parsed(parse_interface)),
        lan_address=table.get("lan_address", lambda value: value.parsed(parse_lan_address), None),
        publish=publish,
        nat=table.get("nat", Value.flag, default=True),
        transport=table.get("transport", lambda value: value.one_of(Transport), Transport.AUTO),
        streams=table.get("streams", lambda value: value.number(1, STREAMS_MAX), None),
        mtu=table.get("mtu", lambda value: value.number(MTU_MIN, MTU_MAX), None),
        address=table.get("address", lambda value: value.parsed(parse_tunnel_address), None),
        announce=table.get("announce", Value.flag, default=True),
        portal=table.get("portal", _portal, None),
        portal_tokens=table.get("portal_tokens", Value.flag, default=False),
        metrics=table.get("metrics", lambda value: value.parsed(parse_address_port), None),
        remote_device=table.get("remote_device", lambda value: value.parsed(parse_interface), None),
        ssh=_ssh(table),
        timeout_s=table.get("timeout", Value.seconds, None),
        tuning=_tuning(table),
        keepalive_s=table.get("keepalive", lambda value: value.number(1, KEEPALIVE_MAX_S), None),
    )


# What single keys hold -----------------------------------------------------------------------


def _host(table: Table) -> tuple[str, Destination]:
    value = table.required("host", '"user@example.com"')
    return value.text(), value.parsed(parse_destination)


def _host_text(value: Value) -> str:
    value.parsed(parse_destination)
    return value.text()


def _ssh(table: Table) -> SshOptions:
    """Return ``ssh_options``: ``-o`` each; numbers and truth values are written as ssh does."""
    options = []
    for key, value in table.get("ssh_options", Value.table, Table(table.place, {})):
        raw = value.raw
        if isinstance(raw, bool):
            word = "yes" if raw else "no"
        else:
            word = str(value.number(0, 2**63)) if isinstance(raw, int) else value.text()
        options.append(_ssh_option(key, word, value))
    return SshOptions(options=tuple(options))


def _ssh_option(key: str, word: str, value: Value) -> tuple[str, str]:
    try:
        found = parse_ssh_option(f"{key}={word}")
    except UsageError as error:
        raise value.error(error.message, error.hint) from error
    if found != (key, word):
        raise value.error(f"'{key}' is no option of ssh, or its value begins or ends with a blank")
    return found


def _tuning(table: Table) -> Tuning:
    return table.get("congestion_control", lambda value: value.one_of(Tuning), Tuning.AUTO)


def _portal(value: Value) -> int | None:
    """Return the portal's port: true is the usual one (0), false is none."""
    if isinstance(value.raw, bool):
        return 0 if value.raw else None
    return value.number(1, 65535)


def parse_route(text: str) -> str:
    """Return the route ``default``, or a network as :func:`parse_network` does.

    Raises UsageError, also for a network that is everything: that has its own word.
    """
    if text == DEFAULT_ROUTE:
        return text
    network = parse_network(text)
    if network.endswith("/0"):
        raise UsageError(f"'{text}' is everything", f"write {DEFAULT_ROUTE}, for IPv4 and IPv6")
    return network


def parse_network(text: str) -> str:
    """Return the network ``PREFIX/LENGTH`` in its short form; an address is one of its own.

    Raises UsageError; bits behind the prefix are a mistake, and the hint has the network.
    """
    network = _cidr(text)
    if network.ip != network.network.network_address:
        raise UsageError(
            f"'{text}' has bits set behind its prefix", f"the network is {network.network}"
        )
    return str(network.network)


def parse_tunnel_address(text: str) -> str:
    """Return the tunnel's own ``ADDRESS/LENGTH`` in its short form.

    Raises UsageError where it has no room for both ends.
    """
    interface = _cidr(text)
    if interface.network.num_addresses < 2:  # noqa: PLR2004 - one for each end
        raise UsageError(
            f"'{text}' has no room for both ends", "a tunnel wants a /30 or /31, IPv6 /126 or /127"
        )
    return str(interface)


def parse_lan_address(text: str) -> str:
    """Return an address that a machine of a LAN can have, in its short form. Raises UsageError."""
    interface = _interface(text)
    if interface is None:
        raise UsageError(f"'{text[:NAME_MAX]}' is no IP address", "write one, like 192.168.1.77")
    if "/" in text:
        raise UsageError(f"'{text}' is a network", f"write the address alone: {interface.ip}")
    found = interface.ip
    if found.is_loopback or found.is_multicast or found.is_unspecified or found.is_link_local:
        raise UsageError(
            f"'{text}' is no address that a machine of a LAN can have",
            "write a free one of your network, like 192.168.1.77",
        )
    return str(found)


def _cidr(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    interface = _interface(text)
    if interface is None:
        raise UsageError(
            f"'{text[:NAME_MAX]}' is no network",
            "write PREFIX/LENGTH, like 10.20.0.0/16 or fd20::/48",
        )
    return interface


def _interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    if _CIDR.match(text):
        with contextlib.suppress(ValueError):
            return ipaddress.ip_interface(text)
    return None
