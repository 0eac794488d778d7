"""A tunnel's state in this machine's kernel: read it, make steps, and what this machine is like.

Puts netlink, nft and settings together; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.plan import steps
from sshvpn.plan.diff import diff
from sshvpn.plan.request import Facts
from sshvpn.plan.state import NetworkState, Sysctl, nothing
from sshvpn.plan.steps import Step, inverse
from sshvpn.privileged import firewall, sysctl
from sshvpn.privileged.firewall import Tables
from sshvpn.privileged.netlink import Netlink
from sshvpn.privileged.sysctl import Settings


class Kernel:
    """This machine's kernel, in this process's network namespace."""

    def __init__(self, directory: Path) -> None:
        self.netlink = Netlink()
        self.settings = Settings(directory)
        self.tables = Tables()

    def read(self, label: str, unit: int) -> NetworkState:
        """Return all that the tunnel has."""
        return NetworkState(
            label,
            link=self.netlink.link(unit),
            addresses=self.netlink.addresses(unit),
            routes=self.netlink.routes(unit),
            rules=self.netlink.rules(unit),
            neighbours=self.netlink.neighbours(unit),
            table=self.tables.read(label),
            sysctls=self.settings.held(label),
            accepts=frozenset(accept for accept, of in firewall.accepts() if of == label),
        )

    def apply(self, label: str, wanted: Sequence[Step]) -> None:
        """Make the steps; at the first that fails undo those before it, and raise its error.

        What cannot be undone either is named in the error's message.
        """
        undo: list[Step] = []
        for step in wanted:
            back = self._inverse(label, step)
            try:
                self.make(label, step)
            except SshvpnError as error:
                failed = self.make_all(label, reversed(undo))
                if failed:
                    raise type(error)(f"{error}; and undoing it: {'; '.join(failed)}") from error
                raise
            if back is not None:
                undo.append(back)

    def _inverse(self, label: str, step: Step) -> Step | None:
        """Return the step that leads back from ``step``, which is to be made now.

        A setting goes back to what it has now, whatever the step says that it had.
        """
        match step:
            case steps.SetSysctl(sysctl):
                return inverse(steps.SetSysctl(sysctl, self._held(label, sysctl)))
            case steps.RestoreSysctl(sysctl):
                held = self._held(label, sysctl)
                return None if held is None else inverse(steps.RestoreSysctl(held))
            case _:
                return inverse(step)

    def _held(self, label: str, sysctl: Sysctl) -> Sysctl | None:
        held = self.settings.held(label)
        return next((one for one in held if one.path == sysctl.path), None)

    def make_all(self, label: str, wanted: Iterable[Step]) -> list[str]:
        """Make all steps that can be made, and return what was said of the others."""
        failed = []
        for step in wanted:
            try:
                self.make(label, step)
            except SshvpnError as error:  # noqa: PERF203 (each is tried)
                failed.append(str(error))
        return failed

    def tear_down(self, label: str, unit: int) -> list[str]:
        """Take away all that the tunnel has, and return what failed; twice is fine."""
        return self.make_all(label, diff(self.read(label, unit), nothing(label)))

    def make(self, label: str, step: Step) -> None:
        """Make one step, or raise SshvpnError; then nothing of it is made."""
        try:
            _MAKERS[type(step)](self, label, step)
        except OSError as error:  # a full disk below /run, a kernel without memory
            raise SshvpnError(f"{type(step).__name__}: {error}") from error

    def facts(self) -> Facts:
        """Return what this machine is like, as if none of our settings were held."""
        return Facts(
            addresses=frozenset(self.netlink.known_addresses()),
            routes=frozenset(self.netlink.known_routes()),
            settings=self.settings.without_us(),
            chains=firewall.foreign_chains(),
            has_ipv6=sysctl.has_ipv6(),
        )

    def close(self) -> None:
        """Close what is open; changes nothing."""
        self.netlink.close()


def _load_table(kernel: Kernel, step: steps.LoadTable) -> None:
    kernel.tables.refuse_published(step.table, step.before)
    kernel.tables.load(step.table)


_MAKERS: dict[type[Any], Callable[[Kernel, str, Any], None]] = {
    steps.AddLink: lambda k, _, s: k.netlink.create_link(s.link),
    steps.DeleteLink: lambda k, _, s: k.netlink.delete_link(s.link),
    steps.SetLink: lambda k, _, s: k.netlink.set_link(s.link, s.before),
    steps.AddAddress: lambda k, _, s: k.netlink.create_address(s.address),
    steps.DeleteAddress: lambda k, _, s: k.netlink.delete_address(s.address),
    steps.AddRoute: lambda k, _, s: k.netlink.create_route(s.route),
    steps.DeleteRoute: lambda k, _, s: k.netlink.delete_route(s.route),
    steps.AddRule: lambda k, _, s: k.netlink.create_rule(s.rule),
    steps.DeleteRule: lambda k, _, s: k.netlink.delete_rule(s.rule),
    steps.AddNeighbour: lambda k, _, s: k.netlink.create_neighbour(s.neighbour),
    steps.DeleteNeighbour: lambda k, _, s: k.netlink.delete_neighbour(s.neighbour),
    steps.LoadTable: lambda k, _, s: _load_table(k, s),
    steps.DropTable: lambda k, label, _: k.tables.drop(label),
    steps.SetSysctl: lambda k, label, s: k.settings.hold(label, s.sysctl),
    steps.RestoreSysctl: lambda k, label, s: k.settings.release(label, s.sysctl.path),
    steps.AddAccept: lambda _, label, s: firewall.create_accept(s.accept, label),
    steps.DeleteAccept: lambda _, label, s: firewall.delete_accept(s.accept, label),
}
