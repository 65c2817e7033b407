"""Giving back what a big piece of work needed for a moment."""

from __future__ import annotations

import ctypes
import gc

BIG = 1000
"""Objects in a batch after which it is worth the time."""


def give_back() -> None:
    """Collect, look at what stays no more, and return free memory to the kernel (where libc can)."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
