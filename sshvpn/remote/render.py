"""The server's end as commands that a person can type into a root shell there; pure.

``up --dry-run`` prints them. Typed in their order they make the same of the kernel as the agent
does; its own state below /run, by which it undoes all, is not among them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from sshvpn.errors import TunnelRefusedError
from sshvpn.remote import lasting_tun
from sshvpn.remote.facts import PREPARED_DEVICE
from sshvpn.remote.protocol import (
    GROUP,
    Facts,
    RemoteEnd,
    Rights,
    is_adapter,
    is_label,
)
from sshvpn.remote.rules import (
    CHAINS,
    FAMILIES,
    TABLES,
    Rule,
    accepts,
    is_localnet_needed,
    rules,
)
from sshvpn.remote.settings import Settings

_FIRST_UNIT: Final = 5600
_NEW_MTU: Final = 1500
"""Of a tun that was just made, in bytes."""


def expected_device(facts: Facts, *, by_ssh: bool = True) -> tuple[str, str | None]:
    """Return the device that the next tunnel gets on the server, and its owner (None: sshd's).

    ``by_ssh``: it is ssh that opens it, not a pump of ours. What is made meanwhile may take the
    name. Without rights nothing is made, and it says nothing.
    """
    names = {adapter.name for adapter in facts.adapters}
    if facts.rights is not Rights.SUDO and by_ssh:
        return _first_free("tun", 0, names), None
    while (device := _first_free(PREPARED_DEVICE, _FIRST_UNIT, names)) and _ssh_name(
        device
    ) in names:
        names.add(device)
    # busybox gives no second name, so the one that ssh looks for is the only one.
    is_renamed = by_ssh and _is_busybox(facts)
    return (_ssh_name(device) if is_renamed else device), str(facts.uid)


def _first_free(prefix: str, number: int, names: set[str]) -> str:
    while f"{prefix}{number}" in names:
        number += 1
    return f"{prefix}{number}"


def _ssh_name(device: str) -> str:
    return f"tun{device.removeprefix(PREPARED_DEVICE)}"


def render(
    end: RemoteEnd,
    facts: Facts,
    label: str,
    device: str,
    owner: str | None,
    *,
    has_queues: bool = False,
) -> list[str]:
    """Return the commands of sh(1) that make the server's end what ``end`` says, as root there.

    ``label`` and ``device`` are the tunnel's there. ``owner`` (a uid) is whom the agent
    makes the device for, with several queues where it ``has_queues``; None: sshd makes it. What
    ``facts`` say is there already is not made again; without rights on the server there is but a
    comment. Each command is one or more lines. Raises RefusedError for what the agent would
    refuse, ValueError for a label and a device that are none.
    """
    if not is_label(label) or not is_adapter(device):
        raise ValueError(f"not a label and a device: {label!r}, {device!r}")
    if facts.rights is Rights.NONE:
        return [f"# {facts.user} may change nothing here: {facts.rights_reason}"]
    settings = Settings(facts, device)
    # First, as it looks whether the adapters are there.
    changes = list(settings.changes(end, needs_localnet=is_localnet_needed(end)))
    forwarded = {(f, n): settings.forwarded_before(f, n) for f in FAMILIES for n in end.forward}
    return [
        *_made(facts, device, owner, by_ssh=end.is_guarded, has_queues=has_queues),
        _grouped(facts, device),
        # The packet filter before all else: nothing is let through that it would not allow.
        *_packet_filter(end, facts, label, list(rules(end, device, forwarded)), device),
        *(f"sysctl -qw {shlex.quote(f'{path}={value}')}" for path, value in changes),
        *_addressed(end, facts, device),
    ]


# The device --------------------------------------------------------------------------------


def _made(
    facts: Facts, device: str, owner: str | None, *, by_ssh: bool, has_queues: bool
) -> Iterator[str]:
    if any(adapter.name == device for adapter in facts.adapters):
        return
    if owner is not None and _is_busybox(facts):
        yield _by_python(device, int(owner), has_queues=has_queues)
        return
    if owner is not None:
        queues = " multi_queue" if has_queues else ""
        yield f"ip tuntap add dev {device} mode tun user {shlex.quote(owner)}{queues}"
        if by_ssh and device.startswith(PREPARED_DEVICE):
            # `ssh -w` wants a device called tunN.
            yield f"ip link property add dev {device} altname {_ssh_name(device)}"
        return
    comment = f"# sshd makes {device} for the session, and takes it away with it"
    # busybox cannot make one.
    yield comment if _is_busybox(facts) else f"{comment}\nip tuntap add dev {device} mode tun"


def _by_python(device: str, uid: int, *, has_queues: bool) -> str:
    """Return what lasting_tun.py does, on one line: busybox's ip makes no tun."""
    text = (
        'import fcntl, os; tun = os.open("/dev/net/tun", os.O_RDWR); '
        f"fcntl.ioctl(tun, {lasting_tun.TUNSETIFF:#x}, "
        f"{lasting_tun.request(device, is_many=has_queues)[:18]!r}.ljust(40, bytes(1))); "
        f"fcntl.ioctl(tun, {lasting_tun.TUNSETOWNER:#x}, {uid}); "
        f"fcntl.ioctl(tun, {lasting_tun.TUNSETPERSIST:#x}, 1)"
    )
    return f"python3 -ISc {shlex.quote(text)}"


def _is_busybox(facts: Facts) -> bool:
    return facts.ip == "busybox"


def _grouped(facts: Facts, device: str) -> str:
    if _is_busybox(facts):  # which knows no groups
        return f"echo {GROUP} >/sys/class/net/{device}/netdev_group"
    return f"ip link set dev {device} group {GROUP}"


def _addressed(end: RemoteEnd, facts: Facts, device: str) -> Iterator[str]:
    known = facts.device if facts.device and facts.device.name == device else None
    is_new = all(adapter.name != device for adapter in facts.adapters)
    mtu = known.mtu if known else _NEW_MTU if is_new else None
    if mtu != end.mtu:
        yield f"ip link set dev {device} mtu {end.mtu}"
    here = {(a.address, a.network) for a in facts.addresses if a.interface == device}
    for own in end.addresses:
        if (own.ip, own.network) not in here:
            yield f"ip address add {own} dev {device}"
    for own, peer in end.peers:
        if (own.ip, peer) not in here:
            yield f"ip address add {own.ip} peer {peer} dev {device}"
    if known is None or not known.is_up:
        yield f"ip link set dev {device} up"
    there = {route.prefix for route in facts.routes if device in route.interfaces}
    for network in end.routes:
        if network not in there:
            yield f"ip -{network.version} route add {network} dev {device}"


# The packet filter -------------------------------------------------------------------------


def _packet_filter(
    end: RemoteEnd, facts: Facts, label: str, ours: Sequence[Rule], device: str
) -> Iterator[str]:
    mark = f"sshvpn_{label}"
    opened = list(accepts(facts.closed, device)) if end.accepts else []
    if facts.firewall == "nft":
        yield _nft(_table(ours, mark))
    elif facts.firewall is None and _needs_filter(end):
        raise TunnelRefusedError(
            "the server has neither nft nor iptables", "on it: install nftables"
        )
    for family in FAMILIES:
        if facts.firewall == "iptables":
            yield from _iptables(ours, family, mark)
        for accept in opened:
            if accept.family == family:
                how = f"{accept.program} -w -I {accept.chain} {accept.match}"
                yield f"{how} -m comment --comment {mark} -j ACCEPT"
    if batch := [
        f'insert rule {accept.chain} {accept.match} accept comment "{mark}"'
        for accept in opened
        if accept.family is None
    ]:
        yield _nft("\n".join(batch))


def _needs_filter(end: RemoteEnd) -> bool:
    return bool(end.is_guarded or end.masquerade or end.published or end.forward)


def _nft(batch: str) -> str:
    return f"nft -f - <<'EOF'\n{batch}\nEOF"


def _table(ours: Sequence[Rule], name: str) -> str:
    table = f"table inet {name}"
    # `delete` fails where there is none, and `destroy` is newer than nft 1.0.6.
    lines = [table, f"delete {table}", f"{table} {{"]
    for chain, hook in CHAINS.items():
        if inside := [rule.nft for rule in ours if rule.chain == chain and rule.nft]:
            lines += [f"\tchain {chain} {{", f"\t\ttype {hook}; policy accept;"]
            lines += [*(f"\t\t{rule}" for rule in inside), "\t}"]
    return "\n".join([*lines, "}"])


def _iptables(ours: Sequence[Rule], family: int, mark: str) -> Iterator[str]:
    program = {4: "iptables", 6: "ip6tables"}[family]
    for table in TABLES:
        for rule in ours:
            if rule.table == table and family in rule.families:
                # An IPv6 target has brackets, which the shell would take for a pattern.
                target = " ".join(map(shlex.quote, rule.target.split()))
                yield (
                    f"{program} -w -t {table} -A {rule.place} {rule.match}"
                    f" -m comment --comment {mark} -j {target}"
                )
