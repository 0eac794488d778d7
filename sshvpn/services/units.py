"""The text of units: one template a kind, and a drop-in that says whose one service is. Pure.

::

    /etc/systemd/system/sshvpn@.service                the template, the same for all tunnels
    /etc/systemd/system/sshvpn@NAME.service.d/…conf    its user
    /etc/sshvpn/NAME.toml                              its profile
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sshvpn.frozen import dataclass
from sshvpn.services.kinds import Kind
from sshvpn.services.sandbox import directives

WIDTH = 96
WATCHDOG_S = 30
RESTART_S = 2
STOP_S = 30
TRIAL_S = 60


@dataclass(frozen=True, slots=True)
class Account:
    """The user whose service it is, as passwd(5) has it; ``state`` is a directory of its own."""

    name: str
    uid: int
    home: str
    state: str


def template(kind: Kind, program: Sequence[str]) -> str:
    """Return the template unit of ``kind``; ``program`` are the words that run sshvpn."""
    words = " ".join(_quoted(word) for word in program)
    own = _users(kind, words) if kind.is_users else _systems(kind, words)
    return _HEAD + own + _sandbox(kind) + _install(kind)


_HEAD = """\
# Written by `sshvpn enable`, again each time; `sshvpn disable` of the last service removes it.
# What shall differ belongs into a drop-in: systemctl edit.
"""

_ORDER = """\
# A server that cannot be reached must not hold up the boot: nothing waits for this, and with the
# usual dependencies the target that wants it would.
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
# Time mends a network: it is tried for ever, however often.
StartLimitIntervalSec=0
"""

_COMMON = f"""\
# READY is said in `running`, after a packet has come back; so does the end of a reload.
Type=notify
NotifyAccess=main
WatchdogSec={WATCHDOG_S}
Restart=on-failure
RestartSec={RESTART_S}
# What only a person can mend: usage and configuration, privilege, a server that refuses.
RestartPreventExitStatus=2 4 5
TimeoutStartSec=infinity
TimeoutStopSec={STOP_S}
# The main process ends ssh in good order; what does not end then is killed.
KillMode=mixed
"""


def _systems(kind: Kind, words: str) -> str:
    return f"""
[Unit]
Description={kind.title}: %i
Wants=network-online.target
After=network-online.target nss-lookup.target
Requires=sysinit.target
After=sysinit.target basic.target
{_ORDER}
[Service]
{_COMMON}Environment=SSHVPN_CONFIG=/etc/sshvpn/%i.toml
RuntimeDirectory=sshvpn-service/%i
RuntimeDirectoryMode=0700
ExecStartPre=+install -d -m 0711 /run/sshvpn-state
# "!": starts as root and changes to User= by itself, once the helper runs; see the capabilities.
ExecStart=!{words} {" ".join(kind.command)} --name %i
ExecReload=kill -HUP $MAINPID
# What a process that was killed has left of this tunnel, and of no other.
ExecStopPost=!{words} clean %i

"""


def _users(kind: Kind, words: str) -> str:
    return f"""
[Unit]
Description={kind.title}: %i
# A user's manager knows no network-online.target: until there is a network, it is tried again.
After=basic.target
{_ORDER}
[Service]
{_COMMON}Environment=SSHVPN_CONFIG=%E/sshvpn/services/{kind.session}-%i.toml
ExecStart={words} {" ".join(kind.command)} --name %i
ExecReload=kill -HUP $MAINPID
# What a process that was killed has left of this forward, and of no other: its sockets.
ExecStopPost={words} clean --forward %i

# No namespaces: a user's manager builds them in one of users (PrivateUsers=) alone, where root's
# files are nobody's, and ssh reads no /etc/ssh/ssh_config.d of nobody's. No CapabilityBoundingSet=
# either, which would want one: this user has no capability, and can get none (NoNewPrivileges=).
"""


def _sandbox(kind: Kind) -> str:
    lines = []
    for one in directives(is_users=kind.is_users):
        lines += [f"# {line}" for line in textwrap.wrap(one.why, WIDTH - 2)]
        lines.append(f"{one.key}={one.value}")
    return "\n".join(lines) + "\n"


def _install(kind: Kind) -> str:
    target = "default.target" if kind.is_users else "multi-user.target"
    return f"\n[Install]\nWantedBy={target}\n"


def drop_in(account: Account) -> str:
    """Return what a system service adds to the template: for whom it runs."""
    return f"""\
# Written by `sshvpn enable`; `sshvpn disable` removes it.
[Unit]
RequiresMountsFor={_quoted(account.home)}

[Service]
Environment=SSHVPN_SERVICE_UID={account.uid}
{_whose(account)}"""


def _whose(account: Account) -> str:
    return f"""\
User={account.name}
# Which networks this user shares with, and which login worked with which server.
ReadWritePaths={_quoted(f"-{account.state}")}
"""


def trial(
    kind: Kind, program: Sequence[str], name: str, files: tuple[str, str], account: Account | None
) -> str:
    """Return a unit that logs in once as the service NAME will, in the same sandbox.

    ``files`` are its configuration and where its words go; ``account`` is that of a system's.
    It ends with the exit code of cli.md.
    """
    configuration, output = files
    words = " ".join(_quoted(word) for word in (*program, "enable", "--try-login", name))
    whose = "" if account is None else _whose(account)
    return f"""\
[Unit]
Description=trial login of {kind.title}: {name}

[Service]
Type=oneshot
ExecStart={words}
Environment={_quoted(f"SSHVPN_CONFIG={configuration}")}
StandardOutput=file:{output.replace("%", "%%")}
StandardError=journal
TimeoutStartSec={TRIAL_S}
{whose}{_sandbox(kind)}"""


def _quoted(word: str) -> str:
    """Return ``word`` as one word of a unit file (systemd.syntax(7)), specifiers undone."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if any(c in word for c in " '\"\\;") else plain
