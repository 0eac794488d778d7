"""`sshvpn up` where a clock is wrong, at either end, or is set while the tunnel stands.

lan ── gateway ══ssh══ server ── inner
       every           date(1), and
       process         when it was started
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.test_routes import need
from tests.e2e.vpn import Vpn
from tests.lab import Lab, LabMachine, wait_until

pytestmark = pytest.mark.lab

YEAR_S: Final = 365 * 86_400
SHIFT: Final = "/etc/clock-is-wrong-by"
PRELOADED: Final = "/etc/ld.so.preload"

# The time of day has no namespace (time_namespaces(7)): the kernel's own would be everyone's.
_SHIFTED: Final = """
struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
void *dlsym(void *, const char *);
int open(const char *, int, ...);
long read(int, void *, unsigned long);
int close(int);
long atol(const char *);

static long wrong_by(void) {
  char text[32] = "";
  int file = open(SHIFT, 0);
  if (file < 0) return 0;
  read(file, text, sizeof text - 1);
  close(file);
  return atol(text);
}
int clock_gettime(int clock, struct timespec *now) {
  int (*kernels)(int, struct timespec *) = dlsym((void *)-1L, "clock_gettime");
  int result = kernels(clock, now);
  if (clock == 0 && result == 0) now->seconds += wrong_by();
  return result;
}
long time(long *told) {
  struct timespec now;
  clock_gettime(0, &now);
  if (told) *told = now.seconds;
  return now.seconds;
}
int gettimeofday(struct timeval *told, void *zone) {
  struct timespec now;
  clock_gettime(0, &now);
  told->seconds = now.seconds;
  told->microseconds = now.nanoseconds / 1000;
  return 0;
}
"""


def set_clock(machine: LabMachine, shift_s: int) -> None:
    """Let the clock of MACHINE be wrong by so many seconds from now on; see `wrong_clock`."""
    machine.write(SHIFT, str(shift_s), "root", 0o644)


@contextlib.contextmanager
def wrong_clock(machine: LabMachine, shift_s: int) -> Iterator[None]:
    """Have the clock of MACHINE wrong by so many seconds, for all that starts in the block."""
    need("cc")
    set_clock(machine, shift_s)
    library = "/usr/local/lib/clock.so"
    options = ["-shared", "-fPIC", "-nostdlib", f'-DSHIFT="{SHIFT}"', "-o", library]
    machine.run(["cc", *options, "-x", "c", "-"], user="root", input=_SHIFTED)
    machine.write(PRELOADED, f"{library}\n", "root", 0o644)
    try:
        yield
    finally:
        machine.run(["rm", PRELOADED], user="root")


@pytest.mark.parametrize(
    ("shift_s", "transport"),
    [(-YEAR_S, None), (YEAR_S, "w")],
    ids=["a year behind, auto", "a year ahead, w"],
)
def test_a_gateway_whose_clock_is_wrong_and_then_is_set(
    lab: Lab, shift_s: int, transport: str | None
) -> None:
    vpn = Vpn(lab, transport=transport)

    def since_s() -> float:
        return dt.datetime.fromisoformat(vpn.record()["since"].replace("Z", "+00:00")).timestamp()

    with wrong_clock(lab.gateway, shift_s), lab.unchanged():
        started = time.time()
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        assert started + shift_s - 1 <= since_s() <= time.time() + shift_s
        set_clock(lab.gateway, 0)
        assert vpn.record()["state"] == "running"
        lost = time.time()
        lab.server.sshd.kill_sessions()
        wait_until(
            lambda: (vpn.record()["reconnects"], vpn.record()["state"]) == (1, "running"), 20
        )
        assert vpn.unreachable(vpn.everything()) == []
        assert lost <= since_s() <= time.time()
        vpn.down()


@pytest.mark.parametrize("offset", ["-20 years", "+20 years"])
def test_a_server_whose_clock_is_wrong(lab: Lab, offset: str) -> None:
    vpn = Vpn(lab)
    server = lab.server
    date = server.run(["sh", "-c", "readlink -f $(command -v date)"], user="root").stdout.strip()
    wrong = f'#!/bin/sh\nexec /run/date -d "{offset}" "$@"\n'
    server.write("/run/wrong", wrong, "root", 0o755)
    script = f"cp {date} /run/date && mount --bind /run/wrong {date} && touch -d '{offset}' /run"
    server.run(["sh", "-ec", script], user="root")
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()
    server.run(["umount", date], user="root")
