"""The consumer of the ring buffer: keeps the last records, hands new ones to who follows.

The programs wake nobody up; a timer reads: every 5 ms while somebody looks, else every 100 ms.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yett_loader.events import Record, clock_offset, decode, suppressed
from yett_loader.kernel import Map, RingBuffer
from yett_loader.names import Names

log = logging.getLogger(__name__)

KEPT = 4096
QUEUE = 8192
WATCHED_SECONDS = 0.005
IDLE_SECONDS = 0.1


class Follower:
    """A queue of records; what does not fit is counted in `lost`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Record] = asyncio.Queue(QUEUE)
        self.lost = 0

    def offer(self, record: Record) -> None:
        """Never waits."""
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self.lost += 1

    async def next(self) -> Record:
        """The next record."""
        return await self._queue.get()


class Recorder:
    """Reads `events` until cancelled."""

    def __init__(self, events: Map, names: Callable[[], Names]) -> None:
        self._ring = RingBuffer(events)
        self._names = names
        self._followers: set[Follower] = set()
        self.kept: deque[Record] = deque(maxlen=KEPT)
        self.seen = 0
        """Records read since the start."""
        self.suppressed = 0
        """Records that the programs left out: over the rate limit, or the ring was full."""
        self.watched = False
        """Whether somebody observes, so that records should come quickly."""

    async def run(self) -> None:
        """Consume for ever."""
        while True:
            self.poll()
            await asyncio.sleep(WATCHED_SECONDS if self.watched or self._followers else IDLE_SECONDS)

    def poll(self) -> None:
        """Consume what is there."""
        batch = self._ring.consume()
        if not batch:
            return
        offset, names = clock_offset(), self._names()
        for raw in batch:
            self.seen += 1
            try:
                record = decode(raw, names, offset)
            except (ValueError, KeyError, IndexError):
                log.exception("a record of %d bytes cannot be read", len(raw))
                continue
            self.suppressed += suppressed(raw)
            self.kept.append(record)
            for follower in self._followers:
                follower.offer(record)

    def add(self, record: Record) -> None:
        """A record that does not come from the kernel."""
        self.seen += 1
        self.kept.append(record)
        for follower in self._followers:
            follower.offer(record)

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Records from now on."""
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Give the ring up; the programs go on writing."""
        self._ring.close()
