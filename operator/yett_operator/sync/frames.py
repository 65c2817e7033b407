"""Frames that go to many loaders, made once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from yett_operator.ports import NodeSnapshot, PlacedPod
from yett_operator.sync.history import Difference, History
from yett_policy.cluster import PodKey, pod_name
from yett_policy.prefix import Packed, packed_text
from yett_policy.service import Backends, Frontend
from yett_policy.sync import encode

T = TypeVar("T")

ROWS = 512
"""In one part: some 10 KB of JSON, deflated half of that, so that neither reading nor sending one stops anybody
for long."""
SMALL = 4096
"""Rows of a snapshot that is quickly made."""
STALE_SHARE = 4
"""A snapshot kept is topped up with what changed since, until that is a quarter of it."""
KEPT = 5.0
"""Seconds for which a snapshot is kept after it was last asked for: loaders come together, or one by one."""

PodValue = tuple[int, tuple[str, ...]]


class Frames:
    """Of one source."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._deltas: dict[int, tuple[bytes, ...] | None] = {}
        self._deltas_now = 0
        self._snapshot: asyncio.Task[tuple[bytes, ...]] | None = None
        self._snapshot_at = 0
        self._snapshot_rows = 0
        self._forgetting: asyncio.TimerHandle | None = None

    def delta(self, base: int, now: int) -> tuple[bytes, ...] | None:
        """The cluster's parts from one revision to another; None: the history is too short."""
        if self._deltas_now != now:
            self._deltas, self._deltas_now = {}, now
        if base not in self._deltas:
            difference = self._history.since(base, now)
            self._deltas[base] = None if difference is None else tuple(_changed(difference))
        return self._deltas[base]

    def snapshot(self, node: NodeSnapshot) -> tuple[asyncio.Task[tuple[bytes, ...]], int]:
        """The cluster's parts, all of them, at a revision that `delta` leads on from.

        They are made in a thread; the task is shared, and must not be cancelled.
        """
        if self._snapshot is None or not self._usable(node.revision):
            # Read now, before anybody changes them; a copy of a dictionary is quickly made, and no object for
            # each of its items, which would leave holes among what loaders that come meanwhile need.
            ipcache, identities = dict(node.ipcache), dict(node.identities)
            pods, services = dict(node.pods), dict(node.services)
            self._snapshot = asyncio.create_task(
                asyncio.to_thread(lambda: tuple(_whole(ipcache, identities, pods, services)))
            )
            self._snapshot_at = node.revision
            self._snapshot_rows = len(ipcache) + len(identities) + len(pods) + len(services)
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(KEPT, self._forget)
        return self._snapshot, self._snapshot_at

    def _forget(self) -> None:
        self._snapshot = None

    def _usable(self, now: int) -> bool:
        if self._snapshot is not None and self._snapshot.done() and self._snapshot.exception():
            return False
        difference = self._history.since(self._snapshot_at, now)
        return difference is not None and len(difference) * STALE_SHARE <= max(SMALL, self._snapshot_rows)


def _changed(difference: Difference) -> Iterator[bytes]:
    for rows in _pieces(difference.ipcache.items()):
        yield _addresses(rows)
    for named in _pieces(difference.identities.items()):
        yield encode.identities(named)
    for placed in _pieces(difference.pods.items()):
        yield encode.pods([(pod_name(key), _pod(pod)) for key, pod in placed])
    yield from map(encode.services, _pieces(difference.services.items()))


def _whole(
    ipcache: Mapping[Packed, int],
    identities: Mapping[int, tuple[str, ...]],
    pods: Mapping[PodKey, PlacedPod],
    services: Mapping[Frontend, Backends],
) -> Iterator[bytes]:
    yield from map(_addresses, _pieces(ipcache.items()))
    yield from map(encode.identities, _pieces(identities.items()))
    for placed in _pieces(pods.items()):
        yield encode.pods([(pod_name(key), _pod(pod)) for key, pod in placed])
    yield from map(encode.services, _pieces(services.items()))


def _addresses(rows: Iterable[tuple[Packed, int | None]]) -> bytes:
    return encode.addresses((packed_text(prefix), number) for prefix, number in rows)


def _pod(pod: PlacedPod | None) -> PodValue | None:
    return None if pod is None else (pod.identity, pod.addresses)


def _pieces(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while piece := list(islice(rest, ROWS)):
        yield piece
