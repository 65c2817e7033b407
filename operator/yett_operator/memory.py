"""Giving back what a big piece of work needed for a moment."""

from __future__ import annotations

import asyncio
import ctypes
import gc

_PERIOD = 30.0
BIG = 1000
"""Objects in a batch after which it is worth the time."""


def give_back() -> None:
    """Collect, look at what stays no more, and return free memory to the kernel (where libc can)."""
    gc.collect()
    gc.freeze()
    _trim()


async def keep_trimmed() -> None:
    """For ever: what many loaders at once needed, above all their first snapshots, goes back a while later."""
    while True:
        await asyncio.sleep(_PERIOD)
        await asyncio.to_thread(_trim)


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
