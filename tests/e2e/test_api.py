"""The Python interface, used as a program would: alice's script on the gateway.

gateway (script: sshvpn.forward) ═══ SSH ═══ server (http on localhost:8888)
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.lab import Lab

ENGINES = ["openssh", "sshtunnel"]
LEFT = """
def left():
    # asyncio's thread that has waited for a child's end may itself be just ending.
    deadline = time.monotonic() + 5
    while len(threading.enumerate()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return [thread.name for thread in threading.enumerate()]
"""


def script(lab: Lab, body: str, *, env: dict[str, str | None] | None = None) -> dict[str, Any]:
    """Run BODY, a Python program that prints one line of JSON, and return that."""
    code = f"import json, threading, time, urllib.request\nimport sshvpn\n{LEFT}{body}"
    told: dict[str, Any] = json.loads(lab.gateway.python(code, env=env))
    return told


@pytest.mark.parametrize("engine", ENGINES)
def test_a_with_block_forwards_and_leaves_nothing(lab: Lab, engine: str) -> None:
    lab.server.http_server(8888)
    told = script(
        lab,
        f"""
with sshvpn.forward("server", "0:8888", engine={engine!r}) as f:
    page = urllib.request.urlopen(f.url).read().decode()
    inside = {{"page": page, "state": f.state, "listen": f.listen, "url": f.url}}
print(json.dumps({{**inside, "threads": left()}}))
""",
    )
    assert "server" in told["page"]
    assert told["state"] == "running"
    assert told["url"].startswith("http://localhost:")
    assert told["listen"][0].startswith("127.0.0.1:")
    assert told["threads"] == ["MainThread"]


def test_the_library_is_the_engine_unless_said_otherwise(lab: Lab) -> None:
    lab.server.http_server(8888)
    told = script(
        lab,
        """
with sshvpn.forward("server", "0:8888") as f:
    with open("/proc/thread-self/children") as children:
        print(json.dumps({"children": children.read().split()}))
""",
    )
    assert told["children"] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_wrong_is_an_exception_of_its_kind(lab: Lab, engine: str) -> None:
    told = script(
        lab,
        f"""
from sshvpn import errors
def attempt(*words, **options):
    try:
        with sshvpn.forward(*words, engine={engine!r}, **options):
            return "up"
    except sshvpn.SshvpnError as error:
        return type(error).__name__
print(json.dumps({{
    "spec": attempt("server", "nonsense:"),
    "host": attempt("-oProxyCommand=touch /tmp/owned", "0:8888"),
    "nobody": attempt("bob@server", "0:8888"),
    "refused": attempt("ssh://server:2222", "0:8888", timeout_s=1),
    "option": attempt("server", "0:8888", options={{"StrictHostKeyChecking": "no"}}),
    "threads": left(),
}}))
""",
    )
    assert told == {
        "spec": "UsageError",
        "host": "UsageError",
        "nobody": "AuthenticationError",
        "refused": "UnreachableError",
        "option": "UsageError",
        "threads": ["MainThread"],
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_a_passphrase_is_asked_of_the_program(lab: Lab, engine: str) -> None:
    lab.server.http_server(8888)
    told = script(
        lab,
        f"""
from tests.lab import PASSPHRASE
asked = []
def ask(prompt):
    asked.append(prompt)
    return PASSPHRASE
with sshvpn.forward("server", "0:8888", engine={engine!r}, ask=ask) as f:
    status = urllib.request.urlopen(f.url).status
print(json.dumps({{"status": status, "asked": asked}}))
""",
        env={"SSH_AUTH_SOCK": None},
    )
    assert told["status"] == 200
    assert len(told["asked"]) == 1
    assert "passphrase" in told["asked"][0].lower()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_connection_is_made_again_on_the_same_port(lab: Lab, engine: str) -> None:
    lab.server.http_server(8888)
    code = f"""
import json, sys, time, urllib.request, sshvpn
def wait(state):
    deadline = time.monotonic() + 20
    while f.state != state:
        assert time.monotonic() < deadline, f.state
        time.sleep(0.005)
with sshvpn.forward("server", "0:8888", engine={engine!r}) as f:
    before = f.url
    print("up", flush=True)
    wait("backoff")
    wait("running")
    print(json.dumps({{"same": f.url == before, "status": urllib.request.urlopen(f.url).status}}))
"""
    child = lab.gateway.popen([sys.executable, "-c", code])
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    lab.server.sshd.kill_sessions()
    told, _ = child.communicate(timeout=30)
    assert json.loads(told) == {"same": True, "status": 200}
