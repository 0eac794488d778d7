"""The peer that no tunnel over SSH can beat: bytes through ssh, and nothing else.

Runs by itself inside the gateway::

    bytestream.py push HOST CIPHER BYTES    head -c BYTES /dev/zero | ssh HOST 'cat >/dev/null'
    bytestream.py pull …                    ssh HOST 'head -c BYTES /dev/zero' >/dev/null
    bytestream.py pull-cat …                ssh HOST 'head -c BYTES /dev/zero' | cat >/dev/null

It prints the seconds it took after the login, and the CPU seconds that ssh has used since then
and the server's sshd since it serves the session. The last one is the first one's mirror image:
somebody reads what ssh writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# sshd is the parent of the session's shell.
SAY_CPU = "cat /proc/$PPID/stat >&2"


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
    said = ssh.stderr.readline()
    seconds = time.perf_counter() - start
    _, status, used = os.wait4(ssh.pid, 0)
    cat.wait()
    assert status == 0
    cpu_s = used.ru_utime + used.ru_stime - login_s + seconds_in(said)
    json.dump({"seconds": seconds, "cpu_s": cpu_s}, sys.stdout)


def seconds_in(stat: bytes) -> float:
    """Return the CPU seconds that a process's STAT (proc(5)) tells of."""
    return sum(map(int, stat.rpartition(b")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
