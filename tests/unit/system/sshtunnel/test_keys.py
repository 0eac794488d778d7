"""Keys are found in ssh's order, and read in every format that ssh-keygen writes."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from sshvpn.system.sshtunnel.keys import (
    Keyring,
    UnusableKeyError,
    WrongPassphraseError,
    candidates,
    certifies,
    load_private_key,
    public_blob,
)
from sshvpn.system.sshtunnel.settings import Settings, settings_of

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")


def keygen(path: Path, *words: str, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-a", "1", "-N", passphrase, "-f", str(path), *words]
    subprocess.run(command, check=True)
    return path


def blob_of(path: Path) -> bytes:
    return base64.b64decode(path.with_name(path.name + ".pub").read_text().split()[1])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = {
        "host": ("box",),
        "hostname": ("box",),
        "user": ("alice",),
        "identityagent": ("none",),
    }
    return settings_of(config, {}, tmp_path)


def offered(settings: Settings, *files: Path, keyring: Keyring | None = None) -> list[bytes | None]:
    with_files = dataclasses.replace(settings, identity_files=tuple(map(str, files)))
    found = candidates(with_files, None, keyring or Keyring(), lambda _: None)
    return [one.blob for one in found]


@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_every_format_is_read(tmp_path: Path, kind: str, form: str, passphrase: str) -> None:
    size = ["-b", "2048"] if kind == "rsa" else []
    key = keygen(tmp_path / "k", "-t", kind, "-m", form, *size, passphrase=passphrase)
    loaded = load_private_key(key.read_bytes(), passphrase or None)
    assert loaded.asbytes() == blob_of(key)
    assert loaded.can_sign()


@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
@pytest.mark.parametrize("said", [None, "", "close sesame"])
def test_a_wrong_passphrase_is_told_apart(tmp_path: Path, form: str, said: str | None) -> None:
    key = keygen(tmp_path / "k", "-t", "ecdsa", "-m", form, passphrase="open sesame")
    with pytest.raises(WrongPassphraseError):
        load_private_key(key.read_bytes(), said)


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END"])
def test_what_is_no_key_is_told(text: bytes) -> None:
    with pytest.raises(UnusableKeyError):
        load_private_key(text, None)


def test_a_locked_key_shows_its_public_half(tmp_path: Path) -> None:
    key = keygen(tmp_path / "k", "-t", "ed25519", passphrase="open sesame")
    blob = blob_of(key)
    assert public_blob(key.read_bytes()) == blob
    key.with_suffix(".pub").unlink()
    assert public_blob(b"-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END") is None


def test_a_key_that_was_unlocked_is_not_locked_again(tmp_path: Path, settings: Settings) -> None:
    key = keygen(tmp_path / "k", "-t", "ed25519", passphrase="open sesame")
    keyring = Keyring()
    with_key = dataclasses.replace(settings, identity_files=(str(key),))
    (locked,) = candidates(with_key, None, keyring, lambda _: None)
    assert locked.key is None
    keyring.unlock(locked, "open sesame")
    key.unlink()
    (unlocked,) = candidates(with_key, None, keyring, lambda _: None)
    assert unlocked.key is not None
    assert unlocked.blob == locked.blob


def test_files_keep_their_order_and_those_that_are_not_there_are_left_out(
    tmp_path: Path, settings: Settings
) -> None:
    one, two = keygen(tmp_path / "one", "-t", "ecdsa"), keygen(tmp_path / "two", "-t", "ed25519")
    assert offered(settings, two, tmp_path / "none", one) == [blob_of(two), blob_of(one)]


def test_a_certificate_goes_before_its_plain_key_and_to_no_other(
    tmp_path: Path, settings: Settings
) -> None:
    authority, user = (
        keygen(tmp_path / "ca", "-t", "ed25519"),
        keygen(tmp_path / "u", "-t", "ecdsa"),
    )
    other = keygen(tmp_path / "o", "-t", "ecdsa")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "x", f"{user}.pub"], check=True)
    certificate = base64.b64decode((tmp_path / "u-cert.pub").read_text().split()[1])
    assert certifies(certificate, blob_of(user))
    assert not certifies(certificate, blob_of(other))
    assert offered(settings, other, user) == [blob_of(other), certificate, blob_of(user)]


def test_keys_that_others_can_read_are_complained_of(tmp_path: Path, settings: Settings) -> None:
    key = keygen(tmp_path / "k", "-t", "ed25519")
    key.chmod(0o640)
    heard: list[str] = []
    with_key = dataclasses.replace(settings, identity_files=(str(key),))
    assert candidates(with_key, None, Keyring(), heard.append) == []
    assert "chmod 600" in heard[0]
