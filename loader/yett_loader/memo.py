"""PURE: what was made of values that never change, so that of the next ones only what is new is made.

Who brings a snapshot takes everything that did not change from the one before, so what a value is can be
told by which object it is: comparing two, or hashing one, costs as much as making it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """What `make` makes of each object, for as long as it is asked for."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._made: dict[int, tuple[K, V]] = {}
        """By id, with the object: nothing else gets its id meanwhile."""

    def of(self, keys: Iterable[K]) -> list[V]:
        """In their order.  What is not among `keys` is forgotten."""
        found = [(key, self._made.get(id(key)) or (key, self._make(key))) for key in keys]
        self._made = {id(key): made for key, made in found}
        return [value for _, (_, value) in found]
