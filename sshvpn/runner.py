"""Runs one session in this process: supervisor, control socket, signals, log.

The foreground command and the background process both end here; they differ in their front,
which is what a person sees.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sshvpn.announcing import Announcer
from sshvpn.boundary import Manager, Prompter, Way
from sshvpn.control import SessionDir
from sshvpn.control_server import ControlServer
from sshvpn.errors import FileOwnerError, SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.readiness import Readiness
from sshvpn.session import Session
from sshvpn.supervisor import Supervisor
from sshvpn.wire import checked_profile

_LOG_BYTES = 1 << 20
_EXIT_INTERRUPTED = 130
_TICK_S = 1.0
_UNTOLD: Mapping[str, list[str]] = {"names": [], "portal": []}
_WATCHDOG_SHARE = 3
"""A manager that wants to hear of us within N seconds hears of us every N / 3."""

log = logging.getLogger("sshvpn")


@dataclass(frozen=True, slots=True)
class Launcher:
    """The process that started this one: its socket, and whether a person sits there."""

    socket: socket.socket
    can_answer: bool


class Front(Protocol):
    """What a person sees of a session that runs in this process."""

    @property
    def prompter(self) -> Prompter | None:
        """Who can be asked here; None: nobody."""
        ...

    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Show how things stand."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Show a line of the log."""
        ...

    def is_gone(self) -> bool:
        """Whether the terminal that this was started at is gone."""
        ...

    def close(self) -> None:
        """Leave the terminal in order. The last call."""
        ...


class Exporter(Protocol):
    """Tells others how a session does, and listens for them already."""

    @property
    def url(self) -> str:
        """Where it is read."""
        ...

    def start(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Tell what ``snapshot`` returns, from now on; it is called in the running loop."""
        ...

    def close(self) -> None:
        """Tell no more. Twice is fine."""
        ...


async def run(
    session: Session,
    directory: SessionDir,
    *,
    log_file: Path | None,
    exporter: Exporter | None = None,
    front: Front | None = None,
    launcher: Launcher | None = None,
    way: Way | None = None,
    announcer: Announcer | None = None,
    manager: Manager | None = None,
    verbose: bool = False,
) -> int:
    """Run ``session`` until it ends, and return the exit code.

    ``log_file`` None: the log goes to stderr, as the journal wants it. ``manager`` is the
    service manager that started this process, and is told how it goes.
    ``way`` leads to its server. ``front`` is the terminal here; ``launcher`` started this
    process in the background and waits for the first ``running``: if it goes before that,
    everything is undone. ``announcer`` tells the LAN of it, where it may be shared.
    ``verbose``: the log has what ssh says of itself, too.
    Raises the SshvpnError of a first start that failed.
    """
    runner = _Runner(
        session,
        directory,
        front=front,
        exporter=exporter,
        way=way,
        announcer=announcer,
        manager=manager,
    )
    with _logging(log_file, runner.take_record, logging.DEBUG if verbose else logging.INFO):
        return await runner.run(launcher)


class _Runner:
    def __init__(
        self,
        session: Session,
        directory: SessionDir,
        *,
        front: Front | None,
        exporter: Exporter | None,
        way: Way | None,
        announcer: Announcer | None,
        manager: Manager | None,
    ) -> None:
        self._front = front
        self._exporter = exporter
        self._announcer = announcer
        self._session = session
        self._manager = manager
        self._readiness = Readiness(manager) if manager else None
        self._directory = directory
        self._exit_code = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._control = ControlServer(
            self._snapshot,
            {"down": self._down, "wake": self._wake},
            {"typed": self._typed, "restart": self._restart, "look": self._look},
            on_attach=self._attached,
        )
        self._supervisor = Supervisor(
            session,
            prompter=(front.prompter if front else None) or self._control,
            way=way,
            timeout_s=session.timeout_s,
            observe=self._observe,
        )
        session.on_change = self._supervisor.publish
        if announcer is not None:
            announcer.on_change = self._supervisor.publish

    async def run(self, launcher: Launcher | None) -> int:
        self._loop = asyncio.get_running_loop()
        error: SshvpnError | None = None
        await self._control.listen(self._directory.path / "control")
        if launcher is not None:
            await self._control.adopt(
                launcher.socket, self._launcher_gone, can_answer=launcher.can_answer
            )
        if self._exporter is not None:
            self._exporter.start(self._snapshot)
            log.info("metrics at %s", self._exporter.url)
        self._watch_signals(self._loop)
        ticker = asyncio.create_task(self._tick()) if self._front else None
        alive = asyncio.create_task(self._say_alive())
        try:
            error = await self._supervisor.run()
        finally:
            alive.cancel()
            if ticker is not None:
                ticker.cancel()
            if error is not None and self._readiness is not None:
                self._readiness.failed(error)
            if self._announcer is not None:
                await self._announcer.close()
            log.info("ended")
            if self._front is not None:
                self._front.close()
            if self._exporter is not None:
                self._exporter.close()
            await self._control.close(error)
            self._directory.remove()
        if error is not None:
            raise error
        return self._exit_code

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._front is not None:
                self._front.update(self._snapshot())

    async def _say_alive(self) -> None:
        """Tell a manager that watches that this loop goes round: a process that hangs does not."""
        watchdog_s = self._manager.watchdog_s if self._manager else None
        while self._manager is not None and watchdog_s is not None:
            self._manager.say(WATCHDOG="1")
            await asyncio.sleep(watchdog_s / _WATCHDOG_SHARE)

    def take_record(self, level: str, text: str) -> None:
        """Hand a line of the log to who watches; called in whatever thread logs."""
        if self._loop is None or self._loop.is_closed():
            return
        if threading.get_ident() == self._thread:
            self._notice(level, text)
        else:
            self._loop.call_soon_threadsafe(self._notice, level, text)

    def _notice(self, level: str, text: str) -> None:
        self._control.notice(level, text)
        if self._front is not None:
            self._front.notice(level, text)

    def _observe(self, snapshot: dict[str, Any]) -> None:
        if self._announcer is not None:
            self._announcer.observe(snapshot)
        self._add_names(snapshot)
        self._control.publish(snapshot)
        if self._readiness is not None:
            self._readiness.take(snapshot)
            if self._readiness.is_for_manager(snapshot):
                self._exit_code = FileOwnerError.exit_code
                self._supervisor.stop()
        if self._front is not None:
            self._front.update(snapshot)

    def _snapshot(self) -> dict[str, Any]:
        snapshot = self._supervisor.snapshot()
        self._add_names(snapshot)
        return snapshot

    def _add_names(self, snapshot: Mapping[str, Any]) -> None:
        facts = _UNTOLD if self._announcer is None else self._announcer.facts()
        for record in snapshot["records"]:
            record.update(facts)

    # What comes from outside ------------------------------------------------------------

    def _watch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGTERM, self._down)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGUSR1, self._log_status)

    def _down(self) -> None:
        if self._announcer is not None:
            self._announcer.withdraw()
        self._supervisor.stop()

    def _interrupt(self) -> None:
        self._exit_code = _EXIT_INTERRUPTED
        self._down()

    def _hang_up(self) -> None:
        # HUP means "reconnect now", but also that the terminal was closed.
        if self._front is not None and self._front.is_gone():
            self._down()
        else:
            if self._readiness is not None:
                self._readiness.reloading()
            self._supervisor.reconnect()

    def _wake(self) -> None:
        self._supervisor.reconnect()

    async def _typed(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"typed": self._session.profile.typed}

    async def _look(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"has_service": await self._session.has_service()}

    async def _restart(self, message: Mapping[str, Any]) -> dict[str, Any]:
        plain = message.get("profile")
        await self._supervisor.restart(None if plain is None else checked_profile(plain))
        if self._announcer is not None:
            self._announcer.adopt(self._session.profile)
        return {"snapshot": self._snapshot()}

    def _attached(self) -> None:
        self._supervisor.wake(login=True)

    def _launcher_gone(self) -> None:
        if not self._supervisor.life.has_run:
            self._supervisor.stop()

    def _log_status(self) -> None:
        snapshot = self._supervisor.snapshot()
        for record in snapshot["records"]:
            where = record.get("listen") or record.get("remote_addresses") or ["-"]
            log.info("status: %s %s %s", record["state"], ", ".join(where), snapshot["traffic"])


class _RecordSink(logging.Handler):
    def __init__(self, take: Callable[[str, str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.levelname.lower(), record.getMessage())


class _logging:  # noqa: N801 (a context manager, used as a function)
    """Sends the log of this package to a file and to whoever watches, while entered.

    Without a file it goes to stderr, each line with its priority, as sd-daemon(3) has it.
    """

    def __init__(self, path: Path | None, take: Callable[[str, str], None], level: int) -> None:
        self._level = level
        # What cannot be written (a full disk) is lost, and the forward goes on.
        logging.raiseExceptions = False
        self._handlers: list[logging.Handler] = []
        if path is None:
            journal = logging.StreamHandler(sys.stderr)
            journal.setFormatter(_JournalFormatter())
            self._handlers += [journal, _RecordSink(take)]
            return
        try:
            file = logging.handlers.RotatingFileHandler(
                path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8"
            )
        except OSError as error:
            take("warning", f"no log is kept: {path}: {error.strerror}")
        else:
            file.setFormatter(_UtcFormatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
            self._handlers.append(file)
        # Who hears of a line may look into the file at once (sshvpn logs -f).
        self._handlers.append(_RecordSink(take))

    def __enter__(self) -> None:
        log.setLevel(self._level)
        log.propagate = False
        for handler in self._handlers:
            log.addHandler(handler)

    def __exit__(self, *_: object) -> None:
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()


class _UtcFormatter(logging.Formatter):
    def formatTime(  # noqa: N802 (the name is logging's)
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        from sshvpn.supervisor import rfc3339

        del datefmt
        return rfc3339(record.created)


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for least, number in _PRIORITIES if record.levelno >= least)
        return f"<{priority}>{record.getMessage()}"


_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""Levels of logging, the highest first, with those of syslog(3)."""
