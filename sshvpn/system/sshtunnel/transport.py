"""paramiko's transport, mended: it says when and why it ends, and does not lock itself up.

A subclass for one connected socket. What it overrides of paramiko's inside is small: the
handlers of three messages, the waiting before the login, and the algorithm lists.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout
from paramiko.common import cMSG_GLOBAL_REQUEST, cMSG_SERVICE_REQUEST, cMSG_USERAUTH_REQUEST

from sshvpn.errors import UsageError
from sshvpn.system.cpu import has_aes
from sshvpn.system.sshtunnel import mac
from sshvpn.system.sshtunnel.errors import ServerDisconnected
from sshvpn.system.sshtunnel.settings import OTHER_ENGINE, Settings

# What nobody handles goes to stderr; what counts of it is raised as an error, too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

WINDOW_BYTES = 2 << 20
"""What may be on its way in one channel (as in OpenSSH), and what a slow reader can hold up."""
OPEN_TIMEOUT_S = 130.0
"""How long the server may try to reach a target: as long as its TCP does (tcp(7))."""
LOGIN_TIMEOUT_S = 600.0
"""How long one step of a login may take, a person's typing included; sshd's limit is shorter."""
_CHECK_S = 1.0
_READ_BYTES = 256 << 10
HOST_KEYS = "_preferred_keys"
_LISTS = {
    "ciphers": "_preferred_ciphers",
    "macs": "_preferred_macs",
    "kexalgorithms": "_preferred_kex",
    "hostkeyalgorithms": HOST_KEYS,
    "pubkeyacceptedalgorithms": "_preferred_pubkeys",
}
_SAME = {"curve25519-sha256@libssh.org": "curve25519-sha256"}
"""Names of paramiko's for what OpenSSH calls by another one too (RFC 8731)."""
_WEAK = ("cbc", "md5", "sha1")


def algorithms(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """Return what to offer to the server, by paramiko's names of the lists.

    The user's choice in the user's order; else paramiko's list without what OpenSSH does not
    offer any more, and AES-GCM first where the CPU has AES. Raises UsageError where nothing is
    left of the user's choice.
    """
    offered: dict[str, tuple[str, ...]] = {}
    for key, attribute in _LISTS.items():
        ours = tuple(getattr(paramiko.Transport, attribute))
        chosen = settings.algorithms.get(key)
        if chosen is None:
            offered[attribute] = _by_speed(ours)
            continue
        both = {name: chosen.index(name) for name in ours if name in chosen}
        both |= {name: chosen.index(_SAME[name]) for name in ours if _SAME.get(name) in chosen}
        if not both:
            raise UsageError(
                f"the sshtunnel engine has none of the {key} of ssh_config", OTHER_ENGINE
            )
        offered[attribute] = tuple(sorted(both, key=both.__getitem__))
    return offered


def _by_speed(names: tuple[str, ...]) -> tuple[str, ...]:
    strong = [name for name in names if not any(weak in name for weak in _WEAK)]
    return tuple(sorted(strong, key=lambda name: has_aes() and "gcm" not in name))


class Stream:
    """A connected socket as paramiko wants one, with a buffer: fewer system calls a packet."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._at = 0
        self.last_read = time.monotonic()
        """When the server last said anything."""

    def recv(self, count: int) -> bytes:
        """Return up to ``count`` bytes, b"" at the end. Raises TimeoutError, OSError."""
        if self._at == len(self._buffer):
            try:
                # Without asking first whether there is anything: mostly there is.
                self._buffer = os.read(self._sock.fileno(), _READ_BYTES)
            except BlockingIOError:
                self._buffer = self._sock.recv(_READ_BYTES)
            self._at = 0
            self.last_read = time.monotonic()
        piece = self._buffer[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        """Send some of ``data``, and return how much. Raises TimeoutError, OSError."""
        try:
            return os.write(self._sock.fileno(), data)
        except BlockingIOError:
            return self._sock.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Set how long the two above may wait."""
        self._sock.settimeout(seconds)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    @property
    def _closed(self) -> bool:  # paramiko asks for it
        return self._sock.fileno() < 0


class Pipe(BufferedPipe):  # type: ignore[misc]
    """What a channel has received and nobody has read, kept in the pieces in which it came.

    paramiko's keeps an array, and copies everything into it and out of it: a quarter of the time
    of a download.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffer: deque[bytes] = deque()

    def _buffer_frombytes(self, data: bytes) -> None:
        if data:
            self._buffer.append(data)

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """Return up to ``nbytes``, b"" at the end. Raises PipeTimeout after ``timeout`` s."""
        with self._cv:
            if not self._cv.wait_for(lambda: self._buffer or self._closed, timeout):
                raise PipeTimeout
            pieces: list[bytes] = []
            while self._buffer and len(self._buffer[0]) <= nbytes:
                pieces.append(self._buffer.popleft())
                nbytes -= len(pieces[-1])
            if self._buffer and not pieces:
                pieces.append(self._buffer[0][:nbytes])
                self._buffer[0] = self._buffer[0][nbytes:]
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def empty(self) -> bytes:
        """Return all that is there."""
        with self._cv:
            out = b"".join(self._buffer)
            self._buffer.clear()
            return out

    def __len__(self) -> int:
        with self._cv:
            return sum(map(len, self._buffer))


class Transport(paramiko.ServiceRequestingTransport):  # type: ignore[misc]
    """One SSH connection over ``sock``; its thread calls ``on_end`` when it is over.

    ``reason`` is then what ended it, as an exception, or None when it had no word for it.
    """

    def __init__(
        self,
        sock: socket.socket,
        offered: Mapping[str, tuple[str, ...]],
        timeout_s: float,
        on_end: Callable[[], None],
    ) -> None:
        mac.use()
        self.stream = Stream(sock)
        self.auth_handler: Any = None
        super().__init__(self.stream, default_window_size=WINDOW_BYTES)
        # Until the login is done: paramiko's own time limits are looked at this often.
        self.stream.settimeout(_CHECK_S)
        self.banner_timeout = self.handshake_timeout = timeout_s
        self.auth_timeout = LOGIN_TIMEOUT_S
        for attribute, names in offered.items():
            setattr(self, attribute, names)
        self.reason: BaseException | None = None
        self._on_end = on_end
        self._held: list[Any] = []

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key algorithms, without certificates: nobody here checks those."""
        return tuple(self._preferred_keys)

    def run(self) -> None:
        """Do what paramiko does, and then tell that it is over."""
        try:
            super().run()
        finally:
            self.reason = self.reason or self.saved_exception
            self.packetizer.complete_handshake()  # or its timer would run on
            self._on_end()

    def open_channel(self, *args: Any, **kwargs: Any) -> Any:
        """Open a channel, with all the time that the server's own connect(2) may take."""
        return super().open_channel(*args, **{**kwargs, "timeout": OPEN_TIMEOUT_S})

    def ask_for_life(self) -> None:
        """Send a request that every server answers, be it with a refusal (RFC 4254 4)."""
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)  # noqa: FBT003 (want reply)
        self._send_user_message(message)

    def ensure_session(self) -> None:
        """Ask for the login service once, and wait for it while the connection lives."""
        if not self._service_userauth_accepted:
            message = paramiko.Message()
            message.add_byte(cMSG_SERVICE_REQUEST)
            message.add_string("ssh-userauth")
            self._send_message(message)
        while not self._service_userauth_accepted:
            if not self.active:
                raise EOFError
            time.sleep(0.005)
        if self.auth_handler is None:
            self.auth_handler = Login(self)

    def ask_for_key(self, username: str, blob: bytes) -> list[str]:
        """Ask whether the server would take the public key ``blob`` (RFC 4252 7).

        Raises paramiko.AuthenticationException if not; that counts as a try.
        """
        self.ensure_session()
        left: list[str] = self.auth_handler.ask_for_key(username, blob)
        return left

    def _parse_channel_open_success(self, message: Any) -> None:
        # Here nothing can have come through the channel yet.
        channel = self._channels.get(message.get_int())
        message.rewind()
        if channel is not None:
            channel.in_buffer = Pipe()
        super()._parse_channel_open_success(message)

    def _parse_disconnect(self, message: Any) -> None:
        message.get_int()
        self.reason = ServerDisconnected(message.get_text())

    def _send_user_message(self, data: Any) -> None:
        # While keys are exchanged paramiko waits here. Its own thread, answering a channel's
        # close, would wait for itself: what it has to say is held until the keys are there.
        if threading.current_thread() is self and not self.clear_to_send.is_set():
            self._held.append(data)
        else:
            super()._send_user_message(data)

    def _parse_newkeys(self, message: Any) -> None:
        super()._parse_newkeys(message)
        held, self._held = self._held, []
        for data in held:
            super()._send_user_message(data)


class Login(AuthOnlyHandler):  # type: ignore[misc]
    """paramiko's login, which can ask for a key before it signs, and misses no answer."""

    _is_asking = False
    _is_accepted = False

    def send_auth_request(
        self, username: str, method: str, finish_message: Callable[[Any], None] | None = None
    ) -> list[str]:
        """Send one request, and wait for the answer; what paramiko's does, in a safe order."""
        self.auth_method = method
        self.username = username
        message = paramiko.Message()
        message.add_byte(cMSG_USERAUTH_REQUEST)
        message.add_string(username)
        message.add_string("ssh-connection")
        message.add_string(method)
        if finish_message is not None:
            finish_message(message)
        # Before the answer can come, or it would be waited for until the time-out.
        self.auth_event = threading.Event()
        with self.transport.lock:
            self.transport._send_message(message)  # noqa: SLF001 (as paramiko does)
        left: list[str] = self.wait_for_response(self.auth_event)
        return left

    def ask_for_key(self, username: str, blob: bytes) -> list[str]:
        """Return when the server would take the key; see Transport."""
        algorithm = self._finalize_pubkey_algorithm(paramiko.Message(blob).get_text())

        def finish(message: Any) -> None:
            message.add_boolean(False)  # noqa: FBT003 (no signature)
            message.add_string(algorithm)
            message.add_string(blob)

        self._is_asking, self._is_accepted = True, False
        try:
            return self.send_auth_request(username, "publickey", finish)
        except paramiko.AuthenticationException:
            if not self._is_accepted:
                raise
            return []
        finally:
            self._is_asking = False

    def _parse_userauth_success(self, message: Any) -> None:
        # From here on closing wakes the thread through the socket, and nothing else has to: it
        # sleeps while nobody speaks, and a read is one system call.
        self.transport.stream.settimeout(None)
        super()._parse_userauth_success(message)

    def _parse_userauth_info_request(self, message: Any) -> None:
        # SSH_MSG_USERAUTH_PK_OK has the same number (RFC 4252 7, RFC 4256 5).
        if self._is_asking:
            self._is_accepted = True
            self.auth_event.set()
        else:
            super()._parse_userauth_info_request(message)
