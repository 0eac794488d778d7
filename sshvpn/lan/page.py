"""The portal's page, pure: what is told, as HTML. Whatever comes from elsewhere is escaped."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from html import escape
from urllib.parse import quote

from sshvpn.frozen import dataclass
from sshvpn.lan.qr import svg_qr
from sshvpn.presence import Adapter, Place, Presence, Shown

_KINDS = {
    "http": "Web page",
    "https": "Web page",
    "ssh": "SSH",
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
    "mqtt": "MQTT",
    "redis": "Redis",
    "vnc": "Screen (VNC)",
    "rdp": "Screen (RDP)",
    "socks5h": "SOCKS proxy",
}
_LINKED = ("http", "https")
_STATES = {
    "running": ("up", "Connected"),
    "failed": ("down", "Not connected: its owner has to look"),
}
_AWAY = ("away", "Connecting again …")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/portal.css">
<script src="/portal.js" defer></script>
<noscript><meta http-equiv="refresh" content="10"></noscript>
</head>
<body>
<p id="lost" role="status" hidden>This page is not up to date: the gateway does not answer.</p>
<main id="now">
{main}</main>
<footer>Shared with this network by sshvpn. \
Plain HTTP: others on the network can read along.</footer>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """By which adapter and address of ours somebody came, and by which name, if by one."""

    adapter: Adapter
    address: str
    name: str | None


def page(presence: Presence, visit: Visit) -> str:
    """Return the page as ``visit`` is to see it: with links that work the way they came."""
    cards = [card for service in presence.services for card in _cards(service, presence, visit)]
    nothing = '<p class="nothing">Nothing is published here just now.</p>\n'
    services = f'<ul class="cards">\n{"".join(cards)}</ul>\n' if cards else nothing
    main = f"{_head(presence)}{services}{''.join(_facts(presence, visit))}"
    return _FRAME.format(title=escape(presence.label), main=main)


def _head(presence: Presence) -> str:
    kind, words = _STATES.get(presence.state, _AWAY)
    since = escape(presence.since)
    return (
        f"<header>\n<h1>{escape(presence.label)}</h1>\n"
        f'<p class="state {kind}">{words} <time datetime="{since}">since {since}</time></p>\n'
        "</header>\n"
    )


def _cards(service: Shown, presence: Presence, visit: Visit) -> Iterator[str]:
    ports = {place.port for place in service.places if place.address in visit.adapter.hosts}
    for port in sorted(ports):
        place = _nearest((p for p in service.places if p.port == port), visit)
        numeric = _where(place.address, port)
        # Not every tablet resolves names of mDNS: the code has the address.
        shown = _where(visit.name or place.address, port)
        kind = escape(service.title or _KINDS.get(service.scheme, "TCP"))
        words = (
            f'<span class="kind">{kind}</span>\n'
            f'<span class="where">{_breakable(shown)}</span>\n'
            f'<span class="target">{escape(_target(service.target, presence.label))}</span>\n'
        )
        if service.scheme in _LINKED:
            url = escape(f"{service.scheme}://{shown}{_rest(service)}")
            code = _code(f"{service.scheme}://{numeric}{_rest(service)}", numeric)
            yield f'<li class="card"><a href="{url}">\n{words}</a>\n{code}</li>\n'
        else:
            yield f'<li class="card"><div>\n{words}</div></li>\n'


def _code(url: str, where: str) -> str:
    """Return the QR code of ``url``, nothing where it is too long for one."""
    try:
        code = svg_qr(url)
    except ValueError:
        return ""
    label = f"QR code of {escape(where)}"
    return f'<span class="code" role="img" aria-label="{label}">{code}</span>'


def _rest(service: Shown) -> str:
    """Return what of the URL comes behind the place."""
    token = f"?token={quote(service.token, safe='')}" if service.token else ""
    return f"{quote(service.path, safe='/%')}{token}"


def _nearest(places: Iterable[Place], visit: Visit) -> Place:
    """Return the place that is reached as this page was: the same address, or family."""
    is_ipv6 = ":" in visit.address
    here = [place for place in places if place.address in visit.adapter.hosts]
    return min(here, key=lambda p: (p.address != visit.address, p.is_ipv6 != is_ipv6))


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _breakable(where: str) -> str:
    """Return the place as HTML that breaks before its port, if it has to."""
    host, _, port = where.rpartition(":")
    return f"{escape(host)}<wbr>:{escape(port)}"


def _target(target: str, label: str) -> str:
    host, _, port = target.rpartition(":")
    if host.strip("[]") in _LOOPBACK:
        return f"port {port} of {label}"
    return f"anything that {label} reaches" if target == "socks5" else f"{target}, by {label}"


def _facts(presence: Presence, visit: Visit) -> Iterator[str]:
    facts = []
    if visit.adapter.appears_as is not None:
        facts.append((f"{presence.label} itself", visit.adapter.appears_as))
    for network in presence.networks:
        ours = _same_family(network, visit)
        way = f", by the gateway {ours}" if ours else ""
        facts.append(("Network", f"{network}{way}"))
    if facts:
        rows = (f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>\n" for name, what in facts)
        yield f"<h2>Also reachable</h2>\n<dl>\n{''.join(rows)}</dl>\n"


def _same_family(network: str, visit: Visit) -> str | None:
    version = ipaddress.ip_network(network).version
    hosts = (h for h in visit.adapter.hosts if ipaddress.ip_address(h).version == version)
    return next(hosts, None)
