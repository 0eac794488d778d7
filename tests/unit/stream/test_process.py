"""The pump as a process: what it asks of the kernel for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BE_PATIENT = """
import os, sys
from sshvpn.stream import process
os.sched_setscheduler(0, int(sys.argv[1]), os.sched_param(0))
process._be_patient()
print(os.sched_getscheduler(0))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE)],
    ids=["as it starts", "somebody's choice"],
)
def test_it_takes_no_core_from_ssh_by_waking_up(before: int, after: int) -> None:
    words = [sys.executable, "-c", BE_PATIENT, str(before)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    assert int(done.stdout) == after
