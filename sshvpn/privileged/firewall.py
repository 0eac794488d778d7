"""Our nft table, and our rules in the chains of others, by nft(8) and iptables(8).

Both are run by absolute path, with nothing of the caller's environment; what they are told is
made here from typed descriptions.
"""

from __future__ import annotations

import itertools
import re
import shlex
import socket
import subprocess
from collections.abc import Sequence

from sshvpn.errors import SshvpnError, TakenError
from sshvpn.plan import marks, nft, render
from sshvpn.plan.state import Accept, Firewall, ForeignChain, UnknownTable
from sshvpn.privileged.programs import PLACES, path_of

_PUBLISHED = re.compile(r"\bip6? daddr (\S+) tcp dport (\d+) .*\bdnat\b")
_ENVIRONMENT = {"PATH": ":".join(PLACES), "LC_ALL": "C"}
_TIMEOUT_S = 20.0


class Tables:
    """The nft tables of this program. Remembers what it loaded, to see whether it still stands."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Firewall, str]] = {}
        self._unseen: set[str] = set()

    def load(self, table: Firewall) -> None:
        """Make our table what ``table`` says, in one transaction; twice is fine."""
        _run("nft", "-f", "-", text=nft.ruleset(table))
        self._loaded[table.label] = (table, "")
        self._unseen.add(table.label)

    @staticmethod
    def refuse_published(table: Firewall, before: Firewall | UnknownTable | None) -> None:
        """Raise TakenError where ``table`` publishes what another tunnel does, and not ``before``.

        Of two rules for one port the kernel would take the one that was loaded first.
        """
        held = before.published if isinstance(before, Firewall) else frozenset()
        wanted = {(port.address, port.port) for port in table.published - held}
        for label in tables() - {table.label} if wanted else ():
            found = _PUBLISHED.findall(_listing(label) or "")
            for address, port in wanted.intersection((a, int(p)) for a, p in found):
                raise TakenError(
                    f"port {port} of {address} is published by another tunnel",
                    "choose another port, as in --publish 9999:8888, or take that one down",
                )

    def see(self) -> None:
        """Look how what was loaded is listed; at once, but nobody need wait for it."""
        for label in self._unseen:
            table, _ = self._loaded[label]
            self._loaded[label] = (table, _listing(label) or "")
        self._unseen.clear()

    def drop(self, label: str) -> None:
        """Drop the label's table; not there is fine."""
        name = f"table inet {marks.table_name(label)}"
        _run("nft", "-f", "-", text=f"{name}\ndelete {name}\n")
        self._loaded.pop(label, None)
        self._unseen.discard(label)

    def read(self, label: str) -> Firewall | UnknownTable | None:
        """Return what was loaded, if that is what stands there."""
        self.see()
        listing = _listing(label)
        if listing is None:
            return None
        table, loaded = self._loaded.get(label, (None, ""))
        return table if table is not None and listing == loaded else UnknownTable(label)


def tables() -> set[str]:
    """Return the labels that have an nft table."""
    found = set()
    for line in _run("nft", "list", "tables", "inet").splitlines():
        label = marks.table_label(line.rpartition(" ")[2])
        if label is not None:
            found.add(label)
    return found


def _listing(label: str) -> str | None:
    # Stateless: counters and the like change by themselves.
    try:
        return _run("nft", "-s", "list", "table", "inet", marks.table_name(label))
    except SshvpnError:
        return None


# -- the chains of others ------------------------------------------------------------------------


def create_accept(accept: Accept, label: str) -> None:
    """Insert our rule at the chain's head."""
    if accept.chain is ForeignChain.FIREWALLD:
        rule = f"insert rule {accept.chain.value} {render.nft_accept(accept, label)}"
        _run("nft", "-f", "-", text=f"{rule}\n")
    else:
        words = _iptables_words(accept, label)
        _run(render.iptables(accept.chain), "-w", "-I", accept.chain.chain, *words)


def delete_accept(accept: Accept, label: str) -> None:
    """Delete our rule; not there is fine."""
    if accept.chain is ForeignChain.FIREWALLD:
        for handle, found, of in _firewalld_rules():
            if (found, of) == (accept, label):
                rule = f"delete rule {accept.chain.value} handle {handle}"
                _run("nft", "-f", "-", text=f"{rule}\n")
        return
    program = render.iptables(accept.chain)
    try:
        _run(program, "-w", "-D", accept.chain.chain, *_iptables_words(accept, label))
    except SshvpnError:
        if (accept, label) in _iptables_rules(program):
            raise


def accepts() -> set[tuple[Accept, str]]:
    """Return our rules in the chains of others, each with its label."""
    found = {(accept, label) for _, accept, label in _firewalld_rules()}
    for program in ("iptables", "ip6tables"):
        found |= set(_iptables_rules(program))
    return found


def foreign_chains() -> frozenset[ForeignChain]:
    """Return the chains that would drop what is forwarded, one for each firewall.

    Docker's own place for others' rules before ufw's, before the built-in chain: an accept is
    final in each.
    """
    found = set()
    for program, docker, ufw, forward in (
        ("iptables", ForeignChain.DOCKER4, ForeignChain.UFW4, ForeignChain.FORWARD4),
        ("ip6tables", ForeignChain.DOCKER6, ForeignChain.UFW6, ForeignChain.FORWARD6),
    ):
        lines = _iptables_lines(program)
        chains = {line[1] for line in lines if line[0] == "-N"}
        jumps = [line for line in lines if line[:2] == ["-A", "FORWARD"]]
        drops = any(line[-1] in ("DROP", "REJECT") or "REJECT" in line for line in jumps)
        if docker.chain in chains:
            found.add(docker)
        elif ufw.chain in chains:
            found.add(ufw)
        elif ["-P", "FORWARD", "DROP"] in lines or drops:
            found.add(forward)
    if _firewalld_lines():
        found.add(ForeignChain.FIREWALLD)
    return frozenset(found)


def _iptables_words(accept: Accept, label: str) -> Sequence[str]:
    return shlex.split(render.iptables_rule(accept, label))


def _iptables_rules(program: str) -> list[tuple[Accept, str]]:
    family = "ip6" if program == "ip6tables" else "ip"
    chains = {one.chain: one for one in ForeignChain if one.family == family}
    found = []
    for line in _iptables_lines(program):
        words = dict(itertools.pairwise(line))
        label = marks.label_in(words.get("--comment", ""))
        chain = chains.get(words.get("-A", ""))
        if label is not None and chain is not None and {"-i", "-o"} <= set(words):
            found.append((Accept(chain, words["-i"], words["-o"]), label))
    return found


def _iptables_lines(program: str) -> list[list[str]]:
    if path_of(program) is None:
        return []
    try:
        text = _run(program, "-w", "-S")
    except SshvpnError:  # no such family in this kernel: nothing of it drops anything
        return []
    return [shlex.split(line) for line in text.splitlines() if line]


def _firewalld_lines() -> list[str]:
    try:
        return _run(
            "nft", "-a", "list", "chain", *ForeignChain.FIREWALLD.value.split()
        ).splitlines()
    except SshvpnError:
        return []


def _firewalld_rules() -> list[tuple[str, Accept, str]]:
    found = []
    for line in _firewalld_lines():
        words = shlex.split(line, comments=False)
        pairs = dict(itertools.pairwise(words))
        label = marks.label_in(pairs.get("comment", ""))
        if label is not None and {"iifname", "oifname", "handle"} <= set(pairs):
            accept = Accept(ForeignChain.FIREWALLD, pairs["iifname"], pairs["oifname"])
            found.append((pairs["handle"], accept, label))
    return found


# -- changes -------------------------------------------------------------------------------------

_NETLINK_NETFILTER = 12
_NFTABLES_GROUP = 7
"""NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h."""
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1


def monitor() -> socket.socket:
    """Return a socket that hears of every change of nftables, iptables-nft's too, by anybody.

    Whoever has it may read: to change anything it takes a capability of the one who writes, too
    (netlink_capable of the kernel). iptables-legacy is not heard.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    heard = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
    heard.bind((0, 0))
    heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
    return heard


# -- programs ------------------------------------------------------------------------------------


def _run(program: str, *words: str, text: str = "") -> str:
    """Run ``program`` and return what it printed. Raises SshvpnError with its first complaint."""
    path = path_of(program)
    if path is None:
        raise SshvpnError(
            f"{program} is not installed", f"install it: apt install {_PACKAGE[program]}"
        )
    try:
        done = subprocess.run(
            [path, *words],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            env=_ENVIRONMENT,
            cwd="/",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SshvpnError(f"{program}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise SshvpnError(f"{program}: {said}")
    return done.stdout


_PACKAGE = {"nft": "nftables", "iptables": "iptables", "ip6tables": "iptables"}
