"""ssh's questions, handed to a person: the server side of SSH_ASKPASS.

ssh runs in a session of its own without a terminal, so that Ctrl-C and hang-ups never reach it
and a supervisor in the background can still let somebody log in. What it would ask there
(passwords, passphrases, second factors, unknown host keys) it asks through SSH_ASKPASS
(ssh(1); SSH_ASKPASS_REQUIRE since OpenSSH 8.4, before that a DISPLAY and no terminal do it).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from sshvpn.boundary import Prompter
from sshvpn.errors import HostKeyUnknownError, LoginNeededError, SshvpnError, printable

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_HERE = Path(__file__).parent
_LONGEST = 64 * 1024
_NO_ADDRESS = "<no hostip for proxy command>"
"""What OpenSSH says for the address behind a ProxyCommand (sshconnect.c)."""


class AskpassServer:
    """Listens on a unix socket at ``path`` while it is entered; asks ``prompter``, if any.

    A question that nobody answers stays without an answer, and ``unless_given_up`` tells of it:
    ssh would send an empty password for it, which servers count as an attack. So ssh is to be
    ended before this is left. ``answers`` counts what was typed, and ``questions`` all that was
    asked for, a touch too.

    Without a prompter it is for the ssh of a jump host, or of a ProxyCommand, which knows
    nothing of a BatchMode that was said to the ssh that started it.

    ``peer`` is the address that ssh is connected to where we know it and ssh does not.
    """

    def __init__(self, path: Path, prompter: Prompter | None) -> None:
        self._path = path
        self._prompter = prompter
        self._server: asyncio.Server | None = None
        self._one_at_a_time = asyncio.Lock()
        self._conversations: set[asyncio.Task[None]] = set()
        self._unanswered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers = 0
        self.questions = 0
        self.peer: str | None = None

    async def __aenter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._take, self._path, limit=_LONGEST)
        self._path.chmod(0o600)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        # Nobody waits for an answer any more: the prompt goes, and so does what ssh had started.
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def unless_given_up(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` does; cancel it when a question finds nobody who answers it.

        Raises HostKeyUnknownError or LoginNeededError then, and what ``work`` raises.
        """
        doing = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {doing, self._unanswered}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._unanswered.done():
                return await doing
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
        raise _error_of(self._unanswered.result())

    def environment(self) -> dict[str, str]:
        """Return the environment in which ssh asks here.

        Raises SshvpnError where the installation has lost its executable bit.
        """
        program = _HERE / "askpass.sh"
        if not os.access(program, os.X_OK):
            raise SshvpnError(
                f"{program} is not executable, so ssh cannot ask for passwords",
                f"chmod 755 {program}",
            )
        return {
            **os.environ,
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": os.environ.get("DISPLAY") or "none:0",
            "SSHVPN_PYTHON": sys.executable,
            "SSHVPN_ASKPASS_CLIENT": str(_HERE / "askpass_client.py"),
            "SSHVPN_ASKPASS_SOCKET": str(self._path),
        }

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(self._serve(reader, writer))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = json.loads(await reader.readline())
            prompt = str(message["prompt"]).replace(_NO_ADDRESS, self.peer or _NO_ADDRESS)
            answer = await self._answer(prompt, str(message["kind"]), reader)
            writer.write(json.dumps({"answer": answer}).encode() + b"\n")
            await writer.drain()
        except (ValueError, KeyError, TypeError, OSError):
            pass  # ssh went away, or something that is not ours wrote here: no answer
        finally:
            writer.close()

    async def _answer(self, prompt: str, kind: str, reader: asyncio.StreamReader) -> str | None:
        self.questions += 1
        if kind == "none":  # ssh ends the program when the key was touched
            if self._prompter is not None:
                await self._prompter.tell(_shown(prompt))
            await reader.read()
            return ""
        is_question = kind == "confirm" or "(yes/no" in prompt
        answer = None
        if self._prompter is not None:
            async with self._one_at_a_time:
                answer = await self._prompter.ask(_shown(prompt), echo=is_question)
        if answer is None:
            if not self._unanswered.done():
                self._unanswered.set_result(_shown(prompt))
            await asyncio.Event().wait()  # until ssh is ended
            return None
        self.answers += 1
        if kind == "confirm" and answer.strip().lower() not in ("", "y", "yes"):
            return None
        return answer


def _error_of(question: str) -> SshvpnError:
    """Return what it means that nobody answered ``question``."""
    host = re.search(r"authenticity of host '(\S+?)(?: \([^)']+\))?'", question)
    if host:
        return HostKeyUnknownError(
            f"no host key is known for {host[1]}",
            f"log in once at a terminal to see and accept it: ssh {host[1]}",
        )
    last_line = question.strip().rpartition("\n")[2]
    return LoginNeededError(
        f"the login was not completed: nobody answered {last_line[:100]!r}",
        "start it again at a terminal",
    )


def _shown(prompt: str) -> str:
    # A server chooses the words of keyboard-interactive prompts: line by line, made printable.
    lines = [printable(line) for line in prompt.splitlines()]
    return "\n".join(lines) + (" " if prompt.endswith(" ") else "")
