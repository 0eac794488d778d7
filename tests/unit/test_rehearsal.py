"""How long a dry run may take, as `up` takes it: a person's time is not counted."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sshvpn.boundary import Prompter
from sshvpn.errors import UnreachableError
from sshvpn.rehearsal import Patience

BOUND_S = 0.1


class Slow:
    """Somebody who types for longer than the bound."""

    async def ask(self, _prompt: str, *, echo: bool) -> str | None:
        del echo
        await asyncio.sleep(2 * BOUND_S)
        return "secret"


def test_a_persons_time_is_not_counted() -> None:
    async def story() -> list[str]:
        patience = Patience(BOUND_S, cast("Prompter", Slow()))

        async def attempt() -> list[str]:
            return [await patience.ask("password: ", echo=False) or ""]

        return await patience.within(attempt())

    assert asyncio.run(story()) == ["secret"]


@pytest.mark.parametrize("asks", [False, True])
def test_what_takes_longer_ends(*, asks: bool) -> None:
    async def story() -> list[str]:
        patience = Patience(BOUND_S, cast("Prompter", Slow()))

        async def attempt() -> list[str]:
            if asks:
                await patience.ask("password: ", echo=False)
            await asyncio.Event().wait()
            raise AssertionError

        return await patience.within(attempt())

    with pytest.raises(UnreachableError, match="within the time given"):
        asyncio.run(asyncio.wait_for(story(), 20))
