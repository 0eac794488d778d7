"""The packets' MAC by the library that encrypts them.

paramiko takes Python's hmac, which is quick with OpenSSL and slow without; see
sshvpn.privileged.imports. An AEAD cipher needs none.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import Any

import paramiko.packet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


@functools.cache
def _algorithm(digest: Callable[[], Any]) -> hashes.HashAlgorithm:
    return _HASHES[digest().name]()


def mac(key: bytes, message: bytes, digest: Callable[[], Any]) -> bytes:
    """Return the HMAC (RFC 2104) of ``message``; ``digest`` is one of hashlib."""
    made = HMAC(key, _algorithm(digest))
    made.update(message)
    return made.finalize()


def use() -> None:
    """Let paramiko take it, where Python's own has no OpenSSL. Twice is fine."""
    if getattr(hmac, "_hashopenssl", None) is None and hasattr(paramiko.packet, "compute_hmac"):
        paramiko.packet.compute_hmac = mac
