"""What the tests of commands share: a home of their own, and sessions that only talk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sshvpn.control import SessionDir
from sshvpn.control_server import ControlServer
from sshvpn.model import Destination, TunnelProfile
from sshvpn.system import paths
from sshvpn.wiring.places import session_path

CONFIG = """\
[tunnels.office]
host = "alice@vpn.example.com"
routes = ["10.20.0.0/16", "fd20::/48"]
exclude = ["10.20.9.0/24"]
lan = true
lan_interfaces = ["eth1"]
publish = ["8888"]
nat = false
mtu = 1400
remote_device = "tun8"
timeout = 12
ssh_options = { ConnectTimeout = "5" }

[tunnels.later]
host = "gpu"
portal_tokens = true

[tunnels.stream]
host = "gpu"
transport = "stream"

[forwards.notebook]
host = "alice@gpu"
specs = ["9999:8888"]
ssh_options = { Port = 2222 }
timeout = 7
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a user who has :data:`CONFIG`, and nothing that runs."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    file.chmod(0o600)
    runtime = tmp_path / "run"
    monkeypatch.setenv("SSHVPN_CONFIG", str(file))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("SSHVPN_HOST", raising=False)
    monkeypatch.setattr(paths, "runtime_dirs", lambda: (runtime,))
    return tmp_path


class Session:
    """A session in a thread: a real lock and control socket, and nothing that is kept up.

    ``ends`` says whether it obeys ``down``; ``warns`` is what it warns of then.
    """

    def __init__(self, path: Path, snapshot: Mapping[str, Any]) -> None:
        self.snapshot = dict(snapshot)
        self.commands: list[str] = []
        self.warns: tuple[str, ...] = ()
        self.on_attach: Callable[[], None] = lambda: None
        self._directory = SessionDir(path.parent, *path.name.split("-", maxsplit=1))
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._is_up.wait(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.server = ControlServer(
            lambda: self.snapshot,
            {"down": self._down, "wake": lambda: self._note("wake")},
            on_attach=self._attached,
        )
        await self.server.listen(self._directory.path / "control")
        self._is_up.set()
        await self._ending.wait()
        await self.server.close()
        self._is_up.clear()  # as a process, which is gone before its lock is free
        self._directory.close()

    def _note(self, command: str) -> None:
        self.commands.append(command)

    def _attached(self) -> None:
        self._note("attached")
        self.on_attach()

    def _down(self) -> None:
        self._note("down")
        for text in self.warns:
            self.server.notice("warning", text)
        self._ending.set()

    def publish(self, **changes: Any) -> None:
        """Change the snapshot, and tell who watches; in the session's thread or any other."""
        self.snapshot |= changes
        self._loop.call_soon_threadsafe(self.server.publish, dict(self.snapshot))

    @property
    def is_up(self) -> bool:
        return self._is_up.is_set()

    def close(self) -> None:
        """End it; twice is fine."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)


Begin = Callable[..., Session]


@pytest.fixture
def begin(home: Path) -> Iterator[Begin]:
    """Return what begins a session with a kind, a name and records; ends all in the end."""
    begun: list[Session] = []

    def begin_one(kind: str, name: str, *records: Mapping[str, Any], **said: Any) -> Session:
        snapshot = {
            "kind": kind,
            "name": name,
            "wanted": [],
            "state": "running",
            "records": list(records),
            "traffic": {"rx_bytes": None, "tx_bytes": None, "connections": None},
            **said,
        }
        path = home / "run" / f"{kind}-{len(begun)}-{name}"
        if kind == "tunnel":
            path = session_path(TunnelProfile(name, name, Destination(name)))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        begun.append(Session(path, snapshot))
        return begun[-1]

    yield begin_one
    for session in begun:
        session.close()
