"""What the kernel says of a tun that cannot be opened, in a word for the program."""

from __future__ import annotations

import errno
import os

import pytest

from sshvpn.stream import device
from sshvpn.stream.device import PumpError


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (errno.EBUSY, "busy", "tun8: Device or resource busy"),
        (errno.EPERM, "no_device", "tun8: Operation not permitted"),
        (errno.EINVAL, "no_device", "tun8: made for several queues"),
    ],
)
def test_a_device_that_is_taken_is_told_from_one_that_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, number: int, code: str, text: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    null = os.open("/dev/null", os.O_RDWR)
    monkeypatch.setattr("sshvpn.stream.device.os.open", lambda *_: null)
    monkeypatch.setattr("sshvpn.stream.device.socket.if_nametoindex", lambda _: 8)
    monkeypatch.setattr("sshvpn.stream.device.fcntl.ioctl", refuse)
    with pytest.raises(PumpError) as caught:
        device.open_tun("tun8")
    assert (caught.value.code, str(caught.value)) == (code, text)
