"""Pods that come and go all the time, and how often statuses are written meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.control.server import Writer
from bench.control.shape import Json

_DEPTH = 200
"""Pods that are there at a time."""


@dataclass(frozen=True, slots=True)
class Writes:
    """Of statuses, as the API server's watchers saw them."""

    total: int
    policies: int
    """Of which policies' statuses were written."""
    most: int
    """Of one policy."""


class StatusWatch:
    """Counts changes of PolicyStatus objects."""

    def __init__(self, write: Writer) -> None:
        self._write = write
        self._seen: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Callable[[], Writes]]:
        """From now on; call what is given for the counts so far."""
        path = "/apis/yett.dev/v1alpha1/policystatuses"
        version = (await self._write.kube.get(path, limit="1"))["metadata"]["resourceVersion"]
        task = asyncio.create_task(self._watch(path, version))
        try:
            yield self._writes
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, path: str, version: str) -> None:
        async for event in self._write.kube.watch(path, resourceVersion=version):
            if event["type"] in {"ADDED", "MODIFIED"}:
                metadata = event["object"]["metadata"]
                self._seen[f"{metadata['namespace']}/{metadata['name']}"] += 1

    def _writes(self) -> Writes:
        counts = self._seen.values()
        return Writes(sum(counts), len(counts), max(counts, default=0))


async def churn(write: Writer, make: Callable[[], Json], rate: int, seconds: int) -> dict[str, Any]:
    """`rate` pods a second come and as many go; how it went."""
    alive: deque[Json] = deque()
    begin = time.monotonic()
    pending: set[asyncio.Task[Any]] = set()
    came = gone = 0
    for number in range(rate * seconds):
        due = begin + number / rate
        wait = due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        pod = make()
        alive.append(pod)
        _later(pending, write.create(pod))
        came += 1
        if len(alive) > _DEPTH:
            _later(pending, write.delete(alive.popleft()))
            gone += 1
    await asyncio.gather(*pending)
    took = time.monotonic() - begin
    return {"came": came, "went": gone, "seconds": round(took, 1), "rate": round(came / took, 1)}


def _later(pending: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.create_task(work)
    pending.add(task)
    task.add_done_callback(pending.discard)
