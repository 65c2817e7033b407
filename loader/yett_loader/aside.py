"""Work that may block, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Do it in a thread; to its end also if we are cancelled, for what it uses must stay open meanwhile."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except BaseException:
        await asyncio.wait([task])
        raise
