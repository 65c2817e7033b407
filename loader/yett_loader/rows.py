"""PURE: tuples of rows, as a snapshot has them, of which the next is mostly the one before.

There may be tens of thousands of rows, so none of this looks at each in a loop of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import compress, count, repeat
from operator import is_, is_not
from typing import Any, Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")
V = TypeVar("V")
Row = TypeVar("Row", bound=tuple[Any, ...])
_FEW = 64
_MANY = 1024
_PIECE = 512


def difference(before: tuple[R, ...], after: tuple[R, ...]) -> tuple[frozenset[R], frozenset[R]]:
    """Rows that are gone, and rows that have come.

    What both have they mostly have as the same objects in the same order, so both are walked together.
    """
    if before is after:
        return frozenset(), frozenset()
    gone: list[R] = []
    come: list[R] = []
    i = j = 0
    while i < len(before) and j < len(after) and len(gone) + len(come) < _MANY:
        old, new = before[i : i + _PIECE], after[j : j + _PIECE]
        same = _first(map(is_not, old, new), min(len(old), len(new)))
        old, new = old[same:], new[same:]
        i, j = i + same, j + same
        if not old or not new:
            continue
        # Rows were put in, or taken out, or put in the place of others.
        if put := _place(old[0], new):
            taken = 0
        elif not (taken := _place(new[0], old)):
            put = taken = 1
        gone += old[:taken]
        come += new[:put]
        i, j = i + taken, j + put
    old_rows, new_rows = frozenset([*gone, *before[i:]]), frozenset([*come, *after[j:]])
    return old_rows - new_rows, new_rows - old_rows


def _place(row: R, rows: tuple[R, ...]) -> int:
    """Where the same object is among others; 0: nowhere, or first."""
    return _first(map(is_, rows, repeat(row)), 0)


def _first(flags: Iterable[bool], none: int) -> int:
    """The place of the first that is true."""
    return next(compress(count(), flags), none)


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
