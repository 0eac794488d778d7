"""Takes away what dead helpers have left: of a label, of a user, or of all."""

from __future__ import annotations

from sshvpn.plan import marks
from sshvpn.privileged import cgroup, firewall, managers
from sshvpn.privileged.kernel import Kernel
from sshvpn.privileged.units import Units


class Sweeper:
    """Sweeps for user ``actor``, root for everybody; what lives is never touched."""

    def __init__(self, kernel: Kernel, units: Units, actor: int) -> None:
        self._kernel = kernel
        self._units = units
        self._actor = actor

    def sweep_one(self, label: str) -> list[str]:
        """Sweep what ``label`` has left, unless it lives, and return what failed; twice is fine."""
        with self._units.locked():
            living = self._units.living().values()
            _, failed = self.sweep({label})
            groups = {} if label in living else cgroup.left(set())
            for path, of in groups.items():
                if of == label:
                    failed += cgroup.remove(path)
            self.let_managers_go()
        return failed

    def sweep_all(self, spared: set[str]) -> tuple[set[str], list[str]]:
        """Sweep all that this user may; return the labels, and what failed.

        ``spared`` are labels whose helper is dead while their supervisor lives.
        """
        with self._units.locked():
            swept, failed = self.sweep(None, spared)
            for path, label in cgroup.left({*self._units.living().values(), *spared}).items():
                if self._may(label):
                    failed += cgroup.remove(path)
            self.let_managers_go()
        return swept, failed

    def sweep(
        self, wanted: set[str] | None, spared: set[str] | frozenset[str] = frozenset()
    ) -> tuple[set[str], list[str]]:
        """Sweep what ``wanted`` have left in the kernel; the units are locked."""
        living = self._units.living()
        left = self._left(set(living))
        found = set(left.values()) | firewall.tables() | self._kernel.settings.labels()
        found |= {label for _, label in firewall.accepts()}
        found -= {*living.values(), *spared}
        found = {one for one in found if self._may(one)}
        swept, failed = found if wanted is None else found & wanted, []
        for label in swept:
            units = [unit for unit, of in left.items() if of == label] or [marks.UNITS]
            for unit in units:
                failed += self._kernel.tear_down(label, unit)
                self._units.forget(unit)
        return swept, failed

    def let_managers_go(self) -> None:
        """Tell those who manage networks that there is nothing of ours, if so; units are locked."""
        if not self._units.living() and not self._units.left():
            managers.let_go()

    def _may(self, label: str) -> bool:
        return self._actor in (0, marks.owner_of(label))

    def _left(self, living: set[int]) -> dict[int, str]:
        """Return the units that nobody holds but that are not gone, with their labels.

        One whose label nothing tells any more is root's to sweep.
        """
        found = dict.fromkeys(self._kernel.netlink.units(), marks.label_of(0, ""))
        found |= self._units.left()
        found |= {link.unit: link.label for link in self._kernel.netlink.links() if link.label}
        return {unit: label for unit, label in found.items() if unit not in living}
