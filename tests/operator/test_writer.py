"""What is written of policies, and when: nothing new of what an operator merely does not know yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from yett_operator.compilation.batch import Batch, Judgement, Outcome
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.world import Taken
from yett_operator.events import Events
from yett_operator.kube.slim import SlimPod, SlimPolicy, SlimStatus
from yett_operator.ports import Ack, NodeInfo, PublishedDocument
from yett_operator.status import writer as module
from yett_operator.status.tracker import Tracker
from yett_operator.status.writer import FIRST_COMPILE, PATIENCE, StatusWriter
from yett_policy.cluster import Workload
from yett_policy.document import canonical

POLICY = SlimPolicy("L7Policy", "default", "web", "u-web", 1, b"{}")
KEY = ("default", "l7policy-web")
IDENTITY = 256
DOCUMENT = PublishedDocument(IDENTITY, "d1", (), b"{}")
POD = SlimPod("default/web-0", (), "n1", workload=Workload("default"))


class Api:
    """Keeps what is written; its watch tells of it at once, before the answer, as it may happen."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.status: SlimStatus | None = None
        self.summary: dict[str, Any] = {}
        self.watch: StatusWriter | None = None
        self.events: list[Any] = []

    async def apply(self, path: str, body: Any) -> Any:
        if path.endswith("/status") and body["kind"] == "PolicyStatus":
            ready = next(each for each in body["status"]["conditions"] if each["type"] == "Ready")
            self.writes.append(ready["reason"])
            self.status = SlimStatus(
                POLICY.uid, POLICY.source, 1, POLICY.generation, canonical(body["status"])
            )
            if self.watch is not None:
                self.watch.status_changed(KEY, self.status)
        elif path.endswith("/status"):
            self.summary = body["status"]
        return {"metadata": {"generation": 1}}

    async def post(self, _: str, body: Any) -> None:
        self.events.append(body)


class Replica:
    """An operator that begins with what an earlier one wrote, under a clock that the test moves."""

    def __init__(self, api: Api) -> None:
        self.api, self.now = api, 1000.0

        def clock() -> float:
            return self.now

        def changed(sources: Iterable[str]) -> None:
            self.writer.changed(sources)

        self.publisher = Publisher()
        policies = {POLICY.source: POLICY}
        self.tracker = Tracker(self.publisher, changed, clock)
        events = Events(api, "here", clock)  # type: ignore[arg-type]
        self.events = events
        self.writer = StatusWriter(api, self.tracker, policies, events, "yett-system", clock)  # type: ignore[arg-type]
        if api.status is not None:
            self.writer.statuses[KEY] = api.status
        api.watch = self.writer
        api.writes = []

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        self.tracker.lead()
        task = asyncio.create_task(self.writer.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def let(self, seconds: float) -> None:
        """That much time go by."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            await asyncio.sleep(0.003)

    def compile(self) -> None:
        outcome = Outcome(
            judgements={POLICY.source: Judgement()},
            documents={IDENTITY: DOCUMENT},
            subjects={IDENTITY: frozenset({POLICY.source})},
            pods={POD.key: IDENTITY},
        )
        pods = {POD.key: POD}
        change = self.publisher.publish_whole(outcome, pods)
        self.tracker.compiled(Taken(Batch(), pods, {POLICY.source: POLICY}), outcome, change)

    def connect(self) -> None:
        sink = self.tracker.nodes.via("")
        sink.connected("n1", NodeInfo())
        sink.acked("n1", Ack({IDENTITY: DOCUMENT.digest}, whole=True))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK", 0.001)


@pytest.fixture
async def written() -> Api:
    """A policy that is in force, and whose status says so."""
    api = Api()
    replica = Replica(api)
    async with replica.leading():
        replica.compile()
        replica.connect()
        await replica.let(5)
    assert api.writes[-1] == "Programmed"
    return api


async def test_a_restart_whose_first_compile_takes_long_writes_nothing(written: Api) -> None:
    replica = Replica(written)
    async with replica.leading():
        await replica.let(3 * PATIENCE)
        replica.compile()
        await replica.let(PATIENCE - 0.5)
        replica.connect()
        await replica.let(10)
    assert written.writes == []


async def test_a_node_that_does_not_come_back_is_missed_soon_after_it_could_have(written: Api) -> None:
    replica = Replica(written)
    async with replica.leading():
        await replica.let(10)
        replica.compile()
        await replica.let(PATIENCE - 0.5)
        assert written.writes == []
        await replica.let(1.5)
        assert written.writes == ["NoLoader"]


async def test_that_nothing_gets_compiled_is_said_in_the_end(written: Api) -> None:
    replica = Replica(written)
    async with replica.leading():
        await replica.let(FIRST_COMPILE - 1)
        assert written.writes == []
        await replica.let(3)
        assert written.writes == ["Pending"]


async def test_what_was_written_is_kept_once(written: Api) -> None:
    """Also if the watch tells of it before the API server has answered."""
    written.status = None
    replica = Replica(written)
    async with replica.leading():
        replica.compile()
        replica.connect()
        await replica.let(5)
    assert written.writes
    kept = replica.writer._written[POLICY.source].details
    assert json.loads(kept)["enforced"] == "1/1"
    assert kept is replica.writer.statuses[KEY].status


async def test_the_same_is_said_once_in_five_minutes() -> None:
    api = Api()
    replica = Replica(api)
    run = asyncio.create_task(replica.events.run())
    for pause in (0, 1, 299, 1, 301):  # said at 0, 300 and 602
        replica.now += pause
        replica.events.post(POLICY, "Warning", "PolicyDegraded", "node n1 is away")
    replica.events.post(POLICY, "Warning", "PolicyDegraded", "node n2 is away")
    await asyncio.sleep(0.01)
    run.cancel()
    notes = [each["note"] for each in api.events]
    assert notes == ["node n1 is away", "node n1 is away", "node n1 is away", "node n2 is away"]
