"""What a laboratory is like at one moment, and what has changed since.

Compared are the dumps of all machines but the internet, and that no process and no runtime file
is new on any.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from tests.lab import dump
from tests.lab.labmachine import LabMachine, finish_dump
from tests.lab.machine import shown_paths

# Below these, a program may keep files only while it runs.
RUNTIME_DIRECTORIES: Final = ("/run/sshvpn", "/run/user", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108


class Snapshot:
    """The state of MACHINES when it is made."""

    def __init__(self, machines: Mapping[str, LabMachine]) -> None:
        """Take it."""
        self._machines = machines
        self._dumps = dumps_of(machines)
        self._processes = {name: _commands(machine) for name, machine in machines.items()}
        self._files = {name: _runtime_files(machine) for name, machine in machines.items()}

    def differences(self, but: Collection[str] = ()) -> str:
        """Return what is different now, a line each, "" for nothing; the files BUT may be new."""
        problems = []
        machines = {name: self._machines[name] for name in self._processes}
        for name, machine in machines.items():
            if name == "internet":
                continue
            if extra := _commands(machine) - self._processes[name]:
                problems += [f"{name}: process {line}" for line in extra.elements()]
            if new := _runtime_files(machine) - self._files[name] - set(but):
                problems += [f"{name}: file {path}" for path in sorted(new)]
        if not problems:  # the dumps cost more, and a process on its way out may still clean up
            problems += filter(
                None,
                (dump.difference(self._dumps[name], after, name)
                 for name, after in dumps_of(machines).items()),
            )  # fmt: skip
        return "\n".join(problems)


def dumps_of(machines: Mapping[str, LabMachine]) -> dict[str, str]:
    """Return the dump of each machine but the internet, by name; all run at once."""
    running = {
        name: machine.start_dump() for name, machine in machines.items() if name != "internet"
    }
    return {name: finish_dump(child) for name, child in running.items()}


def _commands(machine: LabMachine) -> Counter[str]:
    # sshd rewrites its title ("sshd: alice [priv]"): a session is told from the listener by it.
    return Counter(machine.processes().values())


def _runtime_files(machine: LabMachine) -> set[str]:
    """Return the files below the runtime directories, the host's own aside.

    A checkout below /tmp is shown in every machine, and changes while the tests run.
    """
    root = str(machine.host_path("/"))
    hosts = {f"{root}{path}" for path in shown_paths()}
    found = set()
    for top in RUNTIME_DIRECTORIES:
        for directory, inner, files in os.walk(machine.host_path(top)):
            inner[:] = [name for name in inner if f"{directory}/{name}" not in hosts]
            links = [name for name in inner if os.path.islink(f"{directory}/{name}")]  # noqa: PTH114
            found |= {f"{directory}/{name}".removeprefix(root) for name in [*files, *links]}
    return found
