"""What a service may do: systemd.exec(5), directive by directive, each that is relaxed with why.

The same list goes into the unit and to the trial login of `enable`, so that what worked there
works in the unit. `systemd-analyze security` rates what comes of it; a test holds the bound.
"""

from __future__ import annotations

from sshvpn.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Directive:
    """One line of the unit; ``why`` stands above it where it is looser than it could be."""

    key: str
    value: str
    why: str = ""


_BOTH = (
    Directive("NoNewPrivileges", "yes"),
    Directive("LockPersonality", "yes"),
    Directive("MemoryDenyWriteExecute", "yes"),
    Directive("RestrictNamespaces", "yes"),
    Directive("RestrictRealtime", "yes"),
    Directive("RestrictSUIDSGID", "yes"),
    Directive("SystemCallArchitectures", "native"),
    Directive("SystemCallErrorNumber", "EPERM"),
    Directive("UMask", "0077"),
    Directive("LimitCORE", "0"),
)

_SYSTEM = (
    Directive(
        "CapabilityBoundingSet",
        "CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP",
        "The helper makes the device, routes and rules (NET_ADMIN). The others are given up "
        "before anything is read: to become the user (SETUID, SETGID), to leave the helper "
        "nothing else (SETPCAP). ssh and what talks to the network have no capability at all.",
    ),
    Directive("ProtectSystem", "strict"),
    Directive(
        "ReadWritePaths",
        "-/run/sshvpn-state -/run/xtables.lock",
        "Which devices are in use, and what settings were before; the lock of iptables-legacy.",
    ),
    Directive("ProtectHome", "read-only", "ssh reads its configuration, keys and known_hosts."),
    Directive("PrivateTmp", "yes"),
    Directive("DevicePolicy", "closed"),
    Directive(
        "DeviceAllow",
        "/dev/net/tun rw",
        "The tunnel is a tun device; for its sake PrivateDevices= is not set.",
    ),
    Directive(
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "ssh (INET), routes and rules (NETLINK), control sockets (UNIX).",
    ),
    Directive(
        "SystemCallFilter",
        "@system-service pidfd_getfd",
        "pidfd_getfd: how much the connection carries is read from ssh's own socket. Of "
        "@privileged the setuid family stays: root becomes the user at the start.",
    ),
    Directive("SystemCallFilter", "~@resources"),
    Directive("ProtectClock", "yes"),
    Directive("ProtectHostname", "yes"),
    Directive("ProtectKernelLogs", "yes"),
    Directive("ProtectKernelModules", "yes"),
    Directive(
        "ProtectKernelTunables",
        "no",
        "Forwarding is switched on adapter by adapter, in /proc/sys/net.",
    ),
    Directive("ProtectControlGroups", "yes"),
    Directive("ProtectProc", "invisible"),
    Directive(
        "RemoveIPC", "no", "The user is a person's account: what else it runs would lose its own."
    ),
)

_USERS = (
    Directive(
        "UnsetEnvironment",
        "SSH_AUTH_SOCK SSH_ASKPASS DISPLAY WAYLAND_DISPLAY",
        "After a boot nobody is there with an agent: so there never is one.",
    ),
    Directive(
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "ssh (INET), which adapters there are (NETLINK), control sockets (UNIX).",
    ),
    Directive(
        "SystemCallFilter",
        "@system-service pidfd_getfd",
        "pidfd_getfd: how much the connection carries is read from ssh's own socket.",
    ),
    Directive("SystemCallFilter", "~@resources @privileged"),
    Directive("KeyringMode", "private"),
)


def directives(*, is_users: bool) -> tuple[Directive, ...]:
    """Return the sandbox of a unit of the system's manager, or of a user's own.

    A user's manager has no privilege to build namespaces with, nor to cut the bounding set of
    capabilities, and needs neither: the service has no capability, can get none, and can do no
    more than its user. Directives that would need one of them are left out. Some are without
    effect there, and others (CapabilityBoundingSet=, PrivateDevices=, ProtectClock=,
    ProtectKernelLogs=, ProtectKernelModules=) keep the service from starting (exit status 218)
    on a machine whose user has not lost these capabilities anyway, as in a container.
    PrivateUsers=yes would let it build them, and cannot be: root's files are nobody's within, and
    ssh takes no included configuration (/etc/ssh/ssh_config.d) that is neither root's nor its own.
    """
    return _BOTH + (_USERS if is_users else _SYSTEM)
