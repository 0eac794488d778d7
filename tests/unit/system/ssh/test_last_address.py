"""Where ssh goes while a name does not resolve: to the last address, as to that name."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from sshvpn.errors import (
    AuthenticationError,
    HostKeyChangedError,
    ResolveError,
    Retry,
    SshvpnError,
    UnreachableError,
)
from sshvpn.model import Destination, SshOptions
from sshvpn.system.ssh import last_address
from sshvpn.system.ssh.config import resolve
from sshvpn.system.ssh.last_address import (
    LastAddress,
    is_bound_to_name,
    is_numeric,
    is_same_but_address,
    lasting,
    words_for,
)
from sshvpn.system.ssh.peers import FirstHop

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")

ADDRESS = "198.51.100.20"
BOX = {"hostname": ("Box.example",), "port": ("22",), "user": ("alice",)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, f"-o HostName={ADDRESS} -o HostKeyAlias=box.example"),
        ({"port": ("2222",)}, f"-o HostName={ADDRESS} -o HostKeyAlias=[box.example]:2222"),
        ({"hostkeyalias": ("mine",), "port": ("2222",)}, f"-o HostName={ADDRESS}"),
    ],
)
def test_the_host_key_is_looked_up_as_it_was(more: dict[str, tuple[str, ...]], words: str) -> None:
    assert " ".join(words_for(BOX | more, ADDRESS)) == words


def test_nothing_but_the_address_may_be_another_thing() -> None:
    there = BOX | {"hostname": (ADDRESS,), "hostkeyalias": ("box.example",)}
    assert is_same_but_address(BOX, there)
    assert is_same_but_address(BOX, there | {"controlpath": ("/home/alice/198.51.100.20",)})
    assert not is_same_but_address(BOX, there | {"user": ("bob",)})
    assert not is_same_but_address(BOX, there | {"proxyjump": ("hop",)})
    assert not is_same_but_address(BOX | {"identityfile": ("~/.ssh/box",)}, there)


@pytest.mark.parametrize("file", ["~/.ssh/known/%h", "~/.ssh/known/%k", "/%C"])
def test_a_file_with_the_name_in_its_own_keeps_to_the_name(file: str) -> None:
    assert is_bound_to_name(BOX | {"userknownhostsfile": (file,)})
    assert not is_bound_to_name(BOX | {"controlpath": (file,)}), "ours goes before it"


def test_who_wants_the_address_checked_too_keeps_to_the_name() -> None:
    assert not is_bound_to_name(BOX | {"checkhostip": ("yes",), "default-checkhostip": ("yes",)})
    assert is_bound_to_name(BOX | {"checkhostip": ("yes",), "default-checkhostip": ("no",)})


def test_addresses_are_no_names() -> None:
    assert [is_numeric(host) for host in (ADDRESS, "fd00::1", "fe80::1%eth0")] == [True] * 3
    assert not is_numeric("box.example")


def test_an_address_is_remembered_as_ssh_takes_it() -> None:
    assert lasting("::ffff:198.51.100.20") == ADDRESS
    assert lasting("2001:db8::20") == "2001:db8::20"
    assert lasting("fe80::20") is None, "it is nothing without its adapter"


# Login by login ----------------------------------------------------------------------------


class Resolver:
    """Says ``answer``; nothing at all where that is None."""

    def __init__(self) -> None:
        self.answer: tuple[str, ...] | None = (ADDRESS,)
        self.asked: list[str] = []
        self.pending: list[asyncio.Future[tuple[str, ...]]] = []

    def ask(self, hop: FirstHop) -> asyncio.Future[tuple[str, ...]]:
        self.asked.append(hop.host)
        future: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        if self.answer is None:
            self.pending.append(future)
        else:
            future.set_result(self.answer)
        return future


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    fake = Resolver()
    monkeypatch.setattr(last_address, "ask_resolver", fake.ask)
    monkeypatch.setattr(last_address, "RESOLVE_WAIT_S", 0.01)
    return fake


class Logins:
    """Logins to ``host`` by a configuration file of LINES."""

    def __init__(self, path: Path, lines: Iterable[str] = (), host: str = "box.example") -> None:
        path.write_text("\n".join([*lines, ""]))
        self.last = LastAddress()
        self._destination = Destination(host)
        self._ssh = SshOptions(config_file=str(path))

    async def words(self) -> Sequence[str]:
        config = await resolve(self._destination, self._ssh)
        return await self.last.words(config, self._destination, self._ssh)

    async def again(self, resolver: Resolver, peer: str | None = ADDRESS) -> Sequence[str]:
        """Log in, and return the words of the next login, when no name resolves."""
        assert await self.words() == ()
        self.last.note(peer)
        resolver.answer = ()
        return await self.words()


USED = ("-o", f"HostName={ADDRESS}", "-o", "HostKeyAlias=box.example")


@needs_ssh
def test_a_name_that_does_not_resolve_is_its_last_address(
    tmp_path: Path, resolver: Resolver
) -> None:
    async def main() -> None:
        logins = Logins(tmp_path / "config")
        assert await logins.again(resolver) == USED
        assert logins.last.address == ADDRESS
        logins.last.note(ADDRESS)
        resolver.answer = (ADDRESS,)
        assert await logins.words() == (), "it resolves again"

    asyncio.run(main())


@needs_ssh
def test_the_first_login_is_left_to_the_name(tmp_path: Path, resolver: Resolver) -> None:
    async def main() -> None:
        resolver.answer = ()
        logins = Logins(tmp_path / "config")
        assert await logins.words() == ()
        assert await logins.words() == (), "no login has worked yet"

    asyncio.run(main())


@needs_ssh
def test_a_resolver_that_says_nothing_is_not_waited_for_and_its_late_answer_counts(
    tmp_path: Path, resolver: Resolver
) -> None:
    async def main() -> None:
        logins = Logins(tmp_path / "config")
        await logins.words()
        logins.last.note(ADDRESS)
        resolver.answer = None
        assert await logins.words() == USED
        assert await logins.words() == USED
        assert len(resolver.pending) == 1, "one question at a time"
        resolver.pending[0].set_result(("203.0.113.7",))
        assert await logins.words() == (), "the name has moved: to its new address"

    asyncio.run(main())


@needs_ssh
def test_where_the_connection_cannot_be_seen_the_resolver_has_said_it(
    tmp_path: Path, resolver: Resolver
) -> None:
    logins = Logins(tmp_path / "config")
    assert asyncio.run(logins.again(resolver, None)) == USED


@needs_ssh
@pytest.mark.parametrize(
    ("lines", "host"),
    [
        ((), ADDRESS),
        (("ProxyJump hop",), "box.example"),
        (("ProxyCommand nc %h %p",), "box.example"),
        (("Match host *.example", "  User bob"), "box.example"),
        (("UserKnownHostsFile ~/.ssh/known/%h",), "box.example"),
    ],
    ids=["address", "ProxyJump", "ProxyCommand", "Match", "file"],
)
def test_what_would_be_another_login_is_left_to_the_name(
    tmp_path: Path, resolver: Resolver, lines: Sequence[str], host: str
) -> None:
    logins = Logins(tmp_path / "config", lines, host)
    assert asyncio.run(logins.again(resolver)) == ()


@needs_ssh
def test_the_users_own_alias_and_port_stay(tmp_path: Path, resolver: Resolver) -> None:
    logins = Logins(tmp_path / "a", ["Host *", "  HostKeyAlias mine", "  Port 2222"])
    assert asyncio.run(logins.again(resolver)) == USED[:2]
    resolver.answer = (ADDRESS,)
    logins = Logins(tmp_path / "b", ["Port 2222", "ControlPath /tmp/%h-%C"])
    assert asyncio.run(logins.again(resolver)) == (*USED[:3], "HostKeyAlias=[box.example]:2222")


@needs_ssh
def test_what_an_old_address_costs_is_retried(tmp_path: Path, resolver: Resolver) -> None:
    changed = HostKeyChangedError("the host key is not the known one", "ask")
    refused = AuthenticationError("permission denied")
    gone: SshvpnError = UnreachableError("no route")

    async def main() -> None:
        logins = Logins(tmp_path / "a", ["GSSAPIAuthentication no"])
        assert logins.last.explained(changed) is changed
        await logins.again(resolver)
        told = logins.last.explained(changed)
        assert isinstance(told, ResolveError)
        assert told.retry is Retry.FOREVER
        assert str(told) == (
            f"box.example does not resolve, and at its last address, {ADDRESS}: {changed}"
        )
        assert told.hint == "ask"
        assert logins.last.explained(refused) is refused, "the key was that of the host"
        assert logins.last.explained(gone) is gone
        resolver.answer = (ADDRESS,)
        await logins.words()
        assert logins.last.explained(changed) is changed, "by its name"
        logins = Logins(tmp_path / "b", ["GSSAPIAuthentication yes"])
        await logins.again(resolver)
        assert isinstance(logins.last.explained(refused), ResolveError)

    asyncio.run(main())
