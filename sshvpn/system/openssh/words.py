"""The words of ssh's command line that are ours, pure.

They go before the user's: the first value of an option wins (ssh_config(5)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sshvpn.errors import UsageError
from sshvpn.model import Endpoint, UnixEndpoint
from sshvpn.spec import is_plain_socket, quoted
from sshvpn.system.cpu import has_aes
from sshvpn.system.ssh.config import Config, is_chosen

ALIVE_INTERVAL_S = 3
ALIVE_COUNT_MAX = 2
CONNECT_TIMEOUT_S = 10
_UNSPECIFIED = {"inet": "0.0.0.0", "inet6": "::"}  # noqa: S104 (of the connection, not a listener)
_PLAIN_HOST = re.compile(r"[A-Za-z0-9_.:*][A-Za-z0-9_.:%-]*")


def forward_words(config: Config, control: Path, *, may_prompt: bool) -> tuple[str, ...]:
    """Return our own words of an ssh that only forwards, which go before the user's.

    ``config`` is what ``ssh -G`` resolved: what the user chose there stays (ciphers,
    keepalive, time-outs), and options that this ssh does not know are not given. ``control`` is
    its control socket.
    """
    own = {
        "ClearAllForwardings": "yes",
        "ExitOnForwardFailure": "no",
        "Tunnel": "no",
        "SessionType": "none",
    }
    return ("-N", *_words(config, control, own, may_prompt=may_prompt))


def tunnel_words(config: Config, control: Path, units: str, *, may_prompt: bool) -> tuple[str, ...]:
    """Return our own words of an ssh that carries packets and runs a command.

    ``units`` is the argument of ``-w``: the unit here and the one there. As
    ClearAllForwardings would take that away too, ``config`` is to have no forwards
    (:mod:`sshvpn.system.openssh.config_file`).
    """
    own = {
        **_COMMAND,
        "ClearAllForwardings": "no",
        "ExitOnForwardFailure": "yes",
        "Tunnel": "point-to-point",
    }
    return ("-w", units, *_words(config, control, own, may_prompt=may_prompt))


def command_words(config: Config, control: Path, *, may_prompt: bool) -> tuple[str, ...]:
    """Return our own words of an ssh that only runs a command."""
    own = {**_COMMAND, "ClearAllForwardings": "yes", "Tunnel": "no"}
    return _words(config, control, own, may_prompt=may_prompt)


_COMMAND = {
    "ForwardAgent": "no",
    "SessionType": "default",
    "StdinNull": "no",
}
_SOME_KNOW = {"RemoteCommand", "ForkAfterAuthentication", "SessionType", "StdinNull"}
"""Options that are younger than the oldest ssh that we run."""


def _words(
    config: Config, control: Path, own: Mapping[str, str], *, may_prompt: bool
) -> tuple[str, ...]:
    options = {
        "StrictHostKeyChecking": "ask" if may_prompt else "yes",
        "NoHostAuthenticationForLocalhost": "no",
        "BatchMode": "no" if may_prompt else "yes",
        "LogLevel": "DEBUG1",
        "ControlMaster": "yes",
        "ControlPersist": "no",
        "PermitLocalCommand": "no",
        "RequestTTY": "no",
        "ForwardX11": "no",
        "RemoteCommand": "none",
        "ForkAfterAuthentication": "no",
        **own,
        **_good_defaults(config),
        **_family(config),
    }
    known = {
        key: value
        for key, value in options.items()
        if key not in _SOME_KNOW or key.lower() in config
    }
    said = (word for key, value in known.items() for word in ("-o", f"{key}={value}"))
    return ("-T", "-S", str(control), *said)


def _good_defaults(config: Config) -> dict[str, str]:
    """Return what a forward that lasts should not leave open, where the user did."""
    better: dict[str, str] = {}
    if config.get("serveraliveinterval", ("0",))[0] == "0":
        # Three seconds of silence are asked about; after nine the connection is dead.
        better["ServerAliveInterval"] = str(ALIVE_INTERVAL_S)
        better["ServerAliveCountMax"] = str(ALIVE_COUNT_MAX)
    if chosen_timeout_s(config) is None:
        better["ConnectTimeout"] = str(CONNECT_TIMEOUT_S)
    ciphers = config.get("ciphers", ("",))[0]
    if has_aes() and ciphers and not is_chosen(config, "ciphers"):
        better["Ciphers"] = aes_first(ciphers)
    return better


def chosen_timeout_s(config: Config) -> int | None:
    """Return for how long the user waits for a connection, in seconds; None: nothing was said."""
    value = config.get("connecttimeout", ("none",))[0]
    return None if value in ("none", "0") else int(value)


def _family(config: Config) -> dict[str, str]:
    """Return what keeps the user's AddressFamily for the connection, and for that alone.

    ssh would listen on addresses of that family only, too. From the unspecified address of a
    family only servers of that family can be reached.
    """
    unspecified = _UNSPECIFIED.get(config.get("addressfamily", ("any",))[0])
    if unspecified is None or config.keys() & {"bindaddress", "bindinterface"}:
        return {}
    return {"AddressFamily": "any", "BindAddress": unspecified}


def aes_first(ciphers: str) -> str:
    """Return the comma-separated ``ciphers`` with AES-GCM moved to the front.

    OpenSSH prefers chacha20-poly1305, which is right for a CPU without AES instructions and
    costs a third of the speed on one with them.
    """
    names = ciphers.split(",")
    return ",".join(sorted(names, key=lambda name: "gcm" not in name))


def forward_word(where: Endpoint, target: Endpoint | None) -> str:
    """Return the argument of ``-L``, ``-R`` or ``-D`` (ssh(1)); addresses in brackets.

    ssh expands ``%x`` and ``${NAME}``, this machine's environment, in a socket's path
    (ssh_config(5)), and a notebook's place is told by the server. Raises UsageError for what
    would be read as more than text.
    """

    def word(endpoint: Endpoint) -> str:
        if isinstance(endpoint, UnixEndpoint):
            if not is_plain_socket(endpoint.path):
                raise UsageError(
                    f"the path {quoted(endpoint.path)} of a socket is not absolute, or holds a "
                    "character that ssh would read",
                    "a path without blanks, quotes and : % $ \\ [ ] can be forwarded",
                )
            return endpoint.path
        if not _PLAIN_HOST.fullmatch(endpoint.host):
            raise UsageError(f"{quoted(endpoint.host)} is no host", "name it or its address")
        return f"[{endpoint.host}]:{endpoint.port}"

    return word(where) if target is None else f"{word(where)}:{word(target)}"
