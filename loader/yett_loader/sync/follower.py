"""What this node has of the operator's, whichever connection brought it, and its way into force."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from yett_loader.errors import LoaderError
from yett_loader.sync.replica import Replica, from_disk
from yett_loader.sync.target import Target
from yett_policy.sync.once import Once

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Numbers:
    """What is counted here."""

    updates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    connects: int = 0
    failed_connects: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class Follower:
    """Shared by all connections of the loader."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.replica = from_disk(target.wanted) if target.wanted is not None else Replica()
        self.numbers = Numbers()
        self.once = Once()
        self.stale_since: float | None = time.time()
        """Seconds since the epoch from when on nobody told us of changes; None: somebody does."""
        self._fresh = False
        """A whole state has come."""
        self._turn = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self._listeners: set[Callable[[], None]] = set()
        target.listen(self._changed)

    async def take(self, replica: Replica) -> None:
        """Put it in force, as far as that goes: how far, `target.in_force` says.

        It goes on to the end also if the connection that brought it is lost meanwhile.
        """
        self._fresh = self._fresh or replica.epoch != self.replica.epoch
        self.replica = replica
        self.numbers.updates += 1
        task = asyncio.create_task(self._apply())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        await asyncio.shield(task)

    async def keep_trying(self, seconds: float) -> None:
        """For ever: what could not be put in force may fit later."""
        while True:
            await asyncio.sleep(seconds)
            if self.target.failed and self.replica.revision:
                await self._apply()
            if self._fresh:
                self._fresh = False
                _settle()

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._work, return_exceptions=True)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have it called whenever what is in force may have changed; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def _apply(self) -> None:
        async with self._turn:
            try:
                await self.target.apply(self.replica.wanted)
            except (LoaderError, OSError) as error:
                if self.once.first(("apply", str(error))):
                    log.error("revision %d is not in force: %s", self.replica.revision, error)  # noqa: TRY400 - one sentence
            self._changed()

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _settle() -> None:
    """Most of what there is now stays, and goes without the help of the collector of cycles: a look of it at the
    state of a cluster of 10,000 pods takes 80 ms, in which nothing else happens.
    """
    gc.collect()
    gc.freeze()
