"""The prober, asked by alice on the laboratory's gateway.

::

    lan 192.168.77.10 ── lan0 gateway wan0 ──[ emulator ]── server 203.0.113.20
        fd77::10         .1           .10                 └─ internet .1, a router
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab import Lab, LabMachine

ASK = """
import asyncio, json, os, sys, time
from sshvpn.errors import SshvpnError
from sshvpn.system.network.prober import SystemProber

def sockets():
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sorted(os.readlink(link) for link in links if os.path.islink(link))

class Quiet(asyncio.Event):
    at = None

    def set(self):
        self.at = time.monotonic()
        super().set()

async def ask(name, *words, **more):
    started = time.monotonic()
    quiet = Quiet()
    try:
        more = {"quiet": quiet} if name == "holder_of" else more
        result = getattr(SystemProber(), name)(*words, **more)
        if asyncio.iscoroutine(result):
            result = await result
    except SshvpnError as error:
        result = error.code
    took_s = time.monotonic() - started
    return {"result": result, "took_s": took_s, "quiet_s": quiet.at and quiet.at - started}

async def main():
    print("ready", flush=True)
    before = sockets()
    questions = json.loads(sys.argv[1])
    if sys.argv[2] == "cancelled":
        task = asyncio.create_task(ask(*questions[0]))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        answers = [{"result": task.cancelled()}]
    elif sys.argv[2] == "together":
        answers = await asyncio.gather(*(ask(*words) for words in questions))
    else:
        more = {"is_sparing": True} if sys.argv[2] == "sparing" else {}
        answers = [await ask(*words, **more) for words in questions]
    assert sockets() == before, (before, sockets())
    print(json.dumps(answers))

asyncio.run(main())
"""


def ask(lab: Lab, *questions: tuple[object, ...], how: str = "in turn") -> list[dict[str, Any]]:
    text = lab.gateway.python(ASK, json.dumps(questions), how, timeout=60)
    answers: list[dict[str, Any]] = json.loads(text.splitlines()[1])
    return answers


@contextmanager
def firewall(machine: LabMachine, hook: str, *rules: str) -> Iterator[None]:
    text = "\n".join(rules)
    machine.nft(
        f"table inet probe {{\nchain c {{\ntype filter hook {hook} priority 0\n{text}\n}}\n}}"
    )
    try:
        yield
    finally:
        machine.nft("delete table inet probe")
