"""The hops of ProxyJump: how they are written (ssh_config(5)), and how the host is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sshvpn.system.ssh.config import Config


class Hop(NamedTuple):
    """One hop; what is left to ssh_config is empty."""

    user: str
    host: str
    port: str


def jumps_of(config: Config) -> tuple[str, ...]:
    """Return the hops as written, the first one nearest to us; none without a ProxyJump."""
    written = config.get("proxyjump", ("none",))[0]
    return () if written.lower() == "none" else tuple(hop for hop in written.split(",") if hop)


def parse_hop(text: str) -> Hop:
    """Return the parts of ``[user@]host[:port]`` or of the same as an ``ssh://`` URI."""
    user, _, place = text.removeprefix("ssh://").rpartition("@")
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return Hop(user, host, rest.removeprefix(":"))
    if place.count(":") > 1:
        return Hop(user, place, "")
    host, _, port = place.partition(":")
    return Hop(user, host, port)


def jump_words(jumps: Sequence[str], target: str, config_words: Sequence[str]) -> tuple[str, ...]:
    """Return the words behind ``ssh`` that connect its input and output to ``target``.

    The last hop forwards to it, and reaches itself over those before it, as ssh's own ``-J``
    does (readconf.c, parse_jump). ``config_words`` (``-F``) hold for the hops too.
    """
    *before, last = jumps
    words = [*config_words, "-W", target]
    if before:
        words += ["-J", ",".join(before)]
    hop = parse_hop(last)
    if hop.user:
        words += ["-l", hop.user]
    if hop.port:
        words += ["-p", hop.port]
    return (*words, "--", hop.host)
