"""A profile as the configuration of its own that a service reads: one entry, and its default. Pure.

So what runs for ever is what was enabled, whatever is edited, or deleted, in the user's file.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from sshvpn.config.entries import Config, ForwardEntry, NotebookEntry, TunnelEntry
from sshvpn.errors import UsageError
from sshvpn.model import Destination, ForwardProfile, SshOptions, TunnelProfile

E = TypeVar("E", ForwardEntry, NotebookEntry, TunnelEntry)


def of_profile(profile: ForwardProfile | TunnelProfile) -> Config:
    """Return a Config with ``profile`` as its only entry, and as its default host.

    The entry's name is the profile's, as far as an entry may be called so. Raises UsageError
    for what a configuration cannot say.
    """
    ssh = _ssh(profile.ssh)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", profile.name)
    name = f"n{name}" if name.isdigit() or name.startswith((".", "-")) else name
    if isinstance(profile, TunnelProfile):
        tunnel = _entry(TunnelEntry, profile, name, ssh)
        return Config(default_host=name, tunnels=MappingProxyType({name: tunnel}))
    if profile.notebook is not None:
        notebook = replace(
            _entry(NotebookEntry, profile, name, ssh),
            wish=profile.notebook,
            port=_port(profile) if profile.notebook.has_port else None,
        )
        return Config(default_host=name, notebooks=MappingProxyType({name: notebook}))
    forward = _entry(ForwardEntry, profile, name, ssh)
    return Config(default_host=name, forwards=MappingProxyType({name: forward}))


def _entry(kind: type[E], profile: ForwardProfile | TunnelProfile, name: str, ssh: SshOptions) -> E:
    names = {field.name for field in dataclasses.fields(kind)}
    same = {key: getattr(profile, key) for key in names if hasattr(profile, key)}
    # A service has all the time that there is.
    own = {"name": name, "host": _host(profile.destination), "ssh": ssh, "timeout_s": None}
    return kind(**{**same, **own})


def _port(profile: ForwardProfile) -> int | None:
    listen = profile.specs[0].listen
    return listen if isinstance(listen, int) else None


def _host(destination: Destination) -> str:
    """Return HOST as one word; the profile's own may be the name of an entry."""
    user = "" if destination.user is None else f"{destination.user}@"
    if destination.port is None:
        return f"{user}{destination.host}"
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    return f"ssh://{user}{host}:{destination.port}"


def _ssh(ssh: SshOptions) -> SshOptions:
    if ssh.config_file is not None:
        raise UsageError(
            "-F is not kept: a service reads the ssh_config that ssh reads by itself",
            "move what the file says to ~/.ssh/config",
        )
    options = [
        *ssh.options,
        *(("IdentityFile", file) for file in ssh.identity_files),
        *([("ProxyJump", ssh.jump)] if ssh.jump is not None else []),
    ]
    keys = [key.lower() for key, _ in options]
    twice = next((key for key, _ in options if keys.count(key.lower()) > 1), None)
    if twice is not None:
        raise UsageError(
            f"{twice} is said twice, which a profile cannot",
            "move both to the host's lines in ~/.ssh/config",
        )
    return SshOptions(options=tuple(options))
