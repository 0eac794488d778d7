r"""What OpenSSH prints on stderr, turned into the errors of sshvpn. Pure.

ssh's exit code is 255 for everything; what tells the cases apart is its stderr. This is the
one place where its words are matched. The texts are those of OpenSSH 8.2 to 10 (sshconnect.c,
sshconnect2.c, ssh.c, clientloop.c, channels.c, readconf.c, mux.c, packet.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sshvpn.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionLostError,
    FileOwnerError,
    ForwardingRefusedError,
    HostKeyChangedError,
    HostKeyUnknownError,
    LoginNeededError,
    PrivilegeError,
    RefusedError,
    ResolveError,
    SshvpnError,
    TakenError,
    TunnelRefusedError,
    UnknownSshError,
    UnreachableError,
    UsageError,
)
from sshvpn.frozen import dataclass

_DEBUG = re.compile(r"debug[123]: ")
_NOISE = re.compile(
    r"Warning: Permanently added|Authenticated to|Transferred: |Bytes per second|OpenSSH_"
    r"|Permission denied, please try again|Killed by signal|Shared connection to|Disconnected from"
    r"|\*\* |Connection to .* closed\.$|Pseudo-terminal|@{20,}|Exit request sent"
    r"|channel \d+: open failed|connect_to |getaddrinfo: (?:0\.0\.0\.0|::): "
    r"|chan_shutdown_(?:read|write): "
)
_DISCONNECT = r"Received disconnect from .*?:\d+: "
_NOT_FORWARDED = (
    r"(?:Error|Warning|mux_client_forward: forwarding request failed): remote port forwarding"
)
_LOCKED_KEY = re.compile(
    # Behind the name of the function or program that says so.
    r"(?m)^(?:debug\d|\w+[_-][\w-]+): .*"
    r"(?:agent refused operation|device not found|requires? a PIN|signing failed)"
)
_REFUSED_KEY = "has been changed, or somebody is between you and the server"


class DeviceRefusedError(TunnelRefusedError):
    """The server permits tunnels; its device is taken, absent, or not this login's."""


@dataclass(frozen=True, slots=True)
class _Case:
    pattern: str
    build: Callable[[re.Match[str], str], SshvpnError]


def _cases(*rows: tuple[str, Callable[[re.Match[str], str], SshvpnError]]) -> tuple[_Case, ...]:
    """Return the cases of ``rows``, each pattern that of a whole line."""
    # Compiled when ssh has said something: all of them take 5 ms.
    return tuple(_Case(f"^(?:{pattern})$", build) for pattern, build in rows)


def _reached(match: re.Match[str], _: str) -> SshvpnError:
    why = match[3].strip()
    return UnreachableError(
        f"could not reach {match[1]} port {match[2]}: {why[:1].lower()}{why[1:]}",
        "is the server up, and the address and port right? ssh -v to the same host tells more",
    )


def _resolved(match: re.Match[str], _: str) -> SshvpnError:
    return ResolveError(
        f"could not resolve the host name {match[1]}: {match[2].strip()}",
        "look for a typing error in the name, or at this machine's resolver",
    )


def _key_changed(_: re.Match[str], text: str) -> SshvpnError:
    where = re.search(r"(?m)^Offending .*?key in (\S+?):(\d+)$", text)
    host = re.search(r"(?m)^(?:Host|\S+ host) key for (\S+) has changed", text)
    name = host[1] if host else "the server"
    at = f" ({where[1]} line {where[2]})" if where else ""
    return HostKeyChangedError(
        f"the host key of {name} is not the known one{at}: it {_REFUSED_KEY}",
        f"ask the server's administrator; if it is right: ssh-keygen -R {name}"
        if host
        else "ask the server's administrator before you change known_hosts",
    )


def _key_revoked(_: re.Match[str], __: str) -> SshvpnError:
    return HostKeyChangedError(
        "the server's host key is marked as revoked in known_hosts",
        "do not use it; ask the server's administrator",
    )


def _key_unknown(match: re.Match[str], _: str) -> SshvpnError:
    return HostKeyUnknownError(
        f"no host key is known for {match[1]}",
        f"log in once at a terminal to see and accept it: ssh {match[1]}",
    )


def _key_not_accepted(_: re.Match[str], __: str) -> SshvpnError:
    return HostKeyUnknownError(
        "the server's host key was not accepted",
        "compare the fingerprint with the administrator's, then answer yes",
    )


def _denied(match: re.Match[str], text: str) -> SshvpnError:
    methods = match[1]
    is_readable = re.search(r"(?m)^@ +WARNING: UNPROTECTED PRIVATE KEY FILE! +@$", text)
    is_accepted = re.search(r"(?m)^debug\d: Server accepts key", text)
    if (is_accepted and not is_readable) or re.search(_LOCKED_KEY, text):
        return LoginNeededError(
            "the server would take a key that is locked (passphrase, agent or touch)",
            "unlock it with ssh-add, or start again at a terminal",
        )
    hint = f"the server takes: {methods}; try the same host with ssh, or another key with -i"
    if is_readable:
        hint = "ssh ignored a key file that others can read: chmod 600 it"
    missing = re.search(
        r"(?m)^(?:debug\d: )?(?:no such identity:|Warning: Identity file) (.*?):? "
        r"(?:not acc|No such)",
        text,
    )
    if missing:
        hint = f"the key file {missing[1]} is not there"
    return AuthenticationError("the server refused the login: permission denied", hint)


def _too_many(_: re.Match[str], __: str) -> SshvpnError:
    return AuthenticationError(
        "the server refused the login: too many keys were tried",
        "name the right one: -i KEY -o IdentitiesOnly=yes",
    )


def _config(match: re.Match[str], _: str) -> SshvpnError:
    return ConfigError(match[0].strip().rstrip("."), "ssh says so of its own configuration")


def _owner(match: re.Match[str], _: str) -> SshvpnError:
    return FileOwnerError(match[0].strip(), "ssh says so of its own configuration")


def _command_line(match: re.Match[str], _: str) -> SshvpnError:
    return UsageError(f"ssh does not take that option: {match[1].strip()}", "see: man ssh_config")


def _no_match(match: re.Match[str], _: str) -> SshvpnError:
    return RefusedError(
        f"ssh and the server have no {match[1]} in common; it offers {match[2]}",
        "allow one of them in ssh_config for this host, or bring the server up to date",
    )


def _tunnel(_: re.Match[str], text: str) -> SshvpnError:
    if "Failed to open the tunnel device" in text and "rejected tunnel device" not in text:
        return DeviceRefusedError(
            "the server permits tunnels, but this login could not open a tun device there",
            "on the server, as root: modprobe tun",
        )
    return TunnelRefusedError(
        "the server does not permit tunnels",
        "set PermitTunnel point-to-point in the server's sshd_config, and let sshd read it again",
    )


def _local_tunnel(_: re.Match[str], text: str) -> SshvpnError:
    if "Device or resource busy" in text:
        return TakenError(
            "this machine's tun device is taken", "see who has it: ip tuntap; or take another"
        )
    if re.search(r"tunnel control interface: No such|/dev/net/tun.*No such", text):
        return PrivilegeError("this machine has no /dev/net/tun", "as root: modprobe tun")
    return PrivilegeError(
        "may not open a tun device on this machine", "it must belong to this user, or be root's"
    )


def _bind(match: re.Match[str], _: str) -> SshvpnError:
    where, why = match[1], match[2]
    if "in use" in why:
        return TakenError(f"{where} is taken", "choose another port, or end what listens there")
    if "ermission" in why:
        return PrivilegeError(f"may not listen on {where}", "choose a port from 1024 up")
    return UsageError(f"cannot listen on {where}: {why.strip()}", "is it this machine's address?")


def _remote_bind(match: re.Match[str], _: str) -> SshvpnError:
    return TakenError(
        f"the server does not listen on {match[1]}: it is taken there, or not allowed",
        "choose another, or look at AllowTcpForwarding, PermitListen and GatewayPorts in "
        "its sshd_config",
    )


def _lost(message: str) -> Callable[[re.Match[str], str], SshvpnError]:
    return lambda match, _: ConnectionLostError(match.expand(message))


def _unreached(message: str) -> Callable[[re.Match[str], str], SshvpnError]:
    return lambda match, _: UnreachableError(
        match.expand(message), "ssh -v to the same host tells more"
    )


# The order counts: the first that matches anywhere in the text wins, so that the cause stands
# before what only follows from it ("Host key verification failed.", "Connection closed"). Each is
# a whole line as ssh writes it: a server's banner, between them, may have any words.
_CASES = _cases(
    (r"@ +WARNING: REVOKED HOST KEY DETECTED! +@", _key_revoked),
    (r"@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! +@", _key_changed),
    (r"No \S+ host key is known for (\S+) and you have requested strict checking\.", _key_unknown),
    (r"Host key verification failed\.", _key_not_accepted),
    (rf"{_DISCONNECT}[Tt]oo many authentication failures.*", _too_many),
    (r".+@\S+: Permission denied \(([^)\s]*)\)\.", _denied),
    (rf"{_DISCONNECT}(?:[Nn]o more|No supported) authentication methods available(.*)", _denied),
    (r"\S+: Could not resolve hostname (\S+): (.*)", _resolved),
    (r"command-line:? line 0: (.*)", _command_line),
    (r"\S*sh: (?:line )?\d+: (.*)", _unreached(r"the ProxyCommand failed: \1")),
    (r"jumphost loop via \S+", _config),
    (r"/.* line \d+: (?!Deprecated option|Unsupported option|Ignored unknown option).*", _config),
    (r"Bad owner or permissions on .*", _owner),
    (r"\S.*: terminating, \d+ bad configuration options", _config),
    (r"Can't open user config file .*", _config),
    (r"Unable to negotiate with .+?: no matching (.*?) found. Their offer: (.*)", _no_match),
    (r"Tunnel device open failed\.", _local_tunnel),
    (r"Tunnel forwarding failed\.?|Server has rejected tunnel device forwarding", _tunnel),
    (r"bind (\[?[^\s\]]+\]?:\d+): (.*)", _bind),
    (r"unix_listener: cannot bind to path (\S+): (.*)", _bind),
    (rf"{_NOT_FORWARDED} failed for listen (?:port|path) (\S+)", _remote_bind),
    (r"ssh: connect to host (\S+) port (\d+): (.*)", _reached),
    (r"connect to address (\S+) port (\d+): (.*)", _reached),
    (r"Timeout, server (\S+) not responding\.", _lost(r"the server \1 does not answer any more")),
    (r"Connection to (\S+) port \d+ timed out", _unreached(r"the connection to \1 timed out")),
    (r"Connection timed out during banner exchange|banner exchange: .*timed? ?out",
     _unreached("the server took the connection and said nothing")),
    (r"\w+_exchange_identification: banner line \d+: (.*)",
     _unreached(r"the server turned the connection away: \1")),
    (r"(?:kex|ssh)_exchange_identification: (.*)",
     _unreached(r"the server ended the connection at once: \1")),
    (r"Bad remote protocol version identification: .*|[Nn]o SSH identification string received\.",
     _unreached("what answers at that address and port is not an SSH server")),
    (r"Connection closed by UNKNOWN port \d+|Connection closed by remote host \[preauth\]",
     _unreached("the proxy or jump host ended the connection")),
    (r"Connection to (\S+) closed by remote host\.", _lost(r"the server \1 ended the connection")),
    (rf"{_DISCONNECT}(.*)", _lost(r"the server ended the connection: \1")),
    (r"\w+: send disconnect: (.*)|packet_write_\w+: .*?: (.*)|Write failed: (.*)",
     lambda m, _: ConnectionLostError(f"the connection broke: {m[1] or m[2] or m[3]}")),
    (r"Read from remote host (\S+): (.*)", _lost(r"the connection to \1 broke: \2")),
    (r"ssh_dispatch_run_fatal: .*?: (.*)", _lost(r"the connection broke: \1")),
    (r"Connection (?:closed|reset) by (\S+)(?: port \d+)?",
     _unreached(r"\1 ended the connection")),
    (r"(?:[\w ]+: )*Connection to (\S+) port \d+: (.*)", _lost(r"the connection to \1 broke: \2")),
    (r"channel \d+: open failed: administratively prohibited.*", lambda *_: ForwardingRefusedError(
        "the server does not forward for this login",
        "on the server: AllowTcpForwarding and PermitOpen in sshd_config")),
)  # fmt: skip


def classify(lines: Iterable[str], exit_status: int | None = None) -> SshvpnError:
    """Return the error that ssh's ``lines`` on stderr tell of.

    Debug lines help to understand others and are never an error themselves. A text that is not
    known here is UnknownSshError with ssh's last words, or, when ssh said nothing,
    ConnectionLostError.
    """
    all_lines = [line.rstrip("\r\n") for line in lines]
    spoken = [line for line in all_lines if line.strip() and not _DEBUG.match(line)]
    text = "\n".join(spoken)
    for case in _CASES:
        match = re.search(case.pattern, text, re.MULTILINE)
        if match:
            return case.build(match, "\n".join(all_lines))
    words = [line for line in spoken if not _NOISE.search(line)]
    if words:
        return UnknownSshError(
            f"ssh ended: {words[-1][:300]}", "ssh -v to the same host tells more"
        )
    if exit_status is not None and exit_status < 0:
        return ConnectionLostError(f"ssh was ended by signal {-exit_status}")
    return ConnectionLostError(f"ssh ended without a word (exit status {exit_status})")


def is_debug(line: str) -> bool:
    """Whether ``line`` is one of ssh's debug lines."""
    return _DEBUG.match(line) is not None


def is_noise(line: str) -> bool:
    """Whether ``line`` is nothing that a person needs to read."""
    return not line.strip() or is_debug(line) or _NOISE.search(line) is not None
