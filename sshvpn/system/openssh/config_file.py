"""A host's configuration as a file of its own: as ssh resolved it, without its forwards; pure.

ClearAllForwardings takes ``-w`` away with the user's forwards, and those could not be opened
twice: so an ssh that carries packets for a host with forwards reads this file (``-F``) instead
of the user's. ``ssh -G`` prints values without the quotes that ssh_config(5) wants around them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from sshvpn.system.ssh.config import Config, is_chosen
from sshvpn.system.ssh.jump import jump_words, jumps_of

_FORWARDS = ("localforward", "remoteforward", "dynamicforward")
_LEFT_OUT = {
    *_FORWARDS,
    "host",
    "proxyjump",
    # The name that it leads to is resolved already.
    "canonicalizehostname",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    # Ours go before them in any case.
    "localcommand",
    "remotecommand",
    "tunnel",
    "tunneldevice",
}
_ALWAYS = ("hostname", "user", "port")
"""Their defaults are those of another host."""
_ONE_WORD = {
    "bindaddress",
    "certificatefile",
    "controlpath",
    "hostkeyalias",
    "identityagent",
    "identityfile",
    "pkcs11provider",
    "revokedhostkeys",
    "securitykeyprovider",
    "user",
    "xauthlocation",
}
"""Keys of one value, which may hold a blank; those of several words are left as they are."""
_FILES = ("userknownhostsfile", "globalknownhostsfile")
_PLAIN = re.compile(r"[^\s\"'#\\]+")


def has_forwards(config: Config) -> bool:
    """Whether the user's configuration opens forwards for the host."""
    return any(key in config for key in _FORWARDS)


def config_text(config: Config, ssh: str, config_words: Sequence[str]) -> str:
    """Return what ``config`` says otherwise than ssh by itself, as the text of a file.

    ``config`` is of ssh_config.resolve(). ProxyJump becomes a ProxyCommand of the ssh at the
    path ``ssh`` with the user's own ``config_words`` (``-F FILE``): a hop would be reached with
    this file else, which is about another host.
    """
    chosen = {key: values for key, values in config.items() if is_chosen(config, key)}
    chosen |= {key: config[key] for key in _ALWAYS}
    lines = [
        f"{key} {line}"
        for key, values in chosen.items()
        if key not in _LEFT_OUT
        for line in _written(key, values)
    ]
    if jumps := jumps_of(config):
        words = (ssh, *jump_words(jumps, "[%h]:%p", config_words))
        # What is in a word is no token of ours, the target's excepted.
        escaped = (word if word == "[%h]:%p" else word.replace("%", "%%") for word in words)
        lines.append(f"proxycommand {shlex.join(escaped)}")
    return "\n".join([*lines, ""])


def _written(key: str, values: Sequence[str]) -> Sequence[str]:
    """Return what goes behind ``key``, a line each."""
    if key == "setenv":  # of several lines only the first would count
        return [" ".join(map(_quoted, values))]
    if key in _ONE_WORD:
        return [_quoted(value) for value in values]
    if key in _FILES:
        return [" ".join(map(_quoted, _files(value))) for value in values]
    return values


def _quoted(word: str) -> str:
    """Return ``word`` as ssh's own reader takes it for one (misc.c, argv_split)."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _files(printed: str) -> Iterator[str]:
    """Yield the files of a list that was printed with blanks between them, and in them.

    Each begins at the root, at a home directory or with a token; what does not goes on.
    """
    name = ""
    for word in printed.split(" "):
        if name and word[:1] in ("/", "~", "%"):
            yield name
            name = word
        else:
            name = f"{name} {word}" if name else word
    yield name
