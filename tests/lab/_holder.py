"""Holds one machine of the laboratory: makes its namespaces and its file system, then waits.

Run by `machine.py` as `python -I -S _holder.py NAME`, with a description in JSON as the first
line of its standard input. The outer process makes the namespaces; its child is PID 1 of the
machine. Both end when their standard input ends, that is, when the test runner is gone, however
it went. With PID 1 the kernel kills every process of the machine, and with the last of them go
its mounts and its network.

It must not touch anything outside the namespaces it made, and uses the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "armv7l": 218, "riscv64": 41, "ppc64le": 203}

# Where the new root is put together: a directory that every Linux has and that nothing else of
# this process needs. It is covered in this mount namespace only.
STAGE = pathlib.Path("/sys")

# What a machine has for itself, empty at the start. The rest of the root is copy-on-write.
EMPTY = {
    "root": 0o700,
    "home": 0o755,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "run": 0o755,
    "mnt": 0o755,
}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: object, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount SOURCE on TARGET; raises OSError that names the target."""
    _checked(
        _libc.mount(
            source.encode(), os.fsencode(str(target)), kind.encode(), flags, data.encode() or None
        ),
        f"mount {target}",
    )


def _make_directories(path: pathlib.Path) -> None:
    """Make PATH and open its parents, up to the new root, to every user."""
    path.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        if parent == STAGE / "root":
            break
        mode = parent.stat().st_mode & 0o7777
        if mode & 0o055 != 0o055:
            parent.chmod(mode | 0o055)


def _bind(path: str, root: pathlib.Path, scratch: pathlib.Path) -> None:
    """Show PATH of the host at the same place in the machine, to every user, read-only.

    A directory that is closed to others is shown through an overlay, whose top can be opened.
    """
    source = pathlib.Path(path)
    target = root / path.lstrip("/")
    if not source.is_dir():
        _make_directories(target.parent)
        target.touch()
        mount(path, target, flags=MS_BIND)
        return
    _make_directories(target)
    if source.stat().st_mode & 0o055 == 0o055:
        mount(path, target, flags=MS_BIND | MS_REC)
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
        return
    layer = scratch / f"closed{len(list(scratch.iterdir()))}"
    (layer / "upper").mkdir(parents=True)
    (layer / "work").mkdir()
    mount(
        "overlay",
        target,
        "overlay",
        data=f"lowerdir={path},upperdir={layer}/upper,workdir={layer}/work",
    )
    target.chmod(0o755)


def _make_devices(dev: pathlib.Path) -> None:
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        _make_device(dev / name, f"/dev/{name}")
    (dev / "net").mkdir()
    if pathlib.Path("/dev/net/tun").exists():
        # 0666 is what udev gives it: to open it needs no right, to make a device does.
        _make_device(dev / "net/tun", "/dev/net/tun")
    (dev / "pts").mkdir()
    mount(
        "devpts",
        dev / "pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    (dev / "shm").mkdir()
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for link, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        (dev / link).symlink_to(target)


def _make_device(path: pathlib.Path, like: str) -> None:
    status = pathlib.Path(like).stat()
    try:
        os.mknod(path, status.st_mode, status.st_rdev)
    except PermissionError:  # a container that forbids mknod still lets us show its own
        path.touch()
        mount(like, path, flags=MS_BIND)
    else:
        path.chmod(0o666)


def _write(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    # Unlinked first: on some hosts these are symbolic links into /run.
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _add_users(root: pathlib.Path, users: list[dict[str, Any]]) -> None:
    """Add USERS to the machine's own copy of the account files, and make their homes."""
    kept = {user["name"] for user in users}
    for name, field in (("passwd", "passwd"), ("shadow", "shadow"), ("group", "group")):
        path = root / "etc" / name
        lines = [
            line
            for line in path.read_text().splitlines()
            # People of the host do not exist here: their numbers may be ours.
            if line.split(":")[0] not in kept and not (name != "shadow" and _is_person(line))
        ]
        lines += [user[field] for user in users if user.get(field)]
        mode = path.stat().st_mode & 0o7777
        _write(path, "\n".join(lines) + "\n", mode)
    for user in users:
        home = root / user["home"].lstrip("/")
        home.mkdir(parents=True, exist_ok=True)
        runtime = root / f"run/user/{user['uid']}"
        runtime.mkdir(parents=True)
        for path, text in user["files"].items():
            _write(home / path, text)
        for path, mode in ((home, 0o755), (runtime, 0o700)):
            path.chmod(mode)
            for owned in (path, *path.rglob("*")):
                os.chown(owned, user["uid"], user["gid"])


def _is_person(line: str) -> bool:
    number = int(line.split(":")[2])
    return 1000 <= number < 60000  # UID_MIN and UID_MAX of login.defs


def build_root(description: dict[str, Any]) -> None:
    """Put the machine's file system together and make it the root of this process."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", STAGE, "tmpfs", data="mode=755")
    root, scratch = STAGE / "root", STAGE / "scratch"
    for name in ("root", "upper", "work", "scratch"):
        (STAGE / name).mkdir()
    mount(
        "overlay",
        root,
        "overlay",
        data=f"lowerdir=/,upperdir={STAGE}/upper,workdir={STAGE}/work",
    )
    for name, mode in EMPTY.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        mount("tmpfs", root / name, "tmpfs", MS_NODEV | MS_NOSUID, f"mode={mode:o}")
    for path in description["show"]:
        _bind(path, root, scratch)
    for path in description["share"]:
        _make_directories(root / path.lstrip("/"))
        mount(path, root / path.lstrip("/"), flags=MS_BIND)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _make_devices(root / "dev")
    for name in ("lock", "sshd", "user"):
        (root / "run" / name).mkdir(mode=0o755)
    _add_users(root, description["users"])
    shutil.rmtree(root / "etc/sudoers.d", ignore_errors=True)
    (root / "etc/sudoers.d").mkdir(mode=0o750)
    for path, (text, mode) in description["files"].items():
        _write(root / path.lstrip("/"), text, mode)

    os.chdir(root)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    _checked(_libc.syscall(number, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def main() -> None:
    """Become the machine that the first line describes; print its process number, hold it."""
    description: dict[str, Any] = json.loads(sys.stdin.readline())
    _checked(
        _libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID),
        "unshare",
    )
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        print(child, flush=True)  # noqa: T201 -- how the runner learns it
        os.close(writer)  # the child says "ready" after that only
        os.waitpid(child, 0)
        return
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Nobody here waits for children: the kernel then reaps the orphans that come to PID 1.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    os.setsid()
    os.umask(0o022)
    socket.sethostname(description["name"])
    build_root(description)
    for name, value in description["sysctls"].items():
        path = pathlib.Path("/proc/sys", name.replace(".", "/"))
        # Refused is the congestion control alone, where the host allows its own choice only.
        with contextlib.suppress(PermissionError):
            path.write_text(value)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
