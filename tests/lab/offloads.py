"""What the kernel leaves to an adapter: checksums and segments."""

from __future__ import annotations

from tests.lab.labmachine import LabMachine

# ETHTOOL_GTXCSUM and ETHTOOL_GTSO, by SIOCETHTOOL (linux/ethtool.h, linux/sockios.h).
_ASK = """
import array, fcntl, socket, struct, sys
with socket.socket() as sock:
    for command in (0x16, 0x1E):
        value = array.array("I", [command, 0])
        request = struct.pack("16sP16x", sys.argv[1].encode(), value.buffer_info()[0])
        fcntl.ioctl(sock, 0x8946, request)
        print(value[1])
"""


def has_offloads(machine: LabMachine, adapter: str) -> bool:
    """Whether it has both of them. Raises ValueError where it has one: nothing here makes it so."""
    (told,) = set(machine.python(_ASK, adapter).split())
    return told == "1"
