"""What all tests have in common: how a missing privilege is treated."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import signal

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the tests in a shell's background hands it on ignored (POSIX, "Asynchronous
    # Lists"), through every exec: Ctrl-C would reach nothing that is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROGRAMS = ("ip", "nft", "sysctl", "nsenter", "ssh", "ssh-keygen", "sshd", "sudo", "curl", "ping")


@functools.cache
def missing_for_lab() -> str:
    """Return what the laboratory lacks on this machine, "" if it can be built."""
    if os.geteuid() != 0:
        return "the laboratory needs root (make test uses sudo)"
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (make test installs them)"
    if not pathlib.Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the laboratory where it cannot be built; with CI set they fail."""
    if item.get_closest_marker("lab") is None or not (reason := missing_for_lab()):
        return
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must run these", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the laboratory."""
    for item in items:
        if {"lab", "make_lab", "wan_lab", "office"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("lab")
