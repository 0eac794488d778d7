"""Keeps what stands as it shall be: compares again after each change around it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from sshvpn.errors import SshvpnError
from sshvpn.waiting import within

_AFTER_BUG_S = 5.0


async def follow(
    *sources: AsyncIterator[None],
    reconcile: Callable[[], Awaitable[bool]],
    look_again_s: Callable[[], float | None],
    log: logging.Logger,
    at_once: bool = False,
) -> None:
    """Call ``reconcile`` after each change that a source tells of, until it returns False.

    Without one it is called after ``look_again_s`` seconds (None: not before a change), and
    ``at_once`` at the start too. Changes that come while it runs are one. A source that fails is
    told in the log, and the others are heard. Cancelled: it hears nobody any more.
    """
    changed = asyncio.Event()
    if at_once:
        changed.set()
    listeners = [asyncio.create_task(_note(source, changed, log)) for source in sources]
    try:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(look_again_s(), changed.wait())
            changed.clear()
            try:
                if not await reconcile():
                    return
            except Exception as bug:  # noqa: BLE001 (what stands is looked after all the same)
                _tell(bug, log)
                await asyncio.sleep(_AFTER_BUG_S)
                changed.set()
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)


async def _note(changes: AsyncIterator[None], changed: asyncio.Event, log: logging.Logger) -> None:
    try:
        async for _ in changes:
            changed.set()
    except SshvpnError as error:
        log.warning("changes are not followed: %s", error)
    except Exception as bug:  # noqa: BLE001 (the others are heard)
        _tell(bug, log)


def _tell(bug: Exception, log: logging.Logger) -> None:
    log.debug("unexpected", exc_info=bug)
    log.warning("changes are not followed: something unexpected: %s: %s", type(bug).__name__, bug)
