"""The pump as it is delivered to a server: one text, and the command that takes it.

Nothing is installed there: the text comes over the connection itself, by length, and runs on
the server's own Python, 3.6 or newer.
"""

from __future__ import annotations

import functools
import re
import zlib
from pathlib import Path

_PARTS = ("frames", "queues", "device", "pump", "process")
_OURS = re.compile(r"^from sshvpn\.stream\.\w+ import (\([^)]*\)|.*)\n", re.MULTILINE)
_NONCE = re.compile(r"[0-9a-f]{16,64}")
_DEVICE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}")
_MARK = re.compile(r"[A-Za-z0-9_:-]{1,80}")

OLDEST_PYTHON = (3, 6)

ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
"""Of a pump. Else glibc gives the memory of each segment of 64 KiB back to the kernel, which has to
find sixteen pages for the next one: that takes 10 µs, as long as all else that Python does."""

# In single quotes on the login shell's command line: no quote, backslash or exclamation mark,
# which fish and csh would take for theirs. One byte a read: what follows is for the program. What
# an old Python says is a line of its own (chr(10)), as its opening would be.
_BOOT = (
    "import sys,os,zlib;"
    "old=sys.version_info<(3,6);"
    'old and sys.exit(print(chr(10)+sys.argv[2],"error","python",sys.version.split()[0]));'
    "exec(zlib.decompress(bytes().join([os.read(0,1) for i in range(int(sys.argv[1]))])));"
    "sys.exit(serve(*sys.argv[2:4]))"
)


@functools.cache
def delivery() -> bytes:
    """Return what goes first to the command's standard input; ``device_line()`` follows."""
    texts = []
    for part in _PARTS:
        text = (Path(__file__).parent / f"{part}.py").read_text("utf-8")
        texts.append(_OURS.sub("", text))
    return zlib.compress("\n".join(texts).encode(), 9)


def command(nonce: str, *, is_many: bool, mark: str) -> str:
    """Return the command that ssh is given; ``delivery()`` follows on its standard input.

    It means the same to sh, bash, zsh, fish and csh. ``mark`` is in the process's command line,
    by which a later login knows it. Raises ValueError for values that would need quoting.
    """
    if not (_NONCE.fullmatch(nonce) and _MARK.fullmatch(mark)):
        raise ValueError(f"not a nonce and a mark: {nonce!r}, {mark!r}")
    words = [str(len(delivery())), nonce, "many" if is_many else "one", mark]
    variables = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    return f"exec env {variables} python3 -ISc '{_BOOT}' {' '.join(words)}"


def device_line(device: str) -> bytes:
    """Return the line that tells the server's pump its device. Raises ValueError."""
    if not _DEVICE.fullmatch(device):
        raise ValueError(f"not a device: {device!r}")
    return device.encode() + b"\n"
