"""What a node has in force, in little room."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple


class _InForce(NamedTuple):
    identity: int
    digest: str


_in_force = lru_cache(maxsize=4096)(_InForce)
"""One object for equal ones: many nodes have the same documents in force."""


class Standing(Mapping[int, str]):
    """Identity -> digest of the document in force; for a hundred identities a dictionary takes five times the room."""

    __slots__ = ("_applied",)

    def __init__(self, applied: Mapping[int, str]) -> None:
        self._applied = tuple(_in_force(*each) for each in sorted(applied.items()))

    def __getitem__(self, identity: int) -> str:
        at = bisect_left(self._applied, (identity,))
        if at == len(self._applied) or self._applied[at].identity != identity:
            raise KeyError(identity)
        return self._applied[at].digest

    def __iter__(self) -> Iterator[int]:
        return (each.identity for each in self._applied)

    def __len__(self) -> int:
        return len(self._applied)
