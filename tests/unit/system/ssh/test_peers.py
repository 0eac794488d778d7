"""The addresses of a name, asked of this machine's resolver."""

from __future__ import annotations

import asyncio
import socket

from sshvpn.system.ssh.peers import FirstHop, ask_resolver, prefixes_of


def addresses(host: str) -> tuple[str, ...]:
    async def ask() -> tuple[str, ...]:
        return await ask_resolver(FirstHop(host, 22, socket.AF_UNSPEC))

    return asyncio.run(ask())


def test_an_address_of_an_adapter_is_of_use_with_that_alone() -> None:
    number = socket.if_nametoindex("lo")
    assert addresses("fe80::1%lo") == (f"fe80::1%{number}",)
    assert addresses("::1") == ("::1",)
    assert addresses("127.0.0.1") == ("127.0.0.1",)
    assert prefixes_of(addresses("fe80::1%lo")) == []


def test_what_does_not_resolve_has_none() -> None:
    assert addresses("no such name") == ()
