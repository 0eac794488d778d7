"""Makes tunnels' connections inside a machine of the laboratory, as a line of JSON says each.

Run as `python -m tests.contract.carrier_driver`, by whoever shall be the supervisor.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.model import Destination, Direction, Listener, SshOptions, TcpEndpoint, TunnelProfile
from sshvpn.remote.protocol import Facts, RemoteEnd
from sshvpn.system.tunnel.agent_login import Timings
from sshvpn.system.tunnel.stream import StreamCarrier
from sshvpn.system.tunnel.w import OpensshCarrier, OpensshTunnel
from tests.contract.site import Person

LABEL = "3e8_0123456789"


class Site:
    """One carrier and its connection; the methods are what can be asked for."""

    def __init__(self, directory: str, hosts: str, transport: str, **timings: Any) -> None:
        Path(directory).mkdir(mode=0o700, exist_ok=True)
        make = {"w": OpensshCarrier, "stream": StreamCarrier}[transport]
        self.carrier = make(Path(directory), Path(hosts), Timings(**timings))
        self.connection: OpensshTunnel | None = None
        self.person: Person | None = None

    @property
    def stands(self) -> OpensshTunnel:
        assert self.connection is not None
        return self.connection

    async def check(self, **words: Any) -> None:
        await self.carrier.check(profile(**words))

    async def peers(self, **words: Any) -> list[str]:
        return list(await self.carrier.peers(profile(**words)))

    async def connect(
        self,
        unit: int = 0,
        timeout: float = 60,
        answers: dict[str, str] | None = None,
        **words: Any,
    ) -> dict[str, Any] | None:
        self.person = Person(**answers) if answers is not None else None
        device = asyncio.get_running_loop().create_future()
        device.set_result(unit)
        self.connection = await asyncio.wait_for(
            self.carrier.connect(profile(**words), LABEL, device, self.person), timeout
        )
        return shown(self.connection.facts)

    async def asked(self) -> int:
        return len(self.person.asked) if self.person else 0

    async def look(self, **words: Any) -> dict[str, Any] | None:
        return shown(await self.carrier.look(profile(**words), LABEL, None))

    async def configure(self, *addresses: str) -> None:
        end = RemoteEnd(tuple(ipaddress.ip_interface(address) for address in addresses))
        await self.stands.configure(end)

    async def listen(self, port: int) -> int:
        target = TcpEndpoint("localhost", port)
        self.listener = Listener(Direction.LOCAL, TcpEndpoint("127.0.0.1", 0), target)
        where = await self.stands.open_listener(self.listener)
        assert isinstance(where, TcpEndpoint)
        return where.port

    async def unlisten(self) -> None:
        await self.stands.close_listener(self.listener)

    async def wait_closed(self, timeout: float = 30) -> None:
        raise await asyncio.wait_for(self.stands.wait_closed(), timeout)

    async def is_closed(self) -> bool:
        """Tell whether it has ended, after a moment."""
        try:
            await asyncio.wait_for(self.stands.wait_closed(), 0.3)
        except asyncio.TimeoutError:
            return False
        return True

    async def life(self) -> int:
        found = self.stands.counters()
        return 0 if found is None else found.rx_bytes + found.tx_bytes

    async def close(self) -> None:
        await self.stands.close()
        await self.stands.close()

    async def most_memory_mb(self) -> int:
        """Tell how much memory this process has had at most (proc(5), VmHWM)."""
        status = Path("/proc/self/status").read_text(encoding="ascii")  # noqa: ASYNC240 (no disk)
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    async def ssh_pid(self) -> int:
        return self.stands._login.process.pid


def profile(host: str = "server", user: str | None = None, **words: Any) -> TunnelProfile:
    ssh = SshOptions(**words.pop("ssh", {}))
    return TunnelProfile(host, host, Destination(host, user), ssh=ssh, **words)


def shown(facts: Facts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    device = facts.device
    return {
        "user": facts.user,
        "rights": facts.rights.value,
        "device": device and device.name,
        "owner": device and device.owner,
        "addresses": [str(one.address) for one in facts.addresses],
    }


async def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    loop = asyncio.get_running_loop()
    site: Site | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request: dict[str, Any] = json.loads(line)
        if site is None:
            site = Site(**request)
            say({"result": None})
            continue
        do: Callable[..., Any] = getattr(site, request.pop("do"))
        try:
            say({"result": await do(*request.pop("words", ()), **request)})
        except SshvpnError as error:
            say({
                "error": error.code, "kind": type(error).__name__, "message": str(error),
                "hint": error.hint, "exit": error.exit_code, "retry": error.retry.value,
            })  # fmt: skip
        except asyncio.TimeoutError:
            say({
                "error": "timeout", "kind": "TimeoutError", "message": "timeout", "hint": "",
                "exit": 0, "retry": "",
            })  # fmt: skip


def say(record: object) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
