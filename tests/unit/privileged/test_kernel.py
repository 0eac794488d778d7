"""The steps of a tunnel, made one after the other: all, or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sshvpn.errors import SshvpnError
from sshvpn.plan import steps
from sshvpn.plan.state import ProxyNeighbour, Setting, Sysctl
from sshvpn.plan.steps import Step
from sshvpn.privileged import kernel as module, sysctl
from sshvpn.privileged.kernel import Kernel

FIRST, SECOND = ProxyNeighbour("lan0", "192.168.77.50"), ProxyNeighbour("lan0", "192.168.77.51")


def test_whatever_the_system_says_what_was_made_before_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def add(_: Kernel, __: str, step: steps.AddNeighbour) -> None:
        if step.neighbour == SECOND:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(step.neighbour.address)

    def delete(_: Kernel, __: str, step: steps.DeleteNeighbour) -> None:
        made.remove(step.neighbour.address)

    monkeypatch.setitem(module._MAKERS, steps.AddNeighbour, add)
    monkeypatch.setitem(module._MAKERS, steps.DeleteNeighbour, delete)
    wanted = [steps.AddNeighbour(FIRST), steps.AddNeighbour(SECOND)]
    with pytest.raises(SshvpnError, match="No space left on device"):
        Kernel(tmp_path).apply("3e8_0123456789", wanted)
    assert made == []


RAISED = Sysctl(Setting.RP_FILTER, "wan0", "2", "1")


@pytest.mark.parametrize(
    "step",
    [
        steps.SetSysctl(RAISED, Sysctl(Setting.RP_FILTER, "wan0", "0", "0")),
        steps.SetSysctl(RAISED, Sysctl(Setting.FORWARDING4, "wan0", "1", "0")),
        steps.RestoreSysctl(Sysctl(Setting.RP_FILTER, "wan0", "0", "0")),
    ],
)
def test_a_setting_goes_back_to_what_it_was_and_not_to_what_a_step_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    """The steps come from an ordinary user's process, which may have been taken over."""
    place = tmp_path / "net/ipv4/conf/wan0"
    place.mkdir(parents=True)
    for name, value in (("rp_filter", "1"), ("forwarding", "0")):
        (place / name).write_text(f"{value}\n")
    monkeypatch.setattr(sysctl, "_PROC", tmp_path)

    def fail(_: Kernel, __: str, ___: Step) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(module._MAKERS, steps.AddNeighbour, fail)
    kernel = Kernel(tmp_path)
    if isinstance(step, steps.RestoreSysctl):
        kernel.apply("3e8_0123456789", [steps.SetSysctl(RAISED)])
    before = {path.name: path.read_text().strip() for path in place.iterdir()}
    with pytest.raises(SshvpnError, match="No space left on device"):
        kernel.apply("3e8_0123456789", [step, steps.AddNeighbour(FIRST)])
    assert {path.name: path.read_text().strip() for path in place.iterdir()} == before
