"""A notebook that is forwarded: the session of ``sshvpn notebook``.

A forward, with more on either side of opening its listeners: before, Jupyter is found at the
server or started there, over the same connection; after, it must have answered through them.
A connection that is made anew does the same again, so a server that was rebooted has its
Jupyter again, with the same token and at the same port here.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import Any

from sshvpn.boundary import Connection, ForwardEngine, Interfaces, TrustStore, WebClient
from sshvpn.errors import NotebookError, NotebookLostError, SshvpnError, TakenError
from sshvpn.forwarding import ForwardSession
from sshvpn.frozen import dataclass
from sshvpn.jupyter import Found, RemoteJupyter, Started, conversation, new_token, stop_line
from sshvpn.model import (
    LOOPBACK4,
    LOOPBACK6,
    Direction,
    Endpoint,
    ForwardProfile,
    ForwardSpec,
    Listener,
    NotebookWish,
    TcpEndpoint,
    UnixEndpoint,
)
from sshvpn.remote.notebook_protocol import Server

log = logging.getLogger("sshvpn.notebook")

FIRST_PORT = 9999
"""Where a notebook is here, unless said otherwise or taken."""
_PORTS = 100
_ANSWER_WITHIN_S = 30.0
_START_WITHIN_S = 120.0
_LOGIN_S = 20.0
_POLL_S = 0.1
_STARTS = 3
_REFUSED = (401, 403)
_LEADS_TO_LOGIN = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Access:
    """What a browser needs beside a forward's URL. It is kept from all who may not open it."""

    base_url: str
    token: str = field(repr=False)


class NotebookSession(ForwardSession):
    """Implements session.Session for ``sshvpn notebook``.

    ``keep`` is given what a browser needs, each time that it is known anew.
    """

    trusting = "sshvpn notebook --lan"

    def __init__(
        self,
        profile: ForwardProfile,
        engine: ForwardEngine,
        interfaces: Interfaces,
        trust: TrustStore,
        *,
        web: WebClient,
        keep: Callable[[Access], None] = lambda _: None,
    ) -> None:
        super().__init__(profile, engine, interfaces, trust)
        assert profile.notebook is not None  # noqa: S101 (wiring has looked)
        self._asked = profile
        self._wish: NotebookWish = profile.notebook
        self._web = web
        self._keep = keep
        self._token = new_token()
        self._server: Server | None = None
        self._boot = ""
        self._has_run = False
        self._had_run = False
        self._words: str | None = None
        self._port: int | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """What was asked for; where Jupyter listens is not part of it."""
        return self._asked.wanted

    def _use(self, profile: ForwardProfile) -> None:
        super()._use(profile)
        assert profile.notebook is not None  # noqa: S101 (a notebook stays one)
        if profile.notebook.directory != self._wish.directory:
            self._server, self._token = None, new_token()
        self._asked, self._wish = profile, profile.notebook
        self._had_run, self._has_run = self._had_run or self._has_run, False
        if self._wish.has_port and profile.specs[0].listen != self._port:
            self._port = None

    def go_back(self) -> bool:
        """Take the profile again that was there before, and what is known of it."""
        had_run = self._had_run
        is_back = super().go_back()
        if is_back:
            self._has_run = had_run
        return is_back

    async def _open_listeners(self, connection: Connection) -> None:
        try:
            await self._open_notebook(connection)
        except NotebookError as error:
            if self._has_run:
                raise NotebookLostError(error.message, error.hint) from error
            raise
        self._has_run = True

    async def _open_notebook(self, connection: Connection) -> None:
        async with conversation(connection, self.profile.host) as jupyter:
            try:
                server = await self._find_or_start(connection, jupyter)
            except asyncio.CancelledError:
                if jupyter.has_launched:
                    self._tell_it_goes_on()
                raise
            # Its end takes a round trip, and nobody need wait for it.
            leaving = asyncio.create_task(jupyter.leave())
            try:
                await self._serve(connection, server)
            finally:
                await leaving

    async def _serve(self, connection: Connection, server: Server) -> None:
        self._server = server
        if server.is_open:
            self._judge_open(server)
        self._keep(Access(server.base_url, server.token))
        await self._open_at_free_port(connection, server)
        await self._prove(server)

    # Jupyter at the server --------------------------------------------------------------

    async def _find_or_start(self, connection: Connection, jupyter: RemoteJupyter) -> Server:
        found = await jupyter.look(self._wish.directory)
        for _ in range(_STARTS):
            server = found.serving(self._wish)
            if server is not None:
                self._words = None
                self._boot = found.boot
                log.info("%s: Jupyter runs there already, process %d", self.name, server.pid)
                return await self._asked_of(connection, server)
            if self._server is not None and found.boot in ("", self._boot):
                # It has ended by itself, and who took its port since may have been sent its token.
                self._token = new_token()
            self._boot = found.boot
            started = await self._start(connection, jupyter)
            if isinstance(started, Started):
                self._words = started.words
                self._tell_others(found.servers)
                return started.server
            found = started
        raise NotebookError(
            f"somebody else starts and ends Jupyter at {self.profile.host} all the time",
            f"see: sshvpn notebook list {self.profile.host}",
        )

    async def _start(self, connection: Connection, jupyter: RemoteJupyter) -> Started | Found:
        """Start it so that it may be shared later, too: it must take the LAN's names for it.

        That lets in no one without its token. One whose configuration has none is started
        again, and keeps to localhost: its check of names is all that it has (DNS rebinding).
        """
        within_s = start_within_s(self.profile.timeout_s)
        started = await jupyter.start(self._wish, self._token, shared=True, within_s=within_s)
        if isinstance(started, Started):
            server = await self._asked_of(connection, started.server)
            if not server.is_open:
                return replace(started, server=server)
            await jupyter.stop([server.pid])
            return await jupyter.start(self._wish, self._token, shared=False, within_s=within_s)
        return started

    async def _asked_of(self, connection: Connection, server: Server) -> Server:
        """Return ``server`` with a password where it asks for one, though it tells of none.

        So does jupyter_server 2. It is seen on loopback, before others can reach it.
        """
        if not server.is_open:
            return server
        listener = Listener(Direction.LOCAL, TcpEndpoint(LOOPBACK4, 0), _target(server))
        where = await connection.open_listener(listener)
        assert isinstance(where, TcpEndpoint)  # noqa: S101 (as the listener)
        try:
            status = await self._status_within(where, server, {})
        finally:
            await connection.close_listener(listener)
        return replace(server, has_password=status in _REFUSED or status in _LEADS_TO_LOGIN)

    def _tell_it_goes_on(self) -> None:
        directory = self._wish.directory or None
        ends = stop_line(self.profile.host, self.profile.ssh, directory)
        log.warning("Jupyter goes on at %s; %s ends it", self.profile.host, ends)

    async def has_service(self) -> bool:
        """Whether the Jupyter that it leads to runs, and holds its place there.

        The server is asked: here whoever has that place would answer.
        """
        connection, server = self._connection, self._server
        if connection is None or server is None:
            return False
        async with conversation(connection, self.profile.host) as jupyter:
            found = await jupyter.look(self._wish.directory)
        return any(
            (one.pid, one.token, _target(one)) == (server.pid, server.token, _target(server))
            for one in found.servers
        )

    def _tell_others(self, servers: Sequence[Server]) -> None:
        others = sorted({one.directory for one in servers if one.directory})
        if others and not self._wish.directory:
            log.info("%s: Jupyter runs there in %s, too (--dir)", self.name, ", ".join(others))

    def _judge_open(self, server: Server) -> None:
        if self.profile.lan:
            raise SshvpnError(
                f"Jupyter in {server.directory} asks for no token and no password: on the local "
                f"network everybody could run commands as you at {self.profile.host}",
                "give it one in its configuration there (IdentityProvider.token), or leave out "
                "--lan",
            )
        log.warning(
            "Jupyter in %s asks for no token: every user of this machine and of %s can use it",
            server.directory,
            self.profile.host,
        )

    # Listeners --------------------------------------------------------------------------

    async def _open_at_free_port(self, connection: Connection, server: Server) -> None:
        """Listen at the port that was asked for, or that it had; else at the next free one."""
        asked = self._asked.specs[0].listen
        first = self._port or (asked if isinstance(asked, int) else FIRST_PORT)
        is_fixed = self._wish.has_port or self._port is not None
        for port in range(first, min(first + (1 if is_fixed else _PORTS), 1 << 16)):
            self.profile = replace(self.profile, specs=(_spec(port, server),))
            await self._reconcile(connection)
            taken = [error for error in self._failed.values() if isinstance(error, TakenError)]
            if not taken or (is_fixed and self._port is not None and self._open):
                break
            if is_fixed or port == first + _PORTS - 1:
                raise taken[0]
            await self._close_listeners(connection)
        self._judge()
        self._judge_sharing()
        first_open = next(iter(self._open.values())).where
        self._port = first_open.port if isinstance(first_open, TcpEndpoint) else None

    def _judge_sharing(self) -> None:
        """Tell where ``--lan`` shares with nobody. Raises that to who asks for it just now."""
        places = [opened.where for opened in self._open.values()]
        if not self.profile.lan or self._has_shared or any(map(_is_on_lan, places)):
            return
        if self._failed or self._sharing.untrusted:
            return  # which was told
        nowhere = self._nowhere("the notebook")
        if self.profile.lan_trusts:
            raise nowhere
        log.warning("%s", nowhere)

    async def _close_listeners(self, connection: Connection) -> None:
        for opened in self._open.values():
            await connection.close_listener(opened.listener)
        self._open.clear()
        self._failed.clear()

    # Does it answer ---------------------------------------------------------------------

    async def _prove(self, server: Server) -> None:
        """Return once Jupyter has answered through the forward, by all names that it needs.

        Raises SshvpnError where it does not answer, or refuses the LAN's addresses.
        """
        places = [
            opened.where for opened in self._open.values() if isinstance(opened.where, TcpEndpoint)
        ]
        headers = {"Authorization": f"token {server.token}"} if server.token else {}
        here = await self._status_within(places[0], server, headers)
        if server.token and here in _REFUSED:
            log.warning("Jupyter in %s wants another login than its token", server.directory)
        for place in places:
            if not _is_on_lan(place) or here in _REFUSED:
                continue
            if await self._status(place, server, headers, None) in _REFUSED:
                raise self._refuses(server, place)

    async def _status_within(
        self, place: TcpEndpoint, server: Server, headers: dict[str, str]
    ) -> int:
        deadline = asyncio.get_running_loop().time() + _ANSWER_WITHIN_S
        localhost = f"localhost:{place.port}"
        while (status := await self._status(place, server, headers, localhost)) is None:
            if asyncio.get_running_loop().time() > deadline:
                raise NotebookError(
                    f"Jupyter at {self.profile.host} (process {server.pid}) does not answer",
                    f"end it: sshvpn notebook stop {self.profile.host}",
                )
            await asyncio.sleep(_POLL_S)
        return status

    async def _status(
        self, place: TcpEndpoint, server: Server, headers: dict[str, str], host: str | None
    ) -> int | None:
        url = f"{_scheme(server)}://{place}{server.base_url}api/status"
        return await self._web.status(url, host, headers)

    def _refuses(self, server: Server, place: TcpEndpoint) -> SshvpnError:
        if server.is_ours:
            return SshvpnError(
                f"Jupyter in {server.directory} was started without a token, and so takes no "
                f"requests for {place.host}",
                f"end it, with its kernels: sshvpn notebook stop {self.profile.host}",
            )
        option = f"{'NotebookApp' if server.is_classic else 'ServerApp'}.allow_remote_access"
        return SshvpnError(
            f"Jupyter in {server.directory} was not started by sshvpn, and takes no requests for "
            f"{place.host}",
            f"start it there with --{option}=True, or end it (and its kernels) "
            f"and let sshvpn start it: sshvpn notebook stop {self.profile.host} --dir "
            f"{shlex.quote(server.directory)}",
        )

    # What is told -----------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Return what ``status --json`` says; never a token.

        While there is no connection it is the Jupyter that it led to last.
        """
        records = super().describe()
        server = self._server
        for record in records:
            if server is None:
                words = f"notebook in {self._wish.directory or 'the home directory'}"
                record |= {"spec": words, "target": None, "notebook": None}
                continue
            if record["url"]:
                _, _, place = record["url"].partition("://")
                record["url"] = f"{_scheme(server)}://{place.rstrip('/')}{server.base_url}"
            record["notebook"] = {
                "directory": server.directory,
                "pid": server.pid,
                "version": server.version,
                "started_with": self._words,
                "log": server.log or None,
            }
        return records


def start_within_s(timeout_s: float | None) -> int:
    """Return how long what starts Jupyter may take where ``timeout_s`` is for all of the start.

    Less than that, for the login before it, and so that somebody hears how it went.
    """
    whole_s = _START_WITHIN_S if timeout_s is None else timeout_s
    return max(int(whole_s - _LOGIN_S), int(whole_s / 2), 1)


def _scheme(server: Server) -> str:
    return "https" if server.has_tls else "http"


def _is_on_lan(where: Endpoint) -> bool:
    return isinstance(where, TcpEndpoint) and where.host not in (LOOPBACK4, LOOPBACK6)


def _target(server: Server) -> Endpoint:
    return UnixEndpoint(server.socket) if server.socket else TcpEndpoint(server.host, server.port)


def _spec(port: int, server: Server) -> ForwardSpec:
    target = _target(server)
    return ForwardSpec(Direction.LOCAL, None, port, target, f"{port}:{target}")
