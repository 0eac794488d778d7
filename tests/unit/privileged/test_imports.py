"""pyroute2 is loaded in part: what is used of it works, and what is not does not load."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from sshvpn.privileged import imports
imports.leave_out_unused()
imports.leave_out_unused()
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
with IPRoute(ext_ack=True) as ip:
    print([link.get_attr("IFLA_IFNAME") for link in ip.get_links()][0])
    try:
        ip.link("set", index=2**30, state="up")
    except NetlinkError as error:
        print(error.code in (1, 19))  # EPERM, ENODEV
unused = ("psutil", "pyroute2.ndb", "pyroute2.ipdb", "ssl", "_ssl", "_hashlib")
print(*(name for name in unused if name in sys.modules))
import ssl
print(ssl.create_default_context().check_hostname)
try:
    from pyroute2 import NDB
except ImportError:
    print("in part")
"""
WHOLE = """
import pyroute2
from sshvpn.privileged import imports
imports.leave_out_unused()
from pyroute2 import NDB
print(NDB.__name__)
"""


def said(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_what_is_used_is_there_and_the_rest_is_not() -> None:
    assert said(PROGRAM) == ["lo", "True", "", "True", "in part"]


def test_a_package_that_is_loaded_stays_whole() -> None:
    assert said(WHOLE) == ["NDB"]
