"""pyroute2 is loaded in part: what is used of it works, and what is not does not load."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from sshvpn.privileged import pyroute
pyroute.load_in_part()
pyroute.load_in_part()
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
with IPRoute(ext_ack=True) as ip:
    print([link.get_attr("IFLA_IFNAME") for link in ip.get_links()][0])
    try:
        ip.link("set", index=2**30, state="up")
    except NetlinkError as error:
        print(error.code in (1, 19))  # EPERM, ENODEV
print(*sorted(name for name in ("psutil", "pyroute2.ndb", "pyroute2.ipdb") if name in sys.modules))
try:
    from pyroute2 import NDB
except ImportError:
    print("in part")
"""
WHOLE = """
import pyroute2
from sshvpn.privileged import pyroute
pyroute.load_in_part()
from pyroute2 import NDB
print(NDB.__name__)
"""


def said(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_what_is_used_is_there_and_the_rest_is_not() -> None:
    assert said(PROGRAM) == ["lo", "True", "", "in part"]


def test_a_package_that_is_loaded_stays_whole() -> None:
    assert said(WHOLE) == ["NDB"]
