"""Waiting for something, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, awaited: Awaitable[T]) -> T:
    """Return what ``awaited`` returns, or end it and raise asyncio.TimeoutError.

    None: it takes as long as it takes. Cancelled: it is ended, and the cancellation counts even
    where the end has come in the same moment. asyncio.wait_for loses it then, until Python 3.12
    (cpython gh-86296), and whoever cancelled waits for ever.
    """
    if seconds is None:
        return await awaited
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({task}, timeout=max(seconds, 0.0))
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                raise asyncio.TimeoutError
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()
