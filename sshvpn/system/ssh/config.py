"""The host's configuration as the system's ssh resolves it (``ssh -G``), and nothing else.

ssh knows Include, Match, the command line and the system's files; whatever it says is so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sshvpn.errors import ConfigError, SshvpnError, UsageError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.process import dies_with_parent, find_ssh

Config = Mapping[str, tuple[str, ...]]
"""Keys in lower case; an option that may be given several times has its values in order."""

ALGORITHMS = ("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
"""The keys of algorithms; whether anybody has chosen any tells :func:`is_chosen`."""
DEFAULT = "default-"
"""With it begin keys of ours beside ssh's: what ssh takes where no configuration says anything."""

_FILE_AND_LINE = re.compile(r"^(?P<file>.+?):? line (?P<line>\d+): (?P<what>.+)$", re.MULTILINE)


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
    resolved, standard = await asyncio.gather(
        _ssh_g(words), _ssh_g(("-F", os.devnull, "--", "localhost"))
    )
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
    if "config" in said:
        return ConfigError(said)
    return UsageError(f"ssh does not take that: {said}", "see: man ssh, man ssh_config")


async def _ssh_g(words: Sequence[str]) -> str:
    ssh = find_ssh()
    if ssh is None:
        raise UsageError("there is no ssh on this machine", "install openssh-client")
    process = await asyncio.create_subprocess_exec(
        *(ssh, "-T", "-G", *words),
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
    if process.returncode:
        raise error_of(os.fsdecode(err))
    return os.fsdecode(out)
