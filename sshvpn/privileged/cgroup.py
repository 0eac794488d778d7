"""A control group of the tunnel's own: what runs in it goes around its default route.

The firewall marks what the group's processes send (nftables, ``socket cgroupv2``), so that ssh,
and whatever proxy or jump host it starts, never looks for its way inside the tunnel that it
carries. See cgroups(7), version 2.

The group is made below the one where the process is. Who may do that depends on whose that is:
the helper has no capability for it, so below a group of root's it is the helper, as the owner of
its files, and in what systemd has delegated to a user it is that user.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from sshvpn.errors import PrivilegeError
from sshvpn.plan import marks

FILESYSTEM = Path("/sys/fs/cgroup")
"""nft looks for groups below this, wherever the hierarchy is mounted."""
_ROOTS = (FILESYSTEM, FILESYSTEM / marks.HYBRID)
"""Where systemd mounts version 2: alone, or beside version 1."""
_PROCESSES = "cgroup.procs"
_EMPTY_WITHIN_S = 1.0
_POLL_S = 0.01


def of_service(pid: int | str = "self") -> str | None:
    """Return the path, below :data:`FILESYSTEM`, of the group of the service that ``pid`` is.

    None for a process that is no service of ours. A service needs no group of its own making:
    in systemd's there is nothing but its supervisor, its helper and its ssh.
    """
    root = next((root for root in _ROOTS if (root / "cgroup.controllers").exists()), None)
    try:
        group = None if root is None else root / _place_of(pid).strip("/")
    except OSError:
        return None
    if group is None or not marks.is_service_group(group.name) or not group.is_dir():
        return None
    return str(group.relative_to(FILESYSTEM))


def enclose(label: str, pid: int, owner: int) -> str:
    """Put process ``pid`` of the user ``owner`` into the group; what it starts is born there.

    Returns the group's path below :data:`FILESYSTEM`. Twice is fine. Raises PrivilegeError
    where there is no version 2, or the group that it is in is not ours to change.
    """
    root = _hierarchy()
    try:
        if os.stat(f"/proc/{pid}").st_uid != owner:  # noqa: PTH116 (/proc is no file)
            raise PrivilegeError(f"process {pid} is not of the user {owner}")
        group = root / _place_of(pid).strip("/")
        name = marks.cgroup_name(label)
        if group.name != name:
            group /= name
            group.mkdir(mode=0o755, exist_ok=True)
            group.chmod(0o755)  # whatever the umask: its owner alone may change it
            (group / _PROCESSES).write_text(f"{pid}\n", "ascii")
    except OSError as error:
        raise PrivilegeError(f"no cgroup for the tunnel: {error}") from error
    return str(group.relative_to(FILESYSTEM))


def place_for(label: str) -> str:
    """Return the path that :func:`enclose` would give to this process. Raises PrivilegeError."""
    group = _hierarchy() / _place_of("self").strip("/") / marks.cgroup_name(label)
    return str(group.relative_to(FILESYSTEM))


def _hierarchy() -> Path:
    root = next((root for root in _ROOTS if (root / "cgroup.controllers").exists()), None)
    if root is None:
        raise PrivilegeError("there is no cgroup hierarchy of version 2", "mount one: cgroups(7)")
    return root


def remove(path: str) -> list[str]:
    """Remove the group ``path``, as :func:`enclose` gave it, and return what failed.

    Its processes go to the group above. Not there: nothing happens.
    """
    group = FILESYSTEM / path
    deadline = time.monotonic() + _EMPTY_WITHIN_S
    while group.is_dir():
        try:
            for pid in (group / _PROCESSES).read_text("ascii").split():
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    (group.parent / _PROCESSES).write_text(f"{pid}\n", "ascii")
            group.rmdir()
        except OSError as error:  # noqa: PERF203 (it is tried again)
            if time.monotonic() > deadline:
                return [f"cgroup {group}: {error.strerror}"]
            time.sleep(_POLL_S)
    return []


def remove_empty() -> None:
    """Remove all groups of ours in which nobody is, as far as this process may."""
    for path in left(set()):
        with contextlib.suppress(OSError):
            (FILESYSTEM / path).rmdir()


def left(labels: set[str]) -> dict[str, str]:
    """Return the paths of all groups of ours but those of ``labels``, with their labels."""
    return {
        str(Path(directory, name).relative_to(FILESYSTEM)): label
        for directory, names, _ in os.walk(FILESYSTEM)
        for name in names
        if (label := marks.cgroup_label(name)) is not None and label not in labels
    }


def _place_of(pid: int | str) -> str:
    """Return the path of the group that ``pid`` is in, below the root of version 2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text("ascii").splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"
