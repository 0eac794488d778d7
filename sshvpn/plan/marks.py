"""The marks by which everything of ours in the kernel is known; pure.

A tunnel has a label (whose it is, and which) and, while it is up, a unit: a small number that
its device, routing table, metrics and priorities are made of. What bears none of these marks is
foreign, and is never touched.
"""

from __future__ import annotations

import hashlib
import re

UNITS = 200
"""How many tunnels one machine can have at once."""

PROTOCOL = 83
"""``rtm_protocol`` of our routes and rules; not in rt_protos of iproute2, as of 6.x."""

METRIC = 50
"""Of a route into the tunnel: below what NetworkManager and networkd give (100 and more)."""

BASE = 5300
"""The first of our routing tables, rule priorities and OpenSSH's numbers for our devices."""

RULES_PER_UNIT = 8

LABEL = re.compile(r"[0-9a-f]{1,8}_[0-9a-f]{10}")
_DEVICE = re.compile(r"sshvpn(0|[1-9][0-9]{0,2})")


def label_of(uid: int, name: str) -> str:
    """Return the label of user ``uid``'s tunnel ``name``.

    The user's number stands in it, so that the helper can see whose it is without asking.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{uid:x}_{digest[:10]}"


def owner_of(label: str) -> int:
    """Return the user whose label it is."""
    return int(label.partition("_")[0], 16)


def is_label(text: str) -> bool:
    """Whether ``text`` is a label as :func:`label_of` makes them."""
    return LABEL.fullmatch(text) is not None and f"{owner_of(text):x}" == text.partition("_")[0]


def device_name(unit: int) -> str:
    """Return the device's name."""
    return f"sshvpn{unit}"


def unit_of(device: str) -> int | None:
    """Return the unit of a device of ours, None for any other name."""
    match = _DEVICE.fullmatch(device)
    return int(match[1]) if match and int(match[1]) < UNITS else None


def ssh_unit(unit: int) -> int:
    """Return the N of ``ssh -w N`` that opens the device (by its other name, ``tunN``)."""
    return BASE + unit


def ssh_device_name(unit: int) -> str:
    """Return the other name of the device, under which OpenSSH looks for it."""
    return f"tun{ssh_unit(unit)}"


def alias(label: str) -> str:
    """Return the device's alias (``ip link``), also the comment of rules in foreign chains."""
    return f"sshvpn:{label}"


def label_in(text: str) -> str | None:
    """Return the label in an alias or a comment of ours, else None."""
    label = text.removeprefix("sshvpn:")
    return label if text != label and is_label(label) else None


def table_name(label: str) -> str:
    """Return the name of the nft table, of the family ``inet``."""
    return f"sshvpn_{label}"


def table_label(name: str) -> str | None:
    """Return the label in a name as :func:`table_name` makes them, else None."""
    label = name.removeprefix("sshvpn_")
    return label if name != label and is_label(label) else None


HYBRID = "unified"
"""Where systemd mounts cgroups of version 2 beside those of version 1, below /sys/fs/cgroup."""


def cgroup_name(label: str) -> str:
    """Return the name of the cgroup whose processes go around the tunnel's default route."""
    return table_name(label)


def cgroup_label(name: str) -> str | None:
    """Return the label in a name as :func:`cgroup_name` makes them, else None."""
    return table_label(name)


def is_service_group(name: str) -> bool:
    """Whether ``name`` is that of the cgroup which systemd makes for a tunnel's service."""
    return name.startswith("sshvpn@") and name.endswith(".service")


def cgroup_level(path: str) -> int:
    """Return how deep the cgroup ``path`` (below /sys/fs/cgroup) is in its hierarchy."""
    return path.removeprefix(f"{HYBRID}/").count("/") + 1


def bypass_mark(unit: int) -> int:
    """Return the mark (``SO_MARK``) of what goes around the unit's default route."""
    return BASE + unit


def twin_metric(unit: int) -> int:
    """Return the metric of the unreachable twins of the unit's routes.

    Such a route has no device, so this is what tells whose it is. Worse than METRIC, and
    better than what a desktop gives to its routes, or one of the same prefix would leak.
    """
    return METRIC + 1 + unit


def routing_table(unit: int) -> int:
    """Return the routing table that holds the unit's default routes."""
    return BASE + unit


def rule_priority(unit: int, place: int) -> int:
    """Return the priority of the unit's policy rule at ``place`` (0 is looked at first)."""
    return BASE + RULES_PER_UNIT * unit + place


def unit_of_priority(priority: int) -> int | None:
    """Return the unit that a rule of this priority belongs to, None if it is not in our range."""
    unit = (priority - BASE) // RULES_PER_UNIT
    return unit if 0 <= unit < UNITS else None
