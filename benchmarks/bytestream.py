"""The peer that no tunnel over SSH can beat: bytes through ssh, and nothing else.

Runs by itself inside the gateway::

    bytestream.py push HOST CIPHER BYTES    head -c BYTES /dev/zero | ssh HOST 'cat >/dev/null'
    bytestream.py pull …                    ssh HOST 'head -c BYTES /dev/zero' >/dev/null
    bytestream.py pull-cat …                ssh HOST 'head -c BYTES /dev/zero' | cat >/dev/null

It prints the seconds it took after the login, the CPU seconds that ssh has used since then and
the server's sshd since it serves the session, and those of the programs that write into ssh and
read from it. The last one is the first one's mirror image: somebody reads what ssh writes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

# sshd is the parent of the session's shell, which has waited for the program by then.
SAY_CPU = "cat /proc/$PPID/stat /proc/$$/stat >&2"


def main() -> None:
    """Do what the command line says."""
    verb, host, cipher, size = sys.argv[1:]
    zeros = ["head", "-c", size, "/dev/zero"]
    work = "cat >/dev/null" if verb == "push" else " ".join(zeros)
    cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    ssh = subprocess.Popen(
        ["ssh", "-o", "ControlPath=none", "-c", cipher, host, f"echo ready >&2; {work}; {SAY_CPU}"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        stdout=cat.stdin if verb == "pull-cat" else subprocess.DEVNULL,
    )  # fmt: skip
    assert ssh.stdin
    assert cat.stdin
    cat.stdin.close()
    assert ssh.stderr
    assert ssh.stderr.readline() == b"ready\n"
    login_s = seconds_in(Path(f"/proc/{ssh.pid}/stat").read_bytes())
    start = time.perf_counter()
    if verb == "push":
        subprocess.run(zeros, stdout=ssh.stdin, check=True)
    ssh.stdin.close()
    sshd, shell = ssh.stderr.readline(), ssh.stderr.readline()
    seconds = time.perf_counter() - start
    _, status, used = os.wait4(ssh.pid, 0)
    cat.wait()
    assert status == 0
    cpu_s = used.ru_utime + used.ru_stime - login_s + seconds_in(sshd)
    here = resource.getrusage(resource.RUSAGE_CHILDREN)  # all but ssh: head, cat
    programs_s = here.ru_utime + here.ru_stime - used.ru_utime - used.ru_stime
    programs_s += seconds_in(shell, of_children=True)
    json.dump({"seconds": seconds, "cpu_s": cpu_s, "programs_s": programs_s}, sys.stdout)


def seconds_in(stat: bytes, *, of_children: bool = False) -> float:
    """Return the CPU seconds that a process's STAT (proc(5)) tells of, or those of its children."""
    ticks = stat.rpartition(b")")[2].split()[11:15]
    return sum(map(int, ticks[2:] if of_children else ticks[:2])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
