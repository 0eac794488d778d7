"""Every change that a tunnel makes, told in the log as the command that could be typed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sshvpn.ends import Site
from sshvpn.plan.render import render
from sshvpn.plan.steps import Step
from sshvpn.remote import protocol, render as remote_render

log = logging.getLogger("sshvpn.tunnel")

CHANGE = 15
"""The log level of a change that is made, as a command: above DEBUG, below INFO."""
logging.addLevelName(CHANGE, "CHANGE")


def tell_local(steps: Iterable[Step]) -> None:
    """Tell what was changed here."""
    for step in steps:
        for line in render(step).splitlines():
            log.log(CHANGE, "[local] %s", line)


def tell_remote(site: Site, end: protocol.RemoteEnd, label: str) -> None:
    """Tell what the agent was asked for at the server."""
    facts = site.remote
    if facts is None or facts.device is None or not log.isEnabledFor(CHANGE):
        return
    for command in remote_render.render(end, facts, label, facts.device.name, None):
        for line in command.splitlines():
            log.log(CHANGE, "[remote] %s", line)
