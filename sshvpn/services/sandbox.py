"""What a service may do: systemd.exec(5), directive by directive, each that is relaxed with why.

The same list goes into the unit and to the trial login of `enable`, so that what worked there
works in the unit. `systemd-analyze security` rates what comes of it; a test holds the bound.

A user's manager has a second list, of what needs namespaces. It can build them in one of users
alone, which not every kernel lets a user have, and in which root's files are nobody's. Where that
is in the way the list is undone, by a drop-in, and the first one stays.
"""

from __future__ import annotations

from sshvpn.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Directive:
    """One line of the unit; ``why`` stands above it where it is looser than it could be.

    ``undone`` is the value that takes it back; None where nothing ever does.
    """

    key: str
    value: str
    why: str = ""
    undone: str | None = None


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


_NAMESPACES = (
    Directive(
        "PrivateUsers",
        "yes",
        "A user's manager builds namespaces, and cuts capabilities, in one of users alone.",
        undone="no",
    ),
    Directive("CapabilityBoundingSet", "", undone="~"),
    Directive(
        "ProtectSystem",
        "full",
        "Not strict: a forward listens at a socket wherever its user can write.",
        undone="no",
    ),
    Directive(
        "ProtectHome",
        "no",
        "ssh writes its known_hosts there, we our log, and a forward may listen at a socket.",
        undone="no",
    ),
    Directive(
        "PrivateTmp",
        "no",
        "Others find a forward's socket there, and ssh the tickets of Kerberos.",
        undone="no",
    ),
    Directive("PrivateDevices", "yes", undone="no"),
    Directive("ProtectKernelTunables", "yes", undone="no"),
    Directive("ProtectKernelModules", "yes", undone="no"),
    Directive("ProtectControlGroups", "yes", undone="no"),
    Directive("ProtectClock", "yes", undone="no"),
    Directive("ProtectHostname", "yes", undone="no"),
    Directive(
        "ProtectKernelLogs",
        "no",
        "In a container it keeps the service from starting: /proc/kmsg is covered there already. "
        "The list of system calls has no syslog(2).",
        undone="no",
    ),
    Directive(
        "ProtectProc",
        "default",
        "The kernel mounts no /proc for a user who has no namespace of processes: this, and "
        "ProcSubset=, would be said and not be.",
        undone="default",
    ),
)


def directives(*, is_users: bool) -> tuple[Directive, ...]:
    """Return the sandbox of a unit of the system's manager, or of a user's own.

    What a user's manager can do only where it has :func:`namespaces` is not in it. Without them
    some directives have no effect there, and others (CapabilityBoundingSet=, PrivateDevices=,
    ProtectClock=, ProtectKernelLogs=, ProtectKernelModules=) keep the service from starting (exit
    status 218) where the user has not lost these capabilities anyway, as in a container.
    """
    return _BOTH + (_USERS if is_users else _SYSTEM)


def namespaces(*, is_users: bool) -> tuple[Directive, ...]:
    """Return what a user's unit has besides, unless it is undone; nothing for the system's.

    It can be in the way of a login that works without: ssh takes no included configuration
    (/etc/ssh/ssh_config.d) that is neither root's nor its own, and the keys of the kernel's
    keyring and of /dev/hidraw are not there. It does not start where the kernel, or who set it
    up, lets a user have no namespaces (217/USER, 218/CAPABILITIES, 226/NAMESPACE).
    """
    return _NAMESPACES if is_users else ()
