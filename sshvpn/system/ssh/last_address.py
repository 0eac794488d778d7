"""The last good address of a host: where ssh goes while the host's name does not resolve.

A resolver may be behind the very tunnel that is to come back. The host key is checked as ever,
by the name that known_hosts has; whatever else ssh_config says for the name must be what it says
for the address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Sequence

from sshvpn.errors import (
    AuthenticationError,
    HostKeyChangedError,
    HostKeyUnknownError,
    ResolveError,
    SshvpnError,
)
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh.config import Config, is_chosen, resolve
from sshvpn.system.ssh.peers import RESOLVE_WAIT_S, FirstHop, ask_resolver, direct_hop

log = logging.getLogger("sshvpn.address")

_SSH_PORT = 22
_ANOTHERS = {"hostname", "hostkeyalias"}
"""Keys that shall be others."""
_OURS = {"controlpath", "localcommand", "remotecommand"}
"""Keys that our own words go before in any case; ssh prints some of them with the name in them."""
_OF_NAME = re.compile(r"%[hkC]")
"""Tokens that stand for the name: what they are part of would be something else."""


class LastAddress:
    """Of the logins to one host, whatever makes them."""

    def __init__(self) -> None:
        self._hop: FirstHop | None = None  # of the login that is being made
        self._known: tuple[FirstHop, str] | None = None
        self._asked: tuple[FirstHop, asyncio.Future[tuple[str, ...]]] | None = None
        self._used: Config | None = None

    async def words(
        self,
        config: Config,
        destination: Destination,
        ssh_options: SshOptions,
        extra: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """Return the words that lead the next login to the last good address.

        ``config`` is what resolve() has just said of the other three. None where the name
        resolves, where no login was made before, and where anything but the address would change.
        A resolver that says nothing is waited for as long as RESOLVE_WAIT_S.
        """
        self._used = None
        self._hop = hop = direct_hop(config)
        if hop is None or is_numeric(hop.host):
            self._hop = None
            return ()
        if self._asked is None or self._asked[0] != hop:
            self._asked = hop, ask_resolver(hop)
        address = self.address
        if address is None:
            return ()
        if await self._is_resolved() or is_bound_to_name(config):
            return ()
        words = words_for(config, address)
        try:
            other = await resolve(destination, ssh_options, (*extra, *words))
        except SshvpnError:
            return ()
        if not is_same_but_address(config, other):
            log.info("%s does not resolve, and ssh_config says otherwise for its address", hop.host)
            return ()
        log.info("%s does not resolve: by its last address, %s", hop.host, address)
        self._used = config
        return words

    async def _is_resolved(self) -> bool:
        """Whether the resolver knows the name; an answer that is late counts the next time."""
        assert self._asked is not None  # noqa: S101 (it was just asked)
        _, answer = self._asked
        await asyncio.wait({answer}, timeout=RESOLVE_WAIT_S)
        if not answer.done():
            return False
        self._asked = None
        return bool(answer.result())

    def note(self, peer: str | None) -> None:
        """Remember where a login that worked has led to: to ``peer``, None if that is unknown."""
        if self._hop is None:
            return
        asked, self._asked = self._asked, None
        if peer is None and asked is not None and asked[1].done():
            peer = next(iter(asked[1].result()), None)
        address = None if peer is None else lasting(peer)
        if address is not None:
            self._known = self._hop, address

    @property
    def leads_to(self) -> str | None:
        """Where the words lead that were returned last, None where there were none."""
        return self.address if self._used is not None else None

    @property
    def address(self) -> str | None:
        """Where the last login led to, None where that is unknown, or not the host's own."""
        return self._known[1] if self._known is not None and self._known[0] == self._hop else None

    def explained(self, error: SshvpnError) -> SshvpnError:
        """Return what ``error`` means to the login: time may mend what an old address costs.

        Somebody else may be there by now, and Kerberos knows hosts by their names.
        """
        if self._used is None or self._hop is None:
            return error
        costs: tuple[type[SshvpnError], ...] = (HostKeyChangedError, HostKeyUnknownError)
        if self._used.get("gssapiauthentication") == ("yes",):
            costs += (AuthenticationError,)
        if not isinstance(error, costs):
            return error
        return ResolveError(
            f"{self._hop.host} does not resolve, and at its last address, {self.address}: {error}",
            error.hint,
        )


def words_for(config: Config, address: str) -> tuple[str, ...]:
    """Return the words that lead ssh to ``address``, with the host key of ``config``'s host.

    The user's own HostKeyAlias stays; else it is the name as ssh looks it up (sshconnect.c,
    put_host_port), since an alias stands alone, whatever the port (ssh_config(5)).
    """
    words = ("-o", f"HostName={address}")
    if "hostkeyalias" in config:
        return words
    name, port = config["hostname"][0].lower(), int(config["port"][0])
    alias = name if port == _SSH_PORT else f"[{name}]:{port}"
    return (*words, "-o", f"HostKeyAlias={alias}")


def is_same_but_address(config: Config, other: Config) -> bool:
    """Whether ssh says of the address, in ``other``, what it says of the name in ``config``."""
    keys = (config.keys() | other.keys()) - _ANOTHERS - _OURS
    return all(config.get(key) == other.get(key) for key in keys)


def is_bound_to_name(config: Config) -> bool:
    """Whether something would be another thing for an address, whatever ``ssh -G`` says.

    That is a file with the name in its own, and the address's key, where the user wants it
    checked, too.
    """
    return (is_chosen(config, "checkhostip") and config["checkhostip"] == ("yes",)) or any(
        _OF_NAME.search(value)
        for key, values in config.items()
        if key not in _ANOTHERS | _OURS
        for value in values
    )


def is_numeric(host: str) -> bool:
    """Whether ``host`` is an address, and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def lasting(peer: str) -> str | None:
    """Return ``peer`` as ssh takes it, None for an address that is nothing without its adapter."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    is_of_adapter = isinstance(address, ipaddress.IPv6Address) and address.is_link_local
    return None if is_of_adapter else str(address)
