"""PURE: sets of values by key, most of which have one value."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from itertools import chain
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class Multimap(Generic[K, V]):
    """A lone value is kept bare: a set takes 216 bytes."""

    __slots__ = ("_lone", "_several")

    def __init__(self) -> None:
        self._lone: dict[K, V] = {}
        self._several: dict[K, set[V]] = {}

    def __iter__(self) -> Iterator[K]:
        """Keys that have a value."""
        return chain(self._lone, self._several)

    def of(self, key: K) -> Collection[V]:
        """The values of a key; not to be changed."""
        if key in self._lone:
            return (self._lone[key],)
        return self._several.get(key, ())

    def add(self, key: K, value: V) -> None:
        """One more; the same one twice is one."""
        if key in self._several:
            self._several[key].add(value)
        elif self._lone.setdefault(key, value) != value:
            self._several[key] = {self._lone.pop(key), value}

    def discard(self, key: K, value: V) -> None:
        """One less, if it is there."""
        if (several := self._several.get(key)) is not None:
            several.discard(value)
            if len(several) == 1:
                self._lone[key] = several.pop()
                del self._several[key]
        elif key in self._lone and self._lone[key] == value:
            del self._lone[key]
