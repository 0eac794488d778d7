"""From a fresh transport to a login: the host key first, then keys, then a person.

Blocking; runs on a thread of its own. Whoever is asked is asked on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import paramiko

from sshvpn.boundary import Prompter
from sshvpn.errors import (
    AuthenticationError,
    HostKeyChangedError,
    HostKeyUnknownError,
    LoginNeededError,
    SshvpnError,
    printable,
)
from sshvpn.system.sshtunnel import knownhosts
from sshvpn.system.sshtunnel.keys import (
    Agent,
    Candidate,
    Keyring,
    UnusableKeyError,
    WrongPassphraseError,
    candidates,
    open_agent,
    with_certificate,
)
from sshvpn.system.sshtunnel.knownhosts import DEFAULT_PORT, Answer, Verdict
from sshvpn.system.sshtunnel.settings import OTHER_ENGINE, Settings
from sshvpn.system.sshtunnel.transport import Transport

log = logging.getLogger("sshvpn.sshtunnel")

_MOST_STEPS = 8
"""How many methods in a row a server may want (AuthenticationMethods, sshd_config(5))."""
_TYPE_NAMES = {"ssh-rsa": "RSA", "ssh-ed25519": "ED25519"}


class Asker:
    """Asks a person from this thread; ``answers`` counts what was typed."""

    def __init__(self, prompter: Prompter, loop: asyncio.AbstractEventLoop) -> None:
        self._prompter = prompter
        self._loop = loop
        self._open: Future[Any] | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self.answers = 0

    def ask(self, prompt: str, *, echo: bool) -> str:
        """Return what was typed. Raises LoginNeededError when nobody did."""
        answer = self._wait(self._prompter.ask(_shown(prompt), echo=echo))
        if answer is None:
            raise LoginNeededError(
                "the login was not completed: a question got no answer",
                "start it again at a terminal",
            )
        self.answers += 1
        return str(answer)

    def tell(self, text: str) -> None:
        """Show a line."""
        self._wait(self._prompter.tell(_shown(text)))

    def cancel(self) -> None:
        """Take back the question that is open, if any, and ask no other; from the loop's thread."""
        with self._lock:
            self._is_over = True
            question = self._open
        if question is not None:
            question.cancel()

    def _wait(self, question: Coroutine[Any, Any, Any]) -> Any:
        with self._lock:  # else a question that has just begun could not be taken back
            if self._is_over:
                question.close()
                raise LoginNeededError("the login was cancelled")
            self._open = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return self._open.result()
        except CancelledError as error:
            raise LoginNeededError("the login was cancelled") from error
        finally:
            self._open = None


def check_host_key(transport: Transport, settings: Settings, asker: Asker | None) -> None:
    """Compare the server's key with those that are known; ask about one that is not.

    Raises HostKeyChangedError, HostKeyUnknownError.
    """
    key = transport.get_remote_server_key()
    kind, blob = key.get_name(), key.asbytes()
    name = knownhosts.host_name(settings.host, settings.port, settings.host_key_alias)
    answer = _judge(settings, name, kind, blob)
    if answer.verdict is Verdict.KNOWN:
        return
    if answer.verdict is Verdict.REVOKED:
        raise HostKeyChangedError(
            f"the host key of {name} is marked as revoked{_where(answer)}",
            "do not use it; ask the server's administrator",
        )
    if answer.verdict is Verdict.CHANGED:
        raise HostKeyChangedError(
            f"the host key of {name} is not the known one{_where(answer)}: it has been changed, "
            "or somebody is between you and the server",
            f"ask the server's administrator; if it is right: {_forget(answer, name)}",
        )
    if asker is None:
        raise HostKeyUnknownError(
            f"no host key is known for {name}",
            f"log in once at a terminal to see and accept it: ssh {settings.name}",
        )
    _ask_about(asker, name, kind, blob)
    _remember(settings, asker, name, kind, blob)


def _judge(settings: Settings, name: str, kind: str, blob: bytes) -> Answer:
    answer = knownhosts.judge(knownhosts.read(settings.known_hosts, name), kind, blob)
    has_port = settings.port != DEFAULT_PORT and settings.host_key_alias is None
    if answer.verdict is Verdict.UNKNOWN and has_port:
        # As ssh does: a key that is known for the host on port 22 will do.
        plain = knownhosts.read(settings.known_hosts, settings.host.lower())
        without_port = knownhosts.judge(plain, kind, blob)
        if without_port.verdict in (Verdict.KNOWN, Verdict.REVOKED):
            return without_port
    return answer


def _where(answer: Answer) -> str:
    return f" ({answer.line.file}:{answer.line.line})" if answer.line else ""


def _forget(answer: Answer, name: str) -> str:
    file = f" -f {answer.line.file}" if answer.line else ""
    return f"ssh-keygen{file} -R '{name}'"


def _ask_about(asker: Asker, name: str, kind: str, blob: bytes) -> None:
    shown = knownhosts.fingerprint(blob)
    type_name = _TYPE_NAMES.get(kind, "ECDSA")
    prompt = (
        f"The authenticity of host '{name}' can't be established.\n"
        f"{type_name} key fingerprint is {shown}.\n"
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )
    while True:
        said = asker.ask(prompt, echo=True).strip()
        if said.lower() == "yes" or said == shown:
            return
        if said.lower() == "no":
            raise HostKeyUnknownError(
                f"the host key of {name} was not accepted",
                "compare the fingerprint with the administrator's, then answer yes",
            )
        prompt = "Please type 'yes', 'no' or the fingerprint: "


def _remember(settings: Settings, asker: Asker, name: str, kind: str, blob: bytes) -> None:
    if not settings.user_known_hosts:
        return
    file = settings.user_known_hosts[0]
    try:
        knownhosts.add(file, name, kind, blob, hashed=settings.hash_known_hosts)
    except OSError as error:
        asker.tell(f"The host key was not written to {file}: {error.strerror}")
    else:
        asker.tell(f"Warning: Permanently added '{name}' to the list of known hosts.")


class LogIn:
    """One login over ``transport``, by the methods of ``settings`` in their order.

    ``keyring`` keeps what is unlocked. Without ``asker`` nobody is asked. ``had_help`` says
    that an earlier login needed a person or an agent that is gone now, so that a refusal means
    that they are missing.
    """

    def __init__(
        self, transport: Transport, settings: Settings, keyring: Keyring, asker: Asker | None
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._keyring = keyring
        self._asker = asker
        self._agent: Agent | None = None
        self._locked: list[str] = []
        self._complaints: list[str] = []
        self._offered = 0
        self._used: set[bytes] = set()
        self._methods: dict[str, Callable[[], list[str] | None]] = {
            "publickey": self._by_key,
            "keyboard-interactive": self._by_questions,
            "password": self._by_password,
        }

    def run(self, *, missing: Callable[[], str | None]) -> None:
        """Log in. Raises an SshvpnError, or what ended the connection.

        ``missing`` is asked what an earlier login had and this one has not; None: nothing.
        """
        self._agent = open_agent(self._settings)
        try:
            wanted = self._ask_what_is_wanted()
            for _ in range(_MOST_STEPS):
                if not wanted:
                    return
                wanted = self._step(wanted, missing)
        finally:
            if self._agent is not None:
                self._agent.close()
        raise AuthenticationError("the server wants more logins in a row than are known here")

    def _ask_what_is_wanted(self) -> list[str]:
        """Return the methods that the server takes; none are left when it wants no login."""
        try:
            return self._call(self._transport.auth_none)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)

    def _step(self, wanted: list[str], missing: Callable[[], str | None]) -> list[str]:
        """Do one method; return what is wanted beyond it (partial success, RFC 4252 5.1)."""
        for method in self._settings.methods:
            if method in wanted:
                left = self._methods[method]()
                if left is not None:
                    return left
        raise self._refusal(wanted, missing())

    # Keys -------------------------------------------------------------------------------

    def _by_key(self) -> list[str] | None:
        offered = candidates(self._settings, self._agent, self._keyring, self._complaints.append)
        for candidate in offered:
            if candidate.blob in self._used:
                continue
            left = self._try_key(candidate)
            if left is not None:
                return left
        return None

    def _try_key(self, candidate: Candidate) -> list[str] | None:
        if candidate.blob is not None:
            self._offered += 1
            self._used.add(candidate.blob)
            if not self._is_accepted(candidate.blob):
                return None
        key = self._private(candidate)
        if key is None:
            return None
        try:
            return self._call(self._transport.auth_publickey, key)
        except paramiko.AuthenticationException:
            return None
        except (paramiko.SSHException, OSError) as error:
            # The agent did not sign: locked, or the person said no there.
            self._locked.append(f"{candidate.label}: {error}")
            return None

    def _is_accepted(self, blob: bytes) -> bool:
        try:
            self._call(self._transport.ask_for_key, blob)
        except paramiko.SSHException:
            return False
        return True

    def _private(self, candidate: Candidate) -> Any | None:
        """Return the private key, unlocked by a person if need be; None: it is not to be had."""
        if candidate.key is not None:
            return with_certificate(candidate.key, candidate.certificate)
        if candidate.file is None:
            self._locked.append(f"{candidate.label}: its private half is not here")
            return None
        if self._asker is None:
            self._locked.append(candidate.label)
            return None
        for _ in range(self._settings.password_prompts):
            said = self._asker.ask(f"Enter passphrase for key '{candidate.file}': ", echo=False)
            try:
                return self._keyring.unlock(candidate, said)
            except WrongPassphraseError:
                continue
            except (UnusableKeyError, OSError) as error:
                self._complaints.append(f"{candidate.file} cannot be used here: {error}")
                return None
        self._locked.append(candidate.label)
        return None

    # A person ---------------------------------------------------------------------------

    def _by_password(self) -> list[str] | None:
        if self._asker is None:
            return None
        who = f"{self._settings.user}@{self._settings.host}"
        for _ in range(self._settings.password_prompts):
            said = self._asker.ask(f"{who}'s password: ", echo=False)
            try:
                return self._call(partial(self._transport.auth_password, fallback=False), said)
            except paramiko.AuthenticationException:
                self._asker.tell("Permission denied, please try again.")
        return None

    def _by_questions(self) -> list[str] | None:
        if self._asker is None:
            return None
        for _ in range(self._settings.password_prompts):
            try:
                return self._call(self._transport.auth_interactive, self._answers)
            except paramiko.BadAuthenticationType:  # noqa: PERF203 (a try is a login)
                return None
            except paramiko.AuthenticationException:
                self._asker.tell("Permission denied, please try again.")
        return None

    def _answers(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        """Ask what the server asks (RFC 4256 3.3); on the transport's thread."""
        assert self._asker is not None  # noqa: S101 (else the method is not tried)
        for text in (title, instructions):
            if text.strip():
                self._asker.tell(text)
        who = f"({self._settings.user}@{self._settings.host}) "
        return [self._asker.ask(who + prompt, echo=echo) for prompt, echo in prompts]

    # The end ----------------------------------------------------------------------------

    def _call(self, function: Callable[..., list[str]], *args: Any) -> list[str]:
        """Call one of paramiko's for our user; a dead connection is told by what ended it."""
        try:
            return function(self._settings.user, *args)
        except SshvpnError:
            raise
        except (paramiko.SSHException, EOFError) as error:
            if self._transport.is_active():
                raise
            self._transport.join()
            raise (self._transport.reason or error) from error

    def _refusal(self, wanted: list[str], missing: str | None) -> SshvpnError:
        if self._locked:
            return LoginNeededError(
                f"the server would take a key that is locked: {self._locked[0]}",
                "unlock it with ssh-add, or start again at a terminal",
            )
        asks_person = (
            set(wanted) & {"password", "keyboard-interactive"} & set(self._settings.methods)
        )
        if self._asker is None and asks_person and not self._offered:
            missing = missing or "a password or code is wanted"
        if self._asker is None and missing:
            return LoginNeededError(
                f"the server wants a login: {missing}",
                "bring the agent back, or start it again at a terminal",
            )
        hint = (
            f"the server takes: {','.join(wanted)}; try the same host with ssh, or another -i KEY"
        )
        if self._complaints:
            hint = f"{self._complaints[0]}; or {OTHER_ENGINE}"
        return AuthenticationError("the server refused the login: permission denied", hint)


def _shown(prompt: str) -> str:
    # A server chooses the words of keyboard-interactive prompts: line by line, made printable.
    lines = [printable(line) for line in prompt.splitlines()]
    return "\n".join(lines) + (" " if prompt.endswith(" ") else "")
