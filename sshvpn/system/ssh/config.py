"""The host's configuration as the system's ssh resolves it (``ssh -G``), and nothing else.

ssh knows Include, Match, the command line and the system's files; whatever it says is so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sshvpn.errors import ConfigError, FileOwnerError, SshvpnError, UsageError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.process import dies_with_parent, find_ssh

Config = Mapping[str, tuple[str, ...]]
"""Keys in lower case; an option that may be given several times has its values in order."""

ALGORITHMS = ("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
"""The keys of algorithms; whether anybody has chosen any tells :func:`is_chosen`."""
DEFAULT = "default-"
"""With it begin keys of ours beside ssh's: what ssh takes where no configuration says anything."""

KEEP_FORWARDS = ("-o", "ClearAllForwardings=no")
"""With it ``ssh -G`` shows the forwards, which ``-w`` makes us leave out by ourselves."""

_FILE_AND_LINE = re.compile(r"^(?P<file>.+?):? line (?P<line>\d+): (?P<what>.+)$", re.MULTILINE)


_OF_NOBODY = ("-F", os.devnull, "--", "localhost")
_begun: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}


def begin(destination: Destination, ssh_options: SshOptions, extra: Sequence[str] = ()) -> None:
    """Let ssh look already at what the next :func:`resolve` of the same words will ask it."""
    for words in ((*extra, *ssh_options.ssh_words, *destination.ssh_words), _OF_NOBODY):
        if find_ssh() is not None and words not in _begun:
            _begun[words] = subprocess.Popen(
                _command(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=dies_with_parent(),  # noqa: PLW1509 (no thread runs yet)
            )


async def resolve(
    destination: Destination, ssh_options: SshOptions, extra: Sequence[str] = ()
) -> Config:
    """Return all of ssh_config(5) that holds for ``destination``, as ``ssh -G`` prints it.

    ``extra`` are words of our own; they go first on the command line, where the first value
    wins. Makes no connection, though the user's ``Match exec`` commands are run. Raises
    ConfigError with file and line for a wrong file, UsageError for a wrong word.

    Beside ssh's own keys there are ``default-ciphers`` and so on: what ssh takes for another
    host, where no configuration says anything.
    """
    words = (*extra, *ssh_options.ssh_words, *destination.ssh_words)
    # Both come to their end, also where one of them is an error.
    answers = await asyncio.gather(_ssh_g(words), _ssh_g(_OF_NOBODY), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    resolved, standard = (str(answer) for answer in answers)
    return parse(resolved) | {DEFAULT + key: values for key, values in parse(standard).items()}


def is_chosen(config: Config, key: str) -> bool:
    """Whether a configuration or the command line sets ``key`` to anything else than ssh does."""
    return (
        not key.startswith(DEFAULT)
        and key in config
        and config[key] != config.get(DEFAULT + key, ())
    )


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """Return what ``ssh -G`` printed, as a mapping; a key that is repeated keeps its order."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values[key.lower()].append(value)
    return {key: tuple(found) for key, found in values.items()}


def error_of(stderr: str) -> SshvpnError:
    """Return the error that ``ssh -G`` told of, in ssh's own words."""
    if match := _FILE_AND_LINE.search(stderr):
        if match["file"].startswith("command-line"):
            what = match["what"].rstrip(".")
            return UsageError(f"ssh does not take that option: {what}", "see: man ssh_config")
        return ConfigError(f"{match['file']}:{match['line']}: {match['what'].rstrip('.')}")
    lines = [line for line in stderr.splitlines() if line.strip()]
    said = lines[0].rstrip(".") if lines else "ssh could not read its configuration"
    if said.startswith("Bad owner or permissions on "):
        return FileOwnerError(said)
    if "config" in said:
        return ConfigError(said)
    return UsageError(f"ssh does not take that: {said}", "see: man ssh, man ssh_config")


def _command(words: Sequence[str]) -> tuple[str, ...]:
    ssh = find_ssh()
    if ssh is None:
        raise UsageError("there is no ssh on this machine", "install openssh-client")
    return (ssh, "-T", "-G", *words)


async def _ssh_g(words: tuple[str, ...]) -> str:
    begun = _begun.pop(words, None)
    if begun is not None:
        out, err = await asyncio.to_thread(begun.communicate)
        return _said(begun.returncode, out, err)
    process = await asyncio.create_subprocess_exec(
        *_command(words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Match exec of the user's must not ask at our terminal
        preexec_fn=dies_with_parent(),
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _said(process.returncode, out, err)


def _said(status: int | None, out: bytes, err: bytes) -> str:
    if status:
        raise error_of(os.fsdecode(err))
    return os.fsdecode(out)
