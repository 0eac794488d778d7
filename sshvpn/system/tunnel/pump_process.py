"""The pump on this machine: a process of its own that is handed its descriptors, and no right.

It is told the server's device in the one line of its standard input, whose end is its own, and
tells in lines what becomes of it (sshvpn.stream.process.pump_local).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

import sshvpn
from sshvpn.errors import printable
from sshvpn.stream import program
from sshvpn.system.process import ChildLines, confined
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.stream")

_PACKAGE = str(Path(sshvpn.__file__).parent.parent)
_START = (
    "import sys;sys.path.insert(0,sys.argv[1]);from sshvpn.stream.process import pump_local;"
    "sys.exit(pump_local(*map(int,sys.argv[2:5]),sys.argv[5]))"
)
_END_S = 1.0


class PumpEndError(Exception):
    """Why a pump has ended: ``code`` is one of docs/protocol.md, or the pump's own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class PumpProcess:
    """One pump. Start it once; close it, twice is fine.

    ``ready`` is done once packets are carried; ``gone`` when it has ended, with why.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[PumpEndError] = loop.create_future()
        self._process: asyncio.subprocess.Process | None = None
        self._control = -1
        self._said = ChildLines(self._take, 4096)
        self._cried = ChildLines(lambda line: log.warning("pump: %s", printable(line)), 4096)
        self._watching: asyncio.Task[None] | None = None

    async def start(self, tun: int, source: int, sink: int, nonce: str) -> None:
        """Start it on these descriptors, which it inherits; they stay the caller's to close.

        It carries packets once :meth:`name_peer` has told it of the other end.
        """
        words = [_PACKAGE, *map(str, (tun, source, sink)), nonce]
        control, self._control = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-c", _START, *words),
                stdin=control,
                stdout=self._said.write_fd,
                stderr=self._cried.write_fd,
                pass_fds=(tun, source, sink),
                start_new_session=True,
                env=program.ENVIRONMENT,
                preexec_fn=confined(),
            )
        finally:
            os.close(control)
        self._said.release()
        self._cried.release()
        self._watching = asyncio.create_task(self._watch())

    def name_peer(self, device: str) -> None:
        """Let it tell the other pump which device is its own."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and tells why
            os.write(self._control, program.device_line(device))

    @property
    def pid(self) -> int | None:
        """The process's number, None before it is started."""
        return self._process.pid if self._process else None

    async def _watch(self) -> None:
        assert self._process is not None  # noqa: S101 (it was just started)
        status = await self._process.wait()
        await self._said.wait_end(_END_S)
        self._end(PumpEndError("killed", f"the pump on this machine ended with status {status}"))

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready" and not self.ready.done():
            self.ready.set_result(None)
        elif word == "account":
            log.debug("pump: %s", printable(rest))
        elif word == "error":
            code, _, text = rest.partition(" ")
            self._end(PumpEndError(code, printable(text)))
        elif word == "end":
            self._end(PumpEndError("end", "the other end has ended"))

    def _end(self, why: PumpEndError) -> None:
        if not self.gone.done():
            self.gone.set_result(why)

    async def close(self) -> None:
        """Let it say END, and end it."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1
        process = self._process
        if process is not None and process.returncode is None:
            try:
                await within(_END_S, process.wait())
            except asyncio.TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._watching is not None:
            self._watching.cancel()
        self._said.close()
        self._cried.close()
