"""The text of units: one template a kind, and a drop-in that says whose one service is. Pure.

::

    /etc/systemd/system/sshvpn@.service                the template, the same for all tunnels
    /etc/systemd/system/sshvpn@NAME.service.d/…conf    its user
    /etc/sshvpn/NAME.toml                              its profile

A user's manager has the template and the profile, and a drop-in where a service must do without
the namespaces of its sandbox.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sshvpn.frozen import dataclass
from sshvpn.services.kinds import Kind
from sshvpn.services.sandbox import Directive, directives, namespaces

WIDTH = 96
WATCHDOG_S = 30
RESTART_S = 2
STOP_S = 30
TRIAL_S = 60
READING_S = 10


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
    return _HEAD + own + _sandbox(kind, has_namespaces=True) + _install(kind)


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
# "+": outside of the namespaces below. Where they are what is in the way, since a new kernel or a
# file of root's that ssh now includes, this service does without them until the next boot.
ExecStopPost=-+/bin/sh -c 'test "$$SERVICE_RESULT" = success || exec "$$@"' sh \\
  {words} enable --fit %i
# What a process that was killed has left of this forward, and of no other: its sockets.
ExecStopPost={words} clean --forward %i

"""


def _sandbox(kind: Kind, *, has_namespaces: bool) -> str:
    more = namespaces(is_users=kind.is_users) if has_namespaces else ()
    return _lines(directives(is_users=kind.is_users) + more)


def _lines(found: Sequence[Directive]) -> str:
    lines = []
    for one in found:
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


def without_namespaces(kind: Kind, why: str) -> str:
    """Return what a service adds to a user's template to do without :func:`namespaces`."""
    undone = [f"{one.key}={one.undone}" for one in namespaces(is_users=kind.is_users)]
    head = [f"# {line}" for line in textwrap.wrap(f"{_RELAXED} {why}", WIDTH - 2)]
    return "\n".join([*head, "[Service]", *undone]) + "\n"


_RELAXED = """\
Written by `sshvpn enable`, or when the service failed; `sshvpn disable` removes it, and `enable` \
looks again. No namespaces:"""


def trial(
    kind: Kind,
    program: Sequence[str],
    name: str,
    files: tuple[str, str],
    account: Account | None,
    *,
    has_namespaces: bool = True,
) -> str:
    """Return a unit that logs in once as the service NAME will, in the same sandbox.

    ``files`` are its configuration and where its words go; ``account`` is that of a system's.
    Without ``has_namespaces`` a user's does without them. It ends with the exit code of cli.md.
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
{whose}{_sandbox(kind, has_namespaces=has_namespaces)}"""


def reading(kind: Kind, ssh_words: Sequence[str], *, has_namespaces: bool) -> str:
    """Return a unit of a user's that ends with 0 where ssh can read its configuration there.

    ``ssh_words`` name the host and what else the service calls ssh with: its own file, perhaps.
    """
    words = " ".join(_quoted(word) for word in ("ssh", "-G", *ssh_words))
    return f"""\
[Unit]
Description=whether ssh reads its configuration in a sandbox

[Service]
Type=oneshot
ExecStart={words}
StandardOutput=null
StandardError=journal
TimeoutStartSec={READING_S}
{_sandbox(kind, has_namespaces=has_namespaces)}"""


def _quoted(word: str) -> str:
    """Return ``word`` as one word of a unit file (systemd.syntax(7)), specifiers undone."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if any(c in word for c in " '\"\\;") else plain
