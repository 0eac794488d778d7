"""What is left out when paramiko is loaded."""

import hashlib
import hmac
import subprocess
import sys
from importlib.metadata import version

import pytest


def loaded(program: str) -> set[str]:
    program += "\nimport sys; print(*(name for name, it in sys.modules.items() if it))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_paramiko_does_without_what_is_left_out() -> None:
    program = "from sshvpn.system.imports import leave_out_unused as l; l(); l(); import paramiko"
    assert {"paramiko.transport"} <= loaded(program)
    assert not {"invoke", "unittest", "email.parser"} & loaded(program)


def test_what_was_loaded_before_stays() -> None:
    program = "import sys; sys.modules['invoke'] = sys\n"
    program += "from sshvpn.system.imports import leave_out_unused; leave_out_unused()"
    assert "invoke" in loaded(program)


TLS = """
import sys
from sshvpn.system.imports import leave_out_unused
leave_out_unused()
leave_out_unused()
import asyncio
print("ssl" in sys.modules)
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    print(await reader.read())
    server.close()
asyncio.run(main())
import ssl
print(ssl.create_default_context().check_hostname)
"""


def test_asyncio_does_without_tls_and_who_wants_it_has_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TLS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "b''", "True"]


HASHES = """
import sys
from sshvpn.system.imports import leave_out_unused
leave_out_unused()
leave_out_unused()
import hashlib, hmac
print("_hashlib" in sys.modules)
print(hashlib.sha256(b"abc").hexdigest())
print(hmac.new(b"key", b"abc", hashlib.sha1).hexdigest())
import _hashlib
print(_hashlib.openssl_sha256(b"abc").hexdigest())
"""


def test_hashlib_does_without_openssl_and_who_wants_it_has_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HASHES], capture_output=True, text=True, check=True
    )
    sha256 = hashlib.sha256(b"abc").hexdigest()
    sha1 = hmac.new(b"key", b"abc", hashlib.sha1).hexdigest()
    assert done.stdout.split() == ["False", sha256, sha1, sha256]


@pytest.mark.parametrize("missing", ["_md5", "_sha3", "_blake2"])
def test_hashlib_keeps_openssl_where_python_lacks_a_hash_of_its_own(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None\n"
    program += "from sshvpn.system.imports import leave_out_unused; leave_out_unused()"
    assert "_hashlib" in loaded(program + "; import hashlib")


def test_hashlib_keeps_openssl_on_a_machine_that_is_held_to_it() -> None:
    program = "from sshvpn.privileged import imports; imports._is_fips = lambda: True\n"
    program += "imports.leave_out_unused(); import hashlib"
    assert "_hashlib" in loaded(program)


METADATA = """
import sys
from sshvpn.system.imports import leave_out_unused
leave_out_unused()
leave_out_unused()
from importlib import metadata
print(metadata.version("paramiko"))
import importlib.metadata
print(importlib.metadata.version("pytest"))
print("email.message" in sys.modules)
try:
    importlib.metadata.version("no-such-package")
except importlib.metadata.PackageNotFoundError:
    print("not found")
from importlib.metadata import metadata
print(metadata("pytest")["Name"])
"""


def test_the_version_of_a_package_needs_no_parser_and_all_else_has_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", METADATA], capture_output=True, text=True, check=True
    )
    versions = [version("paramiko"), version("pytest")]
    assert done.stdout.splitlines() == [*versions, "False", "not found", "pytest"]
