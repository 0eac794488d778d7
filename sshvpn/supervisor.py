"""Keeps one session up: turns the lifecycle's commands into calls, and calls into events.

The decisions are lifecycle.step's. This shell owns the clock, the randomness and the tasks; it
handles one event at a time, and an attempt that was given up can not speak any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

from sshvpn import lifecycle
from sshvpn.boundary import Prompter, Way
from sshvpn.errors import (
    ConnectionLostError,
    NotRunningError,
    Retry,
    SshvpnError,
    UnknownSshError,
    UnreachableError,
)
from sshvpn.lifecycle import Life
from sshvpn.model import State
from sshvpn.session import Session
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.supervisor")

ATTEMPT_S = 120.0
"""How long an attempt may take in which nobody is asked: what hangs longer is begun anew."""


class Supervisor:
    """Runs one session from start to end.

    ``way`` is the way to its server, where there is one to be watched. ``observe`` is called
    with the snapshot after every change; ``prompter`` is whoever can be asked (its ``ask``
    returns None where nobody can).
    """

    def __init__(
        self,
        session: Session,
        *,
        prompter: Prompter | None = None,
        way: Way | None = None,
        timeout_s: float | None = None,
        observe: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._prompter = None if prompter is None else _CountingPrompter(prompter, self)
        self._way = way
        self._timeout_s = timeout_s
        self._observe = observe
        self._life = Life()
        self._since = time.time()
        self._events: asyncio.Queue[tuple[int | None, lifecycle.Event]] = asyncio.Queue()
        self._attempt_number = 0
        self._attempt: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._lookout: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._random = random.Random()  # noqa: S311 (jitter)
        self._restarts: list[tuple[int, asyncio.Future[None]]] = []

    # From outside -----------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for an end in good order; :meth:`run` returns when it is reached."""
        self.post(lifecycle.Stop())

    def wake(self, *, login: bool = False) -> None:
        """Try again now, if it waits; ``login``: somebody is there to be asked."""
        self.post(lifecycle.Wake(login=login))

    def reconnect(self) -> None:
        """Make a new connection now: what waits tries again, what runs or hangs is made anew."""
        if self._life.phase is State.RUNNING:
            self.post(lifecycle.Failed(ConnectionLostError("a new connection was asked for")))
        self.post(lifecycle.Wake(asked=True))

    async def restart(self, profile: Any = None) -> None:
        """Make a new connection, with ``profile`` (None: as it is); return when it works.

        Raises what is wrong with the profile: it goes on with the one before then. What time can
        mend is waited for.
        """
        if self._life.phase in (None, State.STOPPING):
            raise NotRunningError("it is just ending")
        await self._session.adopt(profile)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._restarts.append((self._attempt_number, done))
        if self._life.phase in (State.RUNNING, State.STARTING):
            self.post(lifecycle.Failed(ConnectionLostError("a restart was asked for")))
        is_there = self._prompter is not None and self._prompter.is_there()
        self.post(lifecycle.Wake(login=is_there, asked=True))
        await done

    def post(self, event: lifecycle.Event) -> None:
        """Take ``event`` from outside; to be called in the supervisor's loop."""
        self._events.put_nowait((None, event))

    @property
    def life(self) -> Life:
        """Where the session stands."""
        return self._life

    def snapshot(self) -> dict[str, Any]:
        """Return what ``status --json`` says, and what a live view needs beside it."""
        life = self._life
        state = (life.phase or State.STOPPING).value
        own = {
            "uid": os.getuid(),
            "state": state,
            "since": rfc3339(self._since),
            "reconnects": life.reconnects,
            "retry_at": self._wall(life.retry_at),
            "pid": os.getpid(),
        }
        records = []
        for record in self._session.describe():
            error = life.last_error.as_record() if life.last_error else record["last_error"]
            records.append({**record, **own, "last_error": error})
            if life.phase is State.RUNNING and record.get("listen") == []:
                # The connection stands, and nobody is served: its adapters have no address.
                records[-1]["state"] = State.BACKOFF.value
        traffic = self._session.traffic()
        return {
            "kind": self._session.kind,
            "name": self._session.name,
            "wanted": list(self._session.wanted),
            "state": state,
            "records": records,
            "traffic": {
                "rx_bytes": traffic.rx_bytes,
                "tx_bytes": traffic.tx_bytes,
                "connections": traffic.connections,
                "rtt_ms": None if traffic.rtt_s is None else round(traffic.rtt_s * 1000, 3),
            },
        }

    # The loop ---------------------------------------------------------------------------

    async def run(self) -> SshvpnError | None:
        """Run until stopped (None), or until the first start is given up (the error).

        Cancelled: the session is torn down all the same.
        """
        self.post(lifecycle.Start(self._timeout_s))
        watcher = asyncio.create_task(self._follow_way(self._way)) if self._way else None
        mourner = asyncio.create_task(self._await_gone())
        try:
            while True:
                number, event = await self._events.get()
                if number is not None and number != self._attempt_number:
                    continue
                ended, error = await self._handle(event)
                if ended:
                    return error
        finally:
            self._set_timer(None)
            await _end(watcher)
            await _end(mourner)
            await self._end_lookout()
            await self._end_attempt()
            self._end_restarts(NotRunningError("it has ended"))
            await self._session.close()

    async def _handle(self, event: lifecycle.Event) -> tuple[bool, SshvpnError | None]:
        before = self._life
        now = time.monotonic()
        self._life, commands = lifecycle.step(before, event, now, self._random.random())
        if self._life.phase is not before.phase:
            await self._enter_phase()
        for command in commands:
            match command:
                case lifecycle.Connect(may_prompt):
                    self._connect(may_prompt=may_prompt)
                case lifecycle.Disconnect():
                    await self._disconnect()
                case lifecycle.SetTimer(at):
                    self._set_timer(at)
                case lifecycle.WatchWay():
                    self._look_out()
                case lifecycle.AwaitLogin():
                    self._attempt = asyncio.create_task(self._await_login(self._attempt_number))
                case lifecycle.GiveUp(error):
                    self.publish()
                    return True, error
                case lifecycle.Finish():
                    self.publish()
                    return True, None
        self.publish()
        return False, None

    async def _enter_phase(self) -> None:
        self._since = time.time()
        self._log_change()
        if self._life.phase not in (State.BACKOFF, State.STARTING):
            await self._end_lookout()

    def publish(self) -> None:
        """Tell the observer how things stand."""
        self._observe(self.snapshot())

    def _log_change(self) -> None:
        life = self._life
        phase = life.phase.value if life.phase else "stopped"
        if life.phase in (State.BACKOFF, State.FAILED) and life.last_error is not None:
            wait = ""
            if life.phase is State.BACKOFF and life.retry_at is not None:
                wait = f", next try in {max(0.0, life.retry_at - time.monotonic()):.1f} s"
            # Without a retry it is a person's turn.
            why = life.last_error if wait else life.last_error.as_record()["message"]
            # Not a warning: who sees the state sees this, and warnings are shown beside it.
            log.info("%s: %s%s", phase, why, wait)
        else:
            log.info("%s", phase)

    # The attempt ------------------------------------------------------------------------

    def _connect(self, *, may_prompt: bool) -> None:
        if self._attempt is not None:  # it waited for a login that is possible now
            self._attempt.cancel()
        self._attempt_number += 1
        asked = self._prompter
        prompter = asked if may_prompt and asked is not None and asked.is_there() else None
        self._attempt = asyncio.create_task(self._try(self._attempt_number, prompter))

    async def _try(self, number: int, prompter: Prompter | None) -> None:
        try:
            error = await self._stand(number, prompter)
        except Exception as bug:
            log.debug("unexpected", exc_info=True)
            error = UnknownSshError(
                f"something unexpected: {type(bug).__name__}: {bug}",
                "please report it, with what --debug shows",
            )
        self._events.put_nowait((number, lifecycle.Failed(error)))

    async def _stand(self, number: int, prompter: Prompter | None) -> SshvpnError:
        """Make the connection; return why it was not made, or has ended."""
        try:
            await _within(None if prompter else ATTEMPT_S, self._session.bring_up(prompter))
            self._events.put_nowait((number, lifecycle.Connected()))
            self._end_restarts(None, number)
            if self._way is not None:
                self._noting = asyncio.create_task(self._way.note())
            return await self._session.wait_lost()
        except SshvpnError as error:
            if error.retry is Retry.FOREVER or not self._session.go_back():
                return error
            self._end_restarts(error, number)
            return ConnectionLostError(f"the profile before is taken again: {error.message}")

    async def _await_gone(self) -> None:
        self.post(lifecycle.Gone(await self._session.wait_gone()))

    def _end_restarts(self, error: SshvpnError | None, attempt: int | None = None) -> None:
        """Tell those who wait how it went, in an ``attempt`` that came after they asked."""
        for asked in list(self._restarts):
            before, done = asked
            if attempt is not None and attempt <= before:
                continue
            self._restarts.remove(asked)
            if done.cancelled():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    async def _await_login(self, number: int) -> None:
        await self._session.wait_login_possible()
        self._events.put_nowait((number, lifecycle.LoginPossible()))

    async def _disconnect(self) -> None:
        await self._end_attempt()
        await self._session.tear_down()

    async def _end_attempt(self) -> None:
        self._attempt_number += 1
        if self._attempt is not None:
            self._attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._attempt
            self._attempt = None
        noting, self._noting = self._noting, None
        await _end(noting)

    # The way to the server --------------------------------------------------------------

    async def _follow_way(self, way: Way) -> None:
        async for _ in way.changes():
            if self._life.phase is State.RUNNING and way.is_gone():
                log.info("the way to the server is another one")
                self._session.forsake()
                lost = ConnectionLostError("the way to the server has changed")
                self.post(lifecycle.Failed(lost))
            elif self._life.phase is State.RUNNING:
                self._session.doubt()
            self.post(lifecycle.Wake())

    def _look_out(self) -> None:
        if self._way is not None and (self._lookout is None or self._lookout.done()):
            self._lookout = asyncio.create_task(self._await_way(self._way))

    async def _await_way(self, way: Way) -> None:
        if await way.wait_open():
            self.post(lifecycle.WayOpen())

    async def _end_lookout(self) -> None:
        lookout, self._lookout = self._lookout, None
        await _end(lookout)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            wait = max(0.0, at - time.monotonic())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(wait, self.post, lifecycle.TimerFired())

    @staticmethod
    def _wall(at: float | None) -> str | None:
        return None if at is None else rfc3339(time.time() + at - time.monotonic())


async def _within(seconds: float | None, attempt: Awaitable[None]) -> None:
    try:
        await within(seconds, attempt)
    except asyncio.TimeoutError as error:
        raise UnreachableError(f"the login did not come to its end in {seconds:.0f} s") from error


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel ``task`` and wait until it has ended; what it failed of is told in the log only."""
    if task is None:
        return
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, Exception):
        log.warning("the way to the server is not watched: %s", outcome)


class _CountingPrompter:
    """Tells the lifecycle when a prompt is open, so that the first start's clock stands."""

    def __init__(self, inner: Prompter, supervisor: Supervisor) -> None:
        self._inner = inner
        self._supervisor = supervisor

    def is_there(self) -> bool:
        return self._inner.is_there()

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        self._supervisor.post(lifecycle.Prompting(waiting=True))
        try:
            return await self._inner.ask(prompt, echo=echo)
        finally:
            self._supervisor.post(lifecycle.Prompting(waiting=False))

    async def tell(self, text: str) -> None:
        await self._inner.tell(text)


def rfc3339(seconds: float) -> str:
    """Return a point in time (seconds since the epoch) as RFC 3339 says, in UTC."""
    at = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
