"""The keys that a login may offer: those of the agent, of key files, and their certificates.

A key's public half is known before anybody is asked for the passphrase of the private one, so
that only keys which the server takes are unlocked. What was unlocked stays in memory.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from paramiko.agent import AgentSSH

from sshvpn.system.sshtunnel.settings import Settings

log = logging.getLogger("sshvpn.sshtunnel")

_AGENT_TIMEOUT_S = 60.0
"""How long an agent may take; a person may have to confirm or touch something."""
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_CERTIFICATE = "-cert-v01@openssh.com"
_CLASSES = (
    (RSAPrivateKey, paramiko.RSAKey),
    (EllipticCurvePrivateKey, paramiko.ECDSAKey),
    (Ed25519PrivateKey, paramiko.Ed25519Key),
)


class WrongPassphraseError(Exception):
    """The passphrase is wrong, or none was given."""


class UnusableKeyError(Exception):
    """The file holds no private key that this engine can use; the words say why."""


@dataclass(frozen=True)
class Candidate:
    """A key that may be offered: ``label`` for a person, ``blob`` for the server if known.

    ``key`` is there when the private half can be used now; else it is in ``file``, locked.
    """

    label: str
    blob: bytes | None
    key: Any = None
    file: str | None = None
    certificate: bytes | None = None


@dataclass
class Keyring:
    """What outlives a connection: unlocked keys, by file."""

    unlocked: dict[str, Any] = field(default_factory=dict)

    def unlock(self, candidate: Candidate, passphrase: str) -> Any:
        """Return the private key of a locked ``candidate``, and remember it.

        Raises WrongPassphraseError, UnusableKeyError.
        """
        assert candidate.file is not None  # noqa: S101 (a locked key is in a file)
        key = load_private_key(Path(candidate.file).read_bytes(), passphrase)
        self.unlocked[candidate.file] = key
        return with_certificate(key, candidate.certificate)


class Agent(AgentSSH):  # type: ignore[misc]
    """The ssh agent at ``path``. Close it when the login is done."""

    def __init__(self, path: str) -> None:
        """Connect. Raises OSError, or paramiko.SSHException for what is no agent."""
        super().__init__()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_AGENT_TIMEOUT_S)
            sock.connect(path)
            self._connect(sock)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Let go of the agent."""
        self._close()


def open_agent(settings: Settings) -> Agent | None:
    """Return the agent that ssh would use, or None where none answers."""
    if settings.agent is None:
        return None
    try:
        return Agent(settings.agent)
    except (OSError, paramiko.SSHException) as error:
        log.info("the agent at %s does not answer: %s", settings.agent, error)
        return None


def candidates(
    settings: Settings, agent: Agent | None, keyring: Keyring, complain: Callable[[str], None]
) -> list[Candidate]:
    """Return the keys to offer, in ssh's order (ssh_config(5), IdentitiesOnly).

    First those of the agent that key files name, then its others, then the files' own.
    ``complain`` is told of files that cannot be used.
    """
    files = [found for file in settings.identity_files if (found := _file(file, keyring, complain))]
    held = {key.asbytes(): key for key in (agent.get_keys() if agent else ())}
    certificates = _certificates(settings)
    ordered: list[Candidate] = []
    named = [one.blob for one in files if one.blob in held]
    others = [] if settings.identities_only else [blob for blob in held if blob not in named]
    for blob in [*dict.fromkeys(named), *others]:
        label = held[blob].comment or "a key of the agent"
        ordered += _with_certificates(Candidate(label, blob, held[blob]), certificates)
    for one in files:
        if one.blob not in held:
            ordered += _with_certificates(one, certificates)
    return ordered


def load_private_key(text: bytes, passphrase: str | None) -> Any:
    """Return paramiko's key for a private key file of any format that OpenSSH writes.

    Raises WrongPassphraseError, UnusableKeyError.
    """
    load: Any = load_ssh_private_key if b"BEGIN OPENSSH" in text else load_pem_private_key
    try:
        private = load(text, None if passphrase is None else passphrase.encode())
    except TypeError as error:  # encrypted and no passphrase, or the other way round
        if passphrase is not None:
            return load_private_key(text, None)
        raise WrongPassphraseError from error
    except ValueError as error:
        if passphrase is not None:
            raise WrongPassphraseError from error
        raise UnusableKeyError("it is not a private key") from error
    except UnsupportedAlgorithm as error:
        raise UnusableKeyError(str(error)) from error
    for kind, paramiko_class in _CLASSES:
        if isinstance(private, kind):
            plain = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            return paramiko_class.from_private_key(io.StringIO(plain.decode()))
    raise UnusableKeyError(f"its kind is not supported: {type(private).__name__}")


def public_blob(text: bytes) -> bytes | None:
    """Return the public half that stands unencrypted in OpenSSH's format, or None.

    PROTOCOL.key: magic, cipher, kdf, kdf options, the number of keys, the public key.
    """
    match = _PEM.search(text)
    if match is None or b"BEGIN OPENSSH" not in text:
        return None
    try:
        raw = base64.b64decode(match[1])
    except (binascii.Error, ValueError):
        return None
    if not raw.startswith(_OPENSSH_MAGIC):
        return None
    message = paramiko.Message(raw[len(_OPENSSH_MAGIC) :])
    for _ in range(3):
        message.get_binary()
    message.get_int()
    blob: bytes = message.get_binary()
    return blob or None


def with_certificate(key: Any, certificate: bytes | None) -> Any:
    """Return ``key`` as it signs under ``certificate`` (a wire-format blob), if there is one."""
    if certificate is None:
        return key
    kind = paramiko.Message(certificate).get_text()
    key.load_certificate(f"{kind} {base64.b64encode(certificate).decode()}")
    return key


def certifies(certificate: bytes, blob: bytes) -> bool:
    """Whether ``certificate`` is for the public key ``blob`` (PROTOCOL.certkeys).

    A certificate has its type, a nonce, and then the fields of the plain key.
    """
    message, plain = paramiko.Message(certificate), paramiko.Message(blob)
    kind = message.get_text()
    message.get_binary()
    fields = plain.get_remainder() if plain.get_text() + _CERTIFICATE == kind else None
    return fields is not None and message.get_remainder().startswith(fields)


def _with_certificates(plain: Candidate, certificates: list[bytes]) -> Iterator[Candidate]:
    """Yield ``plain`` under each of its certificates, and then as it is."""
    for certificate in certificates:
        if plain.blob is not None and certifies(certificate, plain.blob):
            yield Candidate(
                f"{plain.label} (certificate)", certificate, plain.key, plain.file, certificate
            )
    yield plain


def _certificates(settings: Settings) -> list[bytes]:
    files = [*settings.certificate_files, *(f"{file}-cert.pub" for file in settings.identity_files)]
    found = (_public_file(file) for file in dict.fromkeys(files))
    return [
        blob
        for blob in found
        if blob is not None and paramiko.Message(blob).get_text().endswith(_CERTIFICATE)
    ]


def _public_file(file: str) -> bytes | None:
    """Return the key in a ``.pub`` file, or None where there is none."""
    try:
        return base64.b64decode(Path(file).read_text(encoding="utf-8").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _file(file: str, keyring: Keyring, complain: Callable[[str], None]) -> Candidate | None:
    """Return the key of one IdentityFile, or None where there is none that can be used."""
    if file in keyring.unlocked:
        key = keyring.unlocked[file]
        return Candidate(file, key.asbytes(), key, file)
    try:
        text = Path(file).read_bytes()
        is_open = _is_open_to_others(file)
    except OSError:
        # A public key alone names one of the agent's.
        blob = _public_file(f"{file}.pub") or _public_file(file)
        return None if blob is None else Candidate(file, blob)
    if b"PRIVATE KEY-----" not in text:
        blob = _public_file(file)
        return None if blob is None else Candidate(file, blob)
    if is_open:
        complain(f"{file} was ignored, since others can read it: chmod 600 {file}")
        return None
    return _private_file(file, text, complain)


def _private_file(file: str, text: bytes, complain: Callable[[str], None]) -> Candidate | None:
    try:
        key = load_private_key(text, None)
    except WrongPassphraseError:
        return Candidate(file, public_blob(text) or _public_file(f"{file}.pub"), None, file)
    except UnusableKeyError as error:
        complain(f"{file} cannot be used here: {error}")
        return None
    return Candidate(file, key.asbytes(), key, file)


def _is_open_to_others(file: str) -> bool:
    found = Path(file).stat()
    return found.st_uid == os.getuid() and bool(stat.S_IMODE(found.st_mode) & 0o077)
