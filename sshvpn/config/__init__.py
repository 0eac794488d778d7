"""Configuration: TOML profiles and the nouns they stand for; nothing else parses them.

::

    files.py    where the file is, and whether it may be trusted      (reads)
    lines.py    at which line of a TOML text each key stands          (pure)
    value.py    one value of the file, with its place for a message   (pure)
    schema.py   which keys there are, and what they may hold          (pure)
    entries.py  what has been read: Config and an entry a profile  (pure)
    render.py   the same written as TOML again                        (pure)

Every mistake is a ConfigError that begins with ``FILE:LINE:`` where a line is to blame.
"""

from sshvpn.config.entries import Config, ForwardEntry, NotebookEntry, TunnelEntry
from sshvpn.config.files import config_path, load, read_text
from sshvpn.config.render import render
from sshvpn.config.schema import parse

__all__ = [
    "Config",
    "ForwardEntry",
    "NotebookEntry",
    "TunnelEntry",
    "config_path",
    "load",
    "parse",
    "read_text",
    "render",
]
