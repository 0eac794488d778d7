"""What a supervisor keeps up: a session, and what all sessions do with their profiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from sshvpn.boundary import Prompter
from sshvpn.errors import SshvpnError
from sshvpn.model import ForwardProfile, Traffic, TunnelProfile

P = TypeVar("P", bound=ForwardProfile | TunnelProfile)


class Session(Protocol):
    """What a supervisor keeps up."""

    @property
    def kind(self) -> str:
        """``forward`` or ``tunnel``."""
        ...

    @property
    def name(self) -> str:
        """NAME of cli.md."""
        ...

    @property
    def wanted(self) -> tuple[str, ...]:
        """What it was asked for, in words: two that want the same are equal."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """How long the first start may take, prompts not counted; None: as long as it takes."""
        ...

    @property
    def profile(self) -> ForwardProfile | TunnelProfile:
        """What it keeps up."""
        ...

    on_change: Callable[[], None]
    """To be called after something has changed by itself."""

    async def bring_up(self, prompter: Prompter | None) -> None:
        """Make it work, or raise an SshvpnError with nothing left behind."""
        ...

    async def wait_lost(self) -> SshvpnError:
        """Wait until it works no more, and return why."""
        ...

    def forsake(self) -> None:
        """Say nothing more over the connection: it can not be of use, and is torn down next."""
        ...

    def doubt(self) -> None:
        """Look at once whether it still works: something has happened that may have ended it."""
        ...

    async def wait_login_possible(self) -> None:
        """Return when what the last login lacked is back, so that nobody need be asked.

        For ever where only a person can help.
        """
        ...

    async def wait_gone(self) -> SshvpnError:
        """Wait until nothing is left that could be kept up, and return why; mostly for ever."""
        ...

    async def tear_down(self) -> None:
        """End what needs the connection; what outlives it may stay. Twice is fine."""
        ...

    async def adopt(self, profile: Any) -> None:
        """Take ``profile`` at the next ``bring_up``; what connections are open live on.

        None: it stays as it is. Raises UsageError or TakenError for what can be seen to be
        wrong before anything changes.
        """
        ...

    def go_back(self) -> bool:
        """Take the profile again that was there before those adopted since, if none has run."""
        ...

    async def close(self) -> None:
        """Undo all, for good. The last call; fine without ``tear_down`` before."""
        ...

    def describe(self) -> list[dict[str, Any]]:
        """Return the records of ``status --json``, without what the supervisor adds."""
        ...

    def traffic(self) -> Traffic:
        """Return what has been carried."""
        ...

    async def has_service(self) -> bool:
        """Whether what it leads to is there; True of a kind that leads to nothing known."""
        ...


class ProfileSession(ABC, Generic[P]):
    """The part of a session that is the same for all kinds: its profile, and how it changes.

    ``adopt`` leaves the next profile in ``_adopted``; ``bring_up`` takes it, and forgets the one
    before only when the new one has run. ``on_change`` is called after something has changed by
    itself. ``is_service``: nobody is there who could correct a word, and at a boot adapters come
    late, so that they are waited for.
    """

    is_service = False

    def __init__(self, profile: P) -> None:
        self.profile: P = profile
        self.on_change: Callable[[], None] = lambda: None
        self._adopted: P | None = None
        self._before: P | None = None

    @property
    def name(self) -> str:
        """NAME, as status and down know it."""
        return self.profile.name

    @property
    def wanted(self) -> tuple[str, ...]:
        """What was asked for, in words."""
        return self.profile.wanted

    @property
    def timeout_s(self) -> float | None:
        """The bound of the first start."""
        return self.profile.timeout_s

    async def has_service(self) -> bool:
        """Nothing is known of what it leads to; see Session."""
        return True

    async def check(self) -> None:
        """Raise UsageError for what is wrong before anything is changed."""
        if not self.is_service:
            self._check_adapters(self.profile)
        await self._check(self.profile)

    def go_back(self) -> bool:
        """Take the profile again that was there before, if nothing adopted since has run."""
        before, self._before = self._before, None
        if before is not None:
            self._use(before)
        return before is not None

    def _take_adopted(self) -> None:
        if self._adopted is not None:
            adopted, self._adopted = self._adopted, None
            if self._before is None:  # else this one has not run, and that one may have
                self._before = self.profile
            self._use(adopted)

    def _use(self, profile: P) -> None:
        self.profile = profile

    @abstractmethod
    def _check_adapters(self, profile: P) -> None:
        """Raise UsageError where this machine has no adapter that ``profile`` names."""

    @abstractmethod
    async def _check(self, profile: P) -> None:
        """Raise UsageError for what is wrong with ``profile``; nothing is changed."""
