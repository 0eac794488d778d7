"""The packets' MAC, beside Python's own."""

import hashlib
import hmac
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import paramiko
import pytest

from sshvpn.system.sshtunnel.mac import mac

DIGESTS: set[Callable[[], Any]] = {info["class"] for info in paramiko.Transport._mac_info.values()}


@pytest.mark.parametrize("digest", [hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512])
@pytest.mark.parametrize("size", [0, 1, 64, 129, 40_000])
def test_it_is_the_hmac_of_the_rfc(digest: Callable[[], Any], size: int) -> None:
    key, message = bytes(range(size % 200)), b"m" * size
    assert mac(key, message, digest) == hmac.digest(key, message, digest)


IN_USE = """
import sys
if sys.argv[1:]:
    from sshvpn.system.imports import leave_out_unused
    leave_out_unused()
import paramiko.packet
from sshvpn.system.sshtunnel import mac
before = paramiko.packet.compute_hmac
mac.use()
mac.use()
print(paramiko.packet.compute_hmac is (mac.mac if sys.argv[1:] else before))
"""


@pytest.mark.parametrize("words", [[], ["ours"]])
def test_a_program_that_has_openssl_for_hmac_keeps_it(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_USE, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_the_digests_are_those_of_hashlib() -> None:
    assert {one().name for one in DIGESTS} == {"md5", "sha1", "sha256", "sha512"}
