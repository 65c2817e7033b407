"""PURE: tuples of rows, as a snapshot has them, of which the next is mostly the one before.

There may be tens of thousands of rows, so none of this looks at each in a loop of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import compress, count
from operator import is_not
from typing import Any, Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")
V = TypeVar("V")
Row = TypeVar("Row", bound=tuple[Any, ...])
_FEW = 64


def difference(before: tuple[R, ...], after: tuple[R, ...]) -> tuple[frozenset[R], frozenset[R]]:
    """Rows that are gone, and rows that have come."""
    if before is after:
        return frozenset(), frozenset()
    room = min(len(before), len(after))
    head = _same(before, after, room)
    tail = _same(reversed(before), reversed(after), room - head)
    old, new = frozenset(before[head : len(before) - tail]), frozenset(after[head : len(after) - tail])
    return old - new, new - old


def _same(before: Iterable[R], after: Iterable[R], most: int) -> int:
    """How many rows both begin with, as far as they are the same objects; at most `most`."""
    return min(most, next(compress(count(), map(is_not, before, after)), most))


def updated(rows: tuple[Row, ...], changed: Mapping[tuple[Any, ...], Row | None]) -> tuple[Row, ...]:
    """Sorted rows, with changes by what they begin with: another row in the place of that one, None for none."""
    if len(changed) > _FEW:
        width = len(next(iter(changed)))
        kept = (row for row in rows if row[:width] not in changed)
        return tuple(sorted((*kept, *(row for row in changed.values() if row is not None))))
    found = list(rows)
    for key, row in changed.items():
        at = bisect_left(found, key)
        end = at + (at < len(found) and found[at][: len(key)] == key)
        found[at:end] = [] if row is None else [row]
    return tuple(found)


class RowMap(Generic[R, K, V]):
    """Rows as a mapping, which is the same object for the same rows; `item` turns one row into key and value.

    No two rows may have one key.
    """

    def __init__(self, item: Callable[[R], tuple[K, V]]) -> None:
        self._item = item
        self._rows: tuple[R, ...] = ()
        self._made: dict[K, V] = {}

    def of(self, rows: tuple[R, ...]) -> dict[K, V]:
        """Not to be changed by whoever gets it."""
        if rows is not self._rows:
            gone, come = difference(self._rows, rows)
            made = dict(self._made)
            for row in gone:
                made.pop(self._item(row)[0], None)
            made.update(map(self._item, come))
            self._rows, self._made = rows, made
        return self._made
