"""What is left out when paramiko is loaded."""

import subprocess
import sys


def loaded(program: str) -> set[str]:
    program += "\nimport sys; print(*(name for name, it in sys.modules.items() if it))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_paramiko_does_without_what_is_left_out() -> None:
    program = "from sshvpn.system.imports import leave_out_unused as l; l(); l(); import paramiko"
    assert {"paramiko.transport"} <= loaded(program)
    assert not {"invoke", "unittest"} & loaded(program)


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
