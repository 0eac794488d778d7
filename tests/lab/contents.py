"""What a machine begins with: accounts, files and settings, as after a usual boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ALICE_PASSWORD: Final = "tulip-4-fields"
_ALICE_HASH: Final = (
    "$6$labsalt$"
    "9hbKC9oi7fcpsaOxCCbpwKP7A.Sb.ff8VO5yWrxGADJfh0Kw/Atccs1ZOKxvVyne69aUdr1X4lekFMwMi0mOF0"
)

# What a machine has after a usual boot. IPv4 settings would else be those of the host.
SYSCTLS: Final[Mapping[str, str]] = {
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.all.accept_source_route": "0",
    "net.ipv4.conf.default.accept_source_route": "0",
    "net.ipv4.conf.all.promote_secondaries": "1",
    "net.ipv4.conf.default.promote_secondaries": "1",
    "net.ipv4.conf.all.route_localnet": "0",
    "net.ipv4.conf.default.route_localnet": "0",
    "net.ipv4.conf.all.proxy_arp": "0",
    "net.ipv4.conf.default.proxy_arp": "0",
    "net.ipv4.ping_group_range": "0\t2147483647",
    "net.ipv4.tcp_congestion_control": "cubic",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
}


@dataclass(frozen=True)
class User:
    """Somebody who has an account on a machine; PASSWORD is the hash in /etc/shadow."""

    name: str
    uid: int
    shell: str = "/bin/bash"
    password: str = _ALICE_HASH

    @property
    def home(self) -> str:
        """The home directory."""
        return f"/home/{self.name}"

    def description(self) -> dict[str, Any]:
        """Return the account as the holder wants it."""
        return {
            "name": self.name,
            "uid": self.uid,
            "gid": self.uid,
            "home": self.home,
            "passwd": f"{self.name}:x:{self.uid}:{self.uid}:,,,:{self.home}:{self.shell}",
            "shadow": f"{self.name}:{self.password}:19000:0:99999:7:::",
            "group": f"{self.name}:x:{self.uid}:",
            "files": {".bashrc": BASHRC, ".profile": PROFILE},
        }


ALICE: Final = User("alice", 1000)
BOB: Final = User("bob", 1001)

NSSWITCH: Final = """\
passwd: files
group: files
shadow: files
hosts: files dns
services: files
protocols: files
networks: files
"""
BASHRC: Final = "case $- in *i*) PS1='\\u@\\h:\\w\\$ ' ;; esac\n"
# Only while coverage is measured: sudo would else hide what the privileged half runs.
KEEP_COVERAGE: Final = 'Defaults env_keep += "COVERAGE_FILE COVERAGE_PROCESS_CONFIG"\n'
PROFILE: Final = 'if [ -n "$BASH" ]; then . ~/.bashrc; fi\n'
FILES: Final[Mapping[str, tuple[str, int]]] = {
    "/etc/nsswitch.conf": (NSSWITCH, 0o644),
    # Nobody listens there: a name that /etc/hosts does not have fails at once.
    "/etc/resolv.conf": ("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0o644),
    "/etc/sudoers.d/alice": ("alice ALL=(ALL) ALL\n", 0o440),
    "/root/.bashrc": (BASHRC, 0o644),
}
