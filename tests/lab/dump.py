"""The whole network state of a machine as text, without what changes by itself.

Two dumps of a machine that nobody has touched are equal; one that differs shows what was left
behind. Used by `Lab.check`; takes no decisions about what may differ.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

# One shell for all: entering a machine costs more than what is printed there.
SCRIPT: Final = r"""
section() { printf '\n== %s\n' "$*"; "$@" 2>&1; }
section ip -details link show
section ip address show
section ip -4 route show table all
section ip -6 route show table all
section ip -4 rule show
section ip -6 rule show
section ip neigh show nud permanent
section ip -4 neigh show proxy
section ip -6 neigh show proxy
section nft --stateless list ruleset
for program in iptables-save ip6tables-save iptables-legacy-save ip6tables-legacy-save; do
  if command -v $program >/dev/null; then section $program; fi
done
printf '\n== sysctl\n'
cd /proc/sys && grep -rs . net
true
"""

# What the kernel changes by itself, and what it becomes here.
_VOLATILE: Final = [
    (re.compile(r"^#.*", re.MULTILINE), "#"),
    (re.compile(r"\[\d+:\d+\]"), "[0:0]"),
    (re.compile(r" expires \d+sec"), " expires"),
    (re.compile(r"(valid_lft|preferred_lft) \d+sec"), r"\1 limited"),
    (re.compile(r" (age|used) [\d/.]+"), ""),
    (re.compile(r" tentative"), ""),
    (re.compile(r"(counter) packets \d+ bytes \d+"), r"\1"),
    (re.compile(r" users \d+"), ""),
    (re.compile(r"^net/netfilter/nf_conntrack_count:.*\n", re.MULTILINE), ""),
    (re.compile(r"^net/ipv4/tcp_(mem|fastopen_key):.*\n", re.MULTILINE), ""),
    # Timers that a bridge shows of itself.
    (re.compile(r" (\w+_timer|hello_timer|gc_timer) +[\d.]+"), ""),
]
# Their order is the order of making; what they say does not depend on it.
_UNORDERED: Final = (
    "ip -4 route",
    "ip -6 route",
    "ip neigh",
    "ip -4 neigh",
    "ip -6 neigh",
    "sysctl",
)


def normalise(text: str) -> str:
    """Return the output of SCRIPT without counters, ages and timers, unordered parts sorted."""
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    parts = []
    for part in text.split("\n== "):
        title, _, body = part.partition("\n")
        if title.startswith(_UNORDERED):
            body = "\n".join(sorted(body.splitlines()))
        parts.append(f"{title}\n{body.rstrip()}\n")
    return "\n== ".join(parts).lstrip()


def difference(before: str, after: str, name: str) -> str:
    """Return the difference as a unified diff, "" if there is none; each line knows its section."""
    if before == after:
        return ""
    diff = difflib.unified_diff(
        list(_with_sections(before)), list(_with_sections(after)),
        f"{name} before", f"{name} after", n=0, lineterm="",
    )  # fmt: skip
    return "\n".join(diff)


def _with_sections(text: str) -> Iterable[str]:
    section = ""
    for line in text.splitlines():
        if line.startswith("== "):
            section = line.removeprefix("== ")
        elif line.strip():
            yield f"[{section}] {line}"
