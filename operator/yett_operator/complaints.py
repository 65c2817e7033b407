"""What others do wrong is counted each time and logged once in a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

PERIOD = 60.0
"""Seconds in which a kind is logged once, however often it happens."""
_ROOM = 4096
"""Kinds remembered; those that are told apart are few, but nodes are among them."""


class Complaints:
    """Says whether to log, and what was left out since the last time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """Kind -> when it was logged last, and how often it happened since."""

    def due(self, kind: Hashable) -> str | None:
        """None: not now.  Else what goes behind the line: nothing, or how many were left out."""
        now = self._clock()
        at, left_out = self._said.get(kind, (-PERIOD, 0))
        if now - at < PERIOD:
            self._said[kind] = (at, left_out + 1)
            return None
        self._said[kind] = (now, 0)
        self._said.move_to_end(kind)
        if len(self._said) > _ROOM:
            self._said.popitem(last=False)
        return f" (and {left_out} more like it since the last line)" if left_out else ""
