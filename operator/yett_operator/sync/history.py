"""The last changes, so that a loader that is behind gets what it lacks, merged into one.

A slow loader costs a number, not a queue: it holds the revision it is at, the changes are
everybody's.  Who is further behind than the history reaches gets a snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from yett_operator.ports import Change, PlacedPod, SnapshotSource
from yett_policy.cluster import PodKey
from yett_policy.prefix import Packed
from yett_policy.service import Backends, Frontend

CHANGES = 4096
ROWS = 100_000
"""Of all changes kept."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different between two revisions for every node; None: gone."""

    ipcache: dict[Packed, int | None] = field(default_factory=dict)
    identities: dict[int, tuple[str, ...] | None] = field(default_factory=dict)
    pods: dict[PodKey, PlacedPod | None] = field(default_factory=dict)
    services: dict[Frontend, Backends | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ipcache) + len(self.identities) + len(self.pods) + len(self.services)


class History:
    """Listens to the source from its making on, until closed."""

    def __init__(self, source: SnapshotSource, listener: Callable[[Change], None]) -> None:
        """`listener` is called with each change after it has been taken."""
        self._changes: deque[Change] = deque()
        self._rows = 0
        self._listener = listener
        self.close = source.listen(self._add)
        """Listen no more."""

    def since(self, revision: int, now: int) -> Difference | None:
        """What became different between the two; None: it is not known any more."""
        if revision == now:
            return Difference()
        if not self._changes or self._changes[-1].revision != now or revision > now:
            return None
        if revision < self._changes[0].revision - 1:
            return None
        merged = Difference()
        first = len(self._changes) - (now - revision)
        for index in range(first, len(self._changes)):
            change = self._changes[index]
            merged.ipcache.update(change.ipcache)
            merged.identities.update(change.identities)
            merged.pods.update(change.pods)
            merged.services.update(change.services)
        return merged

    def _add(self, change: Change) -> None:
        if self._changes and change.revision != self._changes[-1].revision + 1:
            # A hole: what is older cannot be added up any more.
            self._changes.clear()
            self._rows = 0
        if change.revision > 1:  # everything there is is no change to anything
            self._changes.append(change)
            self._rows += _rows(change)
        while len(self._changes) > CHANGES or (self._rows > ROWS and len(self._changes) > 1):
            self._rows -= _rows(self._changes.popleft())
        self._listener(change)


def _rows(change: Change) -> int:
    return len(change.ipcache) + len(change.identities) + len(change.pods) + len(change.services)
