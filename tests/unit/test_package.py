"""What ``import sshvpn`` gives, and costs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_forward_is_a_function_whatever_was_imported_before() -> None:
    code = """
import importlib, pkgutil, sshvpn
for module in pkgutil.walk_packages(sshvpn.__path__, "sshvpn."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(callable(sshvpn.forward), sshvpn.SshvpnError.__name__, sshvpn.Forward.__name__)
"""
    assert run(code) == "True SshvpnError Forward"


def test_the_import_alone_loads_nothing() -> None:
    # not even of Python's own: for as long as that takes, Ctrl-C ends in a traceback
    code = "import sys; before = set(sys.modules); import sshvpn, sshvpn.__main__;"
    code += "print(sorted(set(sys.modules) - before))"
    assert run(code) == "['sshvpn', 'sshvpn.__main__']"


def test_what_is_not_there_is_an_attribute_error() -> None:
    import sshvpn

    with pytest.raises(AttributeError, match="nothing_such"):
        getattr(sshvpn, "nothing_such")  # noqa: B009 (mypy knows that it is not there)
