"""Giving back what a big piece of work needed for a moment."""

from __future__ import annotations

import asyncio
import ctypes
import gc

_PERIOD = 5.0
"""Seconds; each time takes half a millisecond, which nobody waits for."""
_APART = 64 << 10
"""Bytes from which a block has pages of its own."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of mallopt(3)."""
BIG = 1000
"""Objects in a batch after which it is worth the time."""


def set_up() -> None:
    """Keep big blocks apart from small ones, and all threads' small ones together (where libc can); at the start.

    By itself glibc soon takes big blocks from the heap too.  The 256 KiB that each TLS connection
    reads into, nearly all of it never used, then lie where lists of pods were parsed: in pages that were
    written once, and that nobody can give back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _APART)
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Collect, look at what stays no more, and return free memory to the kernel (where libc can)."""
    gc.collect()
    gc.freeze()
    _trim()


async def keep_trimmed() -> None:
    """For ever: what many loaders at once needed, above all their first snapshots, goes back soon after."""
    while True:
        await asyncio.sleep(_PERIOD)
        await asyncio.to_thread(_trim)


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
