"""What the sshtunnel engine takes from ssh_config(5), and what it must leave to OpenSSH. Pure.

Options that decide whom we talk to, by which way, or how we log in are honoured or refused;
those that the command owns (forwards, control, terminal, prompts) and those that only change
how it looks or how fast it is are passed over.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from sshvpn.errors import ConfigError, UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import ForwardProfile
from sshvpn.spec import not_carried
from sshvpn.system.ssh.config import ALGORITHMS, Config, is_chosen
from sshvpn.system.ssh.jump import jumps_of

OTHER_ENGINE = "use --engine openssh"
METHODS = ("publickey", "keyboard-interactive", "password")
DEFAULT_CONNECT_TIMEOUT_S = 10.0
DEFAULT_ALIVE_INTERVAL_S = 3.0
DEFAULT_ALIVE_COUNT = 2

_NOT_HONOURED = {
    "proxyusefdpass": ("no",),
    "pkcs11provider": ("none",),
    "knownhostscommand": ("none",),
    "revokedhostkeys": ("none",),
}
"""Options that cannot be honoured, with the values that ask for nothing."""

_METHOD_SWITCHES = {
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_SHELL_SAFE = re.compile(r"[^\s'`\"$\\;&<>|(){}\-][^\s'`\"$\\;&<>|(){}]*")
_TOKEN = re.compile(r"%(.)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to log in to one host. Times are seconds; paths are whole, without ``~`` or tokens.

    ``agent`` is the path of the agent's socket; ``proxy_command`` is a line for the user's
    shell; ``jumps`` are the hops of ProxyJump as written, the first one nearest to us.
    ``rekey_bytes`` is None where the library may choose. ``algorithms`` has what the user chose,
    by the keys of ALGORITHMS.
    """

    name: str
    host: str
    port: int
    user: str
    host_key_alias: str | None
    user_known_hosts: tuple[str, ...]
    global_known_hosts: tuple[str, ...]
    hash_known_hosts: bool
    identity_files: tuple[str, ...]
    certificate_files: tuple[str, ...]
    identities_only: bool
    agent: str | None
    methods: tuple[str, ...]
    password_prompts: int
    proxy_command: str | None
    jumps: tuple[str, ...]
    connect_timeout_s: float
    alive_interval_s: float
    alive_count: int
    family: socket.AddressFamily
    bind_address: str | None
    bind_interface: str | None
    compression: bool
    rekey_bytes: int | None
    algorithms: Mapping[str, tuple[str, ...]]

    @property
    def known_hosts(self) -> tuple[str, ...]:
        """All files of known host keys, the user's first."""
        return (*self.user_known_hosts, *self.global_known_hosts)


def settings_of(config: Config, environment: Mapping[str, str], home: Path) -> Settings:
    """Return what ``config`` (as ``ssh -G`` prints it) says of its host.

    Raises UsageError, naming the other engine, for what cannot be honoured here.
    """
    _refuse_what_is_not_honoured(config)
    reader = _Reader(config, environment, home)
    return Settings(
        name=reader.one("host"),
        host=reader.one("hostname"),
        port=int(reader.one("port", "22")),
        user=reader.one("user"),
        host_key_alias=reader.optional("hostkeyalias"),
        user_known_hosts=reader.paths("userknownhostsfile"),
        global_known_hosts=reader.paths("globalknownhostsfile"),
        hash_known_hosts=reader.one("hashknownhosts") == "yes",
        identity_files=reader.files("identityfile"),
        certificate_files=reader.files("certificatefile"),
        identities_only=reader.one("identitiesonly") == "yes",
        agent=reader.agent(),
        methods=_methods(config),
        password_prompts=int(reader.one("numberofpasswordprompts", "3")),
        proxy_command=reader.proxy_command(),
        jumps=jumps_of(config),
        connect_timeout_s=reader.seconds("connecttimeout", DEFAULT_CONNECT_TIMEOUT_S),
        alive_interval_s=reader.seconds("serveraliveinterval", DEFAULT_ALIVE_INTERVAL_S),
        alive_count=int(reader.one("serveralivecountmax", "3"))
        if reader.seconds("serveraliveinterval", 0.0)
        else DEFAULT_ALIVE_COUNT,
        family=_FAMILIES.get(reader.one("addressfamily", "any"), socket.AF_UNSPEC),
        bind_address=reader.optional("bindaddress"),
        bind_interface=reader.optional("bindinterface"),
        compression=reader.one("compression") == "yes",
        rekey_bytes=int(reader.one("rekeylimit", "0").split()[0]) or None,
        algorithms={
            key: tuple(config[key][0].split(",")) for key in ALGORITHMS if is_chosen(config, key)
        },
    )


def refuse_specs(profile: ForwardProfile) -> None:
    """Raise UsageError for a SPEC that the library has no way to carry."""
    for spec in profile.specs:
        message = not_carried(spec)
        if message is not None:
            raise UsageError(message, OTHER_ENGINE)


def _refuse_what_is_not_honoured(config: Config) -> None:
    for key, harmless in _NOT_HONOURED.items():
        value = config.get(key, harmless)[0]
        if value not in harmless:
            raise UsageError(
                f"the sshtunnel engine does not honour {key} {value} of ssh_config", OTHER_ENGINE
            )


def _methods(config: Config) -> tuple[str, ...]:
    preferred = config.get("preferredauthentications", (",".join(METHODS),))[0].split(",")
    allowed = tuple(
        method
        for method in preferred
        if method in METHODS and config.get(_METHOD_SWITCHES[method], ("yes",))[0] != "no"
    )
    if not allowed:
        raise UsageError(
            f"the sshtunnel engine has none of the login methods of ssh_config: "
            f"{', '.join(preferred)}",
            OTHER_ENGINE,
        )
    return allowed


class _Reader:
    """Reads single values of a resolved configuration."""

    def __init__(self, config: Config, environment: Mapping[str, str], home: Path) -> None:
        self._config = config
        self._environment = environment
        self._home = home

    def one(self, key: str, default: str = "") -> str:
        return self._config.get(key, (default,))[0] or default

    def optional(self, key: str) -> str | None:
        value = self.one(key)
        return None if value in ("", "none") else value

    def seconds(self, key: str, default: float) -> float:
        value = self.one(key)
        return float(value) if value.isdigit() and int(value) else default

    def paths(self, key: str) -> tuple[str, ...]:
        """Return files that ssh names on one line; it has expanded them itself."""
        words = self.one(key).split()
        return tuple(self.expand(word) for word in words if word != "none")

    def files(self, key: str) -> tuple[str, ...]:
        """Return files that ssh names on a line each, in order, each once."""
        named = (value for value in self._config.get(key, ()) if value not in ("", "none"))
        return tuple(dict.fromkeys(self.expand(value) for value in named))

    def agent(self) -> str | None:
        value = self.one("identityagent", "SSH_AUTH_SOCK")
        if value == "none":
            return None
        if value == "SSH_AUTH_SOCK":
            return self._environment.get(value) or None
        if value.startswith("$"):
            return self._environment.get(value.strip("${}")) or None
        return self.expand(value)

    def proxy_command(self) -> str | None:
        """Return the line for the shell, with host and user in it (ssh_config(5), TOKENS)."""
        command = self.optional("proxycommand")
        if command is None:
            return None
        for word in (self.one("hostname"), self.one("user"), self.one("host")):
            if word and not _SHELL_SAFE.fullmatch(word):
                raise UsageError(
                    f"{word!r} cannot go into the ProxyCommand of ssh_config: a shell would read it"
                )
        return self._replaced(command, "hnpr")

    def expand(self, path: str) -> str:
        """Return ``path`` with ``~``, tokens and ``${VARIABLE}`` replaced (ssh_config(5))."""
        if path == "~" or path.startswith("~/"):
            path = str(self._home) + path[1:]
        elif path.startswith("~"):
            path = str(Path(path).expanduser())
        path = _VARIABLE.sub(self._variable, path)
        return self._replaced(path, "CdhijkLlnpru")

    def _variable(self, match: re.Match[str]) -> str:
        if match[1] not in self._environment:
            raise ConfigError(
                f"ssh_config uses the environment variable {match[1]}, which is not set"
            )
        return self._environment[match[1]]

    def _replaced(self, text: str, allowed: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] == "%":
                return "%"
            if match[1] not in allowed:
                raise ConfigError(f"ssh_config holds an unknown token in {text!r}: %{match[1]}")
            return self._token(match[1])

        return _TOKEN.sub(value, text)

    def _token(self, letter: str) -> str:
        import getpass
        import os

        host, port, user = self.one("hostname"), self.one("port", "22"), self.one("user")
        here = socket.gethostname()
        jump = self.optional("proxyjump") or ""
        values = {
            "C": lambda: hashlib.sha1((here + host + port + user + jump).encode()).hexdigest(),  # noqa: S324 (as ssh makes it)
            "d": lambda: str(self._home),
            "h": lambda: host,
            "i": lambda: str(os.getuid()),
            "j": lambda: jump,
            "k": lambda: self.optional("hostkeyalias") or self.one("host"),
            "L": lambda: here.partition(".")[0],
            "l": lambda: here,
            "n": lambda: self.one("host"),
            "p": lambda: port,
            "r": lambda: user,
            "u": getpass.getuser,
        }
        return values[letter]()
