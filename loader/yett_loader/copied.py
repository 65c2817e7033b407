"""PURE: a mapping that is copied when it is changed for the first time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Copied(Generic[K, V]):
    """What it was made of stays as it is."""

    def __init__(self, of: Mapping[K, V]) -> None:
        self.now = of
        """With the changes; the same object if there were none."""
        self._own: dict[K, V] | None = None

    def put(self, key: K, value: V) -> None:
        """Set one element, new or old."""
        self._changing()[key] = value

    def drop(self, key: K) -> None:
        """Fine if it is not there."""
        self._changing().pop(key, None)

    def _changing(self) -> dict[K, V]:
        if self._own is None:
            self.now = self._own = dict(self.now)
        return self._own
