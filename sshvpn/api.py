"""The Python interface: a forward inside this process.

::

    import requests, sshvpn

    with sshvpn.forward("gpu-box", "9999:8888") as notebook:
        requests.get(notebook.url)

It is the same session as the command's, kept up in a thread of its own: lost connections are
made again, and leaving the ``with`` block ends it. ``sshvpn status`` does not show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

from sshvpn.errors import SshvpnError, UsageError
from sshvpn.model import EngineName, ForwardProfile, SshOptions
from sshvpn.spec import (
    check_jump,
    parse_destination,
    parse_forward,
    parse_ssh_option,
    refuse_twins,
)
from sshvpn.supervisor import Supervisor
from sshvpn.wiring import forwards, outside

# What happens is told to the log "sshvpn"; a program that wants to see it adds a handler.
logging.getLogger("sshvpn").addHandler(logging.NullHandler())

Ask: TypeAlias = "Callable[[str], str | None]"


def forward(
    host: str,
    *specs: str,
    bind: str | Sequence[str] = (),
    engine: str = "sshtunnel",
    config_file: str | None = None,
    identity_files: Sequence[str] = (),
    jump: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout_s: float | None = 30.0,
    ask: Ask | None = None,
) -> Forward:
    """Return a forward to ``host`` that starts when it is entered (``with``) or started.

    ``host`` and ``specs`` are as on the command line (``"9999:8888"``; ``"0:8888"`` takes any
    free port). ``bind`` has addresses or adapters to listen on instead of loopback;
    ``config_file``, ``identity_files``, ``jump`` and ``options`` are ssh's ``-F -i -J -o``.
    ``engine`` is ``sshtunnel`` (in this process), ``openssh`` or ``auto``. ``timeout_s`` bounds
    the start (None: no bound). ``ask`` is called with the words of a prompt, in a thread, and
    returns what a person typed, or None; without it nobody is asked.

    Raises UsageError for a wrong word; nothing is connected yet.
    """
    if not specs:
        raise UsageError("no SPEC", 'say what to forward: forward("gpu-box", "9999:8888")')
    ssh = SshOptions(
        config_file=config_file,
        identity_files=tuple(identity_files),
        jump=None if jump is None else check_jump(jump),
        options=tuple(parse_ssh_option(f"{key}={value}") for key, value in (options or {}).items()),
    )
    profile = ForwardProfile(
        name=host,
        host=host,
        destination=parse_destination(host),
        specs=tuple(parse_forward(spec) for spec in specs),
        binds=(bind,) if isinstance(bind, str) else tuple(bind),
        engine=_engine(engine),
        ssh=ssh,
        timeout_s=timeout_s,
    )
    refuse_twins(profile.specs, profile.binds)
    return Forward(profile, ask)


class Forward:
    """A forward that is kept up by a thread. Made by :func:`forward`; may be started once."""

    def __init__(self, profile: ForwardProfile, ask: Ask | None) -> None:
        self._profile = profile
        self._prompter = None if ask is None else _Asker(ask)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor: Supervisor | None = None
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._snapshot: Mapping[str, Any] = {}

    def start(self) -> Forward:
        """Connect, and return when it works.

        Raises the SshvpnError that stopped it; nothing is left behind then.
        """
        if self._thread is not None:
            raise RuntimeError("a forward can be started once")
        self._thread = threading.Thread(target=self._run, name="sshvpn", daemon=True)
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:
            self.close()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def close(self) -> None:
        """End it, and wait until nothing of it is left. May be called twice."""
        loop, supervisor, thread = self._loop, self._supervisor, self._thread
        if thread is None:
            return
        if loop is not None and supervisor is not None and thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it may have ended by itself just now
                loop.call_soon_threadsafe(supervisor.stop)
        thread.join()

    def __enter__(self) -> Forward:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # How it stands ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL of the first SPEC."""
        return self.urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of each SPEC. Raises SshvpnError before it works."""
        urls = tuple(record["url"] for record in self._records())
        if not urls or None in urls:
            raise SshvpnError("the forward does not work just now", "look at its state")
        return urls

    @property
    def listen(self) -> tuple[str, ...]:
        """Where it listens, as ``ADDRESS:PORT``; empty while there is no connection."""
        return tuple(where for record in self._records() for where in record["listen"])

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``backoff``, ``stopping`` or ``failed``."""
        return str(self._snapshot.get("state", "starting"))

    @property
    def last_error(self) -> Mapping[str, str] | None:
        """Why it does not work now: ``code`` and ``message``."""
        return next((r["last_error"] for r in self._records() if r["last_error"]), None)

    def _records(self) -> Sequence[Mapping[str, Any]]:
        records: Sequence[Mapping[str, Any]] = self._snapshot.get("records", ())
        return records

    # The thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 (raised again by start, in its thread)
            self._error = error
        finally:
            self._settled.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        session = forwards.make_forward(self._profile)
        await session.check()
        self._supervisor = Supervisor(
            session,
            prompter=self._prompter,
            way=outside.make_way(session),
            timeout_s=self._profile.timeout_s,
            observe=self._observe,
        )
        session.on_change = self._supervisor.publish
        error = await self._supervisor.run()
        if error is not None:
            raise error

    def _observe(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot
        if snapshot["state"] == "running":
            self._settled.set()


class _Asker:
    """A function as boundary.Prompter."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def is_there(self) -> bool:
        return True

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        del echo
        return await asyncio.to_thread(self._ask, prompt)

    async def tell(self, text: str) -> None:
        await asyncio.to_thread(self._ask, text)


def _engine(name: str) -> EngineName:
    try:
        return EngineName(name)
    except ValueError:
        names = ", ".join(engine.value for engine in EngineName)
        raise UsageError(f"no engine {name!r}", f"there are: {names}") from None
