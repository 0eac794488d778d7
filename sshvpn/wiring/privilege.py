"""Root's part of tunnels: the helpers, and what killed ones have left in the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sshvpn.control import snapshots
from sshvpn.wiring import terminal
from sshvpn.wiring.places import runtimes

if TYPE_CHECKING:
    from sshvpn.system.privilege.helper import Helper


_helpers: list[Helper] = []
"""Helpers that root started for the user it then became (:func:`leave_root`)."""


def is_for_caller() -> bool:
    """Whether this is root, and acts for the user who called sudo (:func:`leave_root`)."""
    from sshvpn.system.privilege.actor import caller

    return caller() is not None


def leave_root(tunnels: int) -> None:
    """Become the user who called sudo, if any, with helpers for as many tunnels; else nothing.

    To be called before anything of that user is read.
    """
    from sshvpn.system.privilege.actor import become_caller, caller

    uid = caller()
    if uid is None:
        return
    from sshvpn.system.privilege.helper import Helper

    _helpers.extend(Helper.start(at_terminal=False, uid=uid) for _ in range(tunnels))
    become_caller()


def start_helper() -> Helper:
    """Return a helper: one that root started before, else a new one; sudo may ask.

    Raises PrivilegeError.
    """
    from sshvpn.system.privilege.helper import Helper

    if _helpers:
        return _helpers.pop()
    return Helper.start(at_terminal=terminal.prompter() is not None)


def start_helper_again() -> Helper:
    """Start a helper in place of one that was killed, asking nobody. Raises an SshvpnError."""
    from sshvpn.errors import PrivilegeError, SshvpnError
    from sshvpn.system.privilege.actor import is_service
    from sshvpn.system.privilege.helper import Helper

    if is_service():  # what it was started with as root is given up for good
        raise SshvpnError("the privileged helper was killed", "the service is started again")
    try:
        return Helper.start(asks=False)
    except PrivilegeError as error:
        raise PrivilegeError(
            f"the privileged helper was killed, and no other can be started: {error}",
            "bring the tunnel up again: sshvpn up",
        ) from error


def left_units() -> set[int]:
    """Return the numbers of tunnels, of whomever, of which a killed helper has left something."""
    from sshvpn.privileged.units import left_units

    return left_units()


def sweep_kernel() -> list[str]:
    """Remove from this machine's kernel what killed helpers of this user left; root: of all.

    The helper is started for it as for a tunnel. A tunnel that is up is spared, though its helper
    was killed. Returns what could not be removed; raises PrivilegeError.
    """
    from sshvpn.plan import marks
    from sshvpn.privileged import cgroup

    helper = start_helper()
    names = [one["name"] for one in snapshots(runtimes()).values() if one["kind"] == "tunnel"]
    try:
        _, failed = helper.sweep(marks.label_of(os.getuid(), name) for name in names)
    finally:
        helper.close()
    # Where systemd has given the user a part of the tree, the helper may not change it.
    cgroup.remove_empty()
    return failed


def sweep_tunnel(name: str) -> list[str]:
    """Remove what a killed process has left of this user's tunnel NAME; return what failed."""
    from sshvpn.plan import marks

    helper = start_helper()
    try:
        helper.open(marks.label_of(os.getuid(), name))
    finally:
        failed = helper.close()
    return failed
