"""What has been said already: complaints are counted each time and logged once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Once:
    """Remembers the newest `room` things."""

    def __init__(self, room: int = 4096) -> None:
        self._room = room
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def first(self, thing: Hashable) -> bool:
        """Whether it is new; a flood of new things makes old ones new again."""
        known = thing in self._seen
        self._seen[thing] = None
        self._seen.move_to_end(thing)
        if len(self._seen) > self._room:
            self._seen.popitem(last=False)
        return not known

    def forget(self, thing: Hashable) -> None:
        """It is over: the next time is a first time again."""
        self._seen.pop(thing, None)
