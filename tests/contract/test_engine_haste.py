"""Nothing of a login waits for an acknowledgement, and what is a proxy's is left alone."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from sshvpn.system.network.sockets import ProcessSockets
from sshvpn.system.openssh import engine as openssh
from sshvpn.system.openssh.engine import OpensshEngine
from tests.contract.site import Person, Site, through_a_proxy
from tests.contract.sshd import make_key


@pytest.mark.parametrize("engine", [OpensshEngine()], ids=["openssh"])
async def test_the_connection_of_a_proxy_is_left_alone(site: Site) -> None:
    site.config |= through_a_proxy(site)
    async with site.connected() as connection:
        assert isinstance(connection, openssh.Connection)
        with connection._process.connection() as sock:
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


@pytest.mark.parametrize("engine", [OpensshEngine()], ids=["openssh"])
async def test_ssh_sends_at_once_before_it_has_logged_in(site: Site) -> None:
    class Asked(Person):
        at_once = -1

        async def ask(self, prompt: str, *, echo: bool) -> str | None:
            (pid,) = [int(pid) for pid in children() if b"ssh\0" in cmdline(pid)]
            with closing(ProcessSockets(pid)) as process:
                for _, sock in process.borrow_all():
                    self.at_once = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            return await super().ask(prompt, echo=echo)

    def children() -> list[str]:
        return Path("/proc/thread-self/children").read_text().split()

    def cmdline(pid: str) -> bytes:
        return Path(f"/proc/{pid}/cmdline").read_bytes()

    key = make_key(site.directory / "locked", passphrase="open sesame")
    site.sshd.authorize(key)
    site.config["IdentityFile"] = str(key)
    person = Asked(passphrase="open sesame")
    async with site.connected(person):
        pass
    assert person.at_once == 1
