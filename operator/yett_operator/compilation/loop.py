"""Compiling for ever: changes in, what is published out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from yett_operator.compilation.batch import Batch, Judgement, Outcome
from yett_operator.compilation.process import CompilerDied, CompilerProcess
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.world import Taken, World
from yett_operator.kube.slim import SlimPod, SlimPolicy
from yett_operator.memory import BIG, give_back
from yett_operator.metrics import COMPILE_FAILURES, COMPILE_SECONDS
from yett_operator.ports import Change
from yett_policy.cluster import PodKey
from yett_policy.identity import Labels

log = logging.getLogger(__name__)

SETTLE = 0.005
"""Seconds to wait for what comes together: a rollout, `kubectl apply -f dir/`.  The first change after a
quiet time does not wait.
"""
_QUIET = 0.02
"""Seconds without a batch after which it is quiet."""
_RETRY = 2.0
"""Seconds between attempts after a failure that is not the world's."""


class Allocator(Protocol):
    """Who may give numbers."""

    def want(self, missing: frozenset[Labels]) -> None:
        """These label sets need a number; the whole list, each time."""

    def forgotten(self, labels: frozenset[Labels]) -> None:
        """The compiler has given these up."""


Done = Callable[[Taken, Outcome, Change | None], None]


class CompileLoop:
    """Takes what is new as often as the compiler is free."""

    def __init__(
        self,
        world: World,
        publisher: Publisher,
        process: CompilerProcess,
        allocator: Allocator,
        done: Done,
        *,
        settle: float = SETTLE,
    ) -> None:
        self._world = world
        self._publisher = publisher
        self._process = process
        self._allocator = allocator
        self._done = done
        self._settle = settle
        self._done_at = 0.0
        self._told = False
        """The compiler knows the world as of the last batch."""
        self._published = False
        """And what it said since it was started is published."""
        self._big = False
        """The last batch was."""
        self._missing: frozenset[Labels] = frozenset()
        """Label sets that the last batch lacked the numbers of."""
        self._open: list[tuple[Taken, Outcome]] = []
        """Batches that the compiler took in and has not worked out yet."""
        self.failure = ""
        """Why what is published is out of date; empty if it is not."""

    async def run(self) -> None:
        """For ever; call it when everything was seen once."""
        self._world.changed.set()
        while True:
            await self._world.changed.wait()
            if time.monotonic() - self._done_at < _QUIET and not self._numbered():
                await asyncio.sleep(self._settle)
            try:
                await self.once()
                self.failure = ""
                self._done_at = time.monotonic()
                await self._give_back()
            except CompilerDied as error:
                log.error("%s; starting anew", error)  # noqa: TRY400 - nothing of interest in the trace
                await self._start_anew(str(error))
            except Exception as error:
                log.exception("cannot compile the policies; what is published stays in force")
                await self._start_anew(f"cannot compile the policies: {error!r}")

    async def once(self) -> None:
        """One batch."""
        taken = self._world.take() if self._told else self._world.take_all()
        if self._told and not taken.batch:
            return
        outcome = await self._process.step(taken.batch)
        self._told = True
        COMPILE_SECONDS.observe(outcome.seconds)
        self._allocator.forgotten(outcome.forgotten)
        self._allocator.want(outcome.missing)
        self._missing = outcome.missing
        self._open.append((taken, outcome))
        if outcome.stalled:  # until a number that is missing comes, as a change of the world
            return
        taken, outcome = _together(self._open)
        self._open = []
        self._big = len(outcome.pods) >= BIG or not self._published  # few pods may have many documents
        if self._published:
            change = self._publisher.publish(outcome, taken.pods)
        else:
            change = self._publisher.publish_whole(outcome, taken.pods)
            self._published = True
        self._done(taken, outcome, change)

    def _numbered(self) -> bool:
        """Whether all of those have come: they were waited for long enough."""
        return bool(self._missing) and self._missing <= self._world.numbers.keys()

    async def _give_back(self) -> None:
        if self._big:
            self._big = False
            give_back()  # at once: loaders that come now take free memory for as long as they stay
            await self._process.give_back()

    def rebuild(self) -> None:
        """Begin with a compiler that knows nothing; what is published stays until it is done."""
        self._process.close()
        self._told, self._published, self._open = False, False, []
        self._world.changed.set()

    async def _start_anew(self, why: str) -> None:
        COMPILE_FAILURES.inc()
        self.failure = why
        self.rebuild()
        await asyncio.sleep(_RETRY)


def _together(batches: list[tuple[Taken, Outcome]]) -> tuple[Taken, Outcome]:
    """Batches as one; only the last outcome has more than judgements."""
    pods: dict[PodKey, SlimPod | None] = {}
    policies: dict[str, SlimPolicy | None] = {}
    judgements: dict[str, Judgement] = {}
    for taken, outcome in batches:
        pods |= taken.pods
        policies |= taken.policies
        for source, policy in taken.policies.items():
            if policy is None:
                judgements.pop(source, None)
        judgements |= outcome.judgements
    return Taken(Batch(), pods, policies), replace(batches[-1][1], judgements=judgements)
