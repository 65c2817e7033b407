"""What a node has in force, in little room."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from sys import intern


class Standing(Mapping[int, str]):
    """Identity -> digest of the document in force; for a hundred identities a dictionary takes four times the room."""

    __slots__ = ("_digests", "_identities")

    def __init__(self, applied: Mapping[int, str]) -> None:
        self._identities = array("q", sorted(applied))
        # One object for equal ones: many nodes have the same documents in force.
        self._digests = tuple(intern(applied[identity]) for identity in self._identities)

    def __getitem__(self, identity: int) -> str:
        at = bisect_left(self._identities, identity)
        if at == len(self._identities) or self._identities[at] != identity:
            raise KeyError(identity)
        return self._digests[at]

    def __iter__(self) -> Iterator[int]:
        return iter(self._identities)

    def __len__(self) -> int:
        return len(self._identities)
