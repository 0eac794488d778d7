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
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sshvpn.boundary import Prompter
from sshvpn.errors import SshvpnError, printable

if TYPE_CHECKING:
    from typing_extensions import Self

_HERE = Path(__file__).parent
_LONGEST = 64 * 1024


class AskpassServer:
    """Listens on a unix socket at ``path`` while it is entered; asks ``prompter``.

    ``gave_up`` becomes set when a question found nobody who answered: ssh would go on with an
    empty password, which servers count as an attack, so its owner ends it instead.
    ``answers`` counts what was typed.
    """

    def __init__(self, path: Path, prompter: Prompter) -> None:
        self._path = path
        self._prompter = prompter
        self._server: asyncio.Server | None = None
        self._one_at_a_time = asyncio.Lock()
        self._conversations: set[asyncio.Task[None]] = set()
        self.gave_up = asyncio.Event()
        self.answers = 0

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

    def environment(self) -> dict[str, str]:
        """Return the variables that make ssh ask here.

        Raises SshvpnError where the installation has lost its executable bit.
        """
        program = _HERE / "askpass.sh"
        if not os.access(program, os.X_OK):
            raise SshvpnError(
                f"{program} is not executable, so ssh cannot ask for passwords",
                f"chmod 755 {program}",
            )
        return {
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
            answer = await self._answer(str(message["prompt"]), str(message["kind"]), reader)
            writer.write(json.dumps({"answer": answer}).encode() + b"\n")
            await writer.drain()
        except (ValueError, KeyError, TypeError, OSError):
            pass  # ssh went away, or something that is not ours wrote here: no answer
        finally:
            writer.close()

    async def _answer(self, prompt: str, kind: str, reader: asyncio.StreamReader) -> str | None:
        if kind == "none":  # ssh ends the program when the key was touched
            await self._prompter.tell(_shown(prompt))
            await reader.read()
            return ""
        is_question = kind == "confirm" or "(yes/no" in prompt
        async with self._one_at_a_time:
            answer = await self._prompter.ask(_shown(prompt), echo=is_question)
        if answer is None:
            self.gave_up.set()
            return None
        self.answers += 1
        if kind == "confirm" and answer.strip().lower() not in ("", "y", "yes"):
            return None
        return answer


def _shown(prompt: str) -> str:
    # A server chooses the words of keyboard-interactive prompts: line by line, made printable.
    lines = [printable(line) for line in prompt.splitlines()]
    return "\n".join(lines) + (" " if prompt.endswith(" ") else "")
