"""Which differences of a status wait for others: none that tells of a node that lacks something, or of the policy itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yett_operator.compilation.batch import Judgement
from yett_operator.ports import Failure
from yett_operator.status import objects
from yett_operator.status.delay import COUNTERS, PLACES, delay
from yett_operator.status.rollup import NodeView, PolicyView, Wanted, roll_up

NOW = 1000.0
ACCEPTED = Judgement()
WRITTEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Facts:
    """What a status is made of."""

    nodes: tuple[str, ...] = ("n1", "n2")
    lacking: tuple[str, ...] = ()
    """Nodes that have an older document."""
    since: float = NOW
    failures: Mapping[str, Failure] | None = None
    judgement: Judgement | None = ACCEPTED
    generation: int = 3
    conflict: str = ""
    pods: int = 2
    denied: int = 0
    digest: str = "d1"
    engine: str = "kernel"

    def status(self, before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        wanted = {node: {256: Wanted("new", self.since)} for node in self.nodes}
        has = {
            node: NodeView(
                connected=True,
                changed_at=0,
                applied={256: "old" if node in self.lacking else "new"},
                failures=tuple(filter(None, [(self.failures or {}).get(node)])),
            )
            for node in self.nodes
        }
        return objects.details(
            roll_up(PolicyView(self.generation, self.judgement, wanted, self.conflict), has, NOW),
            generation=self.generation,
            digest=self.digest,
            engine=(self.engine, ""),
            pods=self.pods,
            requests={"allowed": 0, "denied": self.denied, "audited": 0},
            last_accepted=None,
            before=before,
            now=now,
        )


CALM = Facts()
FULL = {"n1": Failure(256, "MapFull", "cannot place 9 entries")}
FAILED = replace(CALM, failures=FULL)
REFUSED = Judgement(reason="Invalid", message="spec: no")
CASES: dict[str, tuple[Facts, Facts, float]] = {
    "requests": (CALM, replace(CALM, denied=7), COUNTERS),
    "pods where there were some": (CALM, replace(CALM, pods=3), COUNTERS),
    "a peer": (CALM, replace(CALM, digest="d2"), COUNTERS),
    "a node more": (CALM, replace(CALM, nodes=("n1", "n2", "n3"), pods=3, denied=1), PLACES),
    "a node fewer": (CALM, replace(CALM, nodes=("n1",), pods=1, digest="d2"), PLACES),
    "no node any more": (CALM, replace(CALM, nodes=(), pods=0), PLACES),
    "requests while a node fails": (FAILED, replace(FAILED, denied=7), COUNTERS),
    "a node more that is at it": (CALM, replace(CALM, nodes=("n1", "n2", "n3"), lacking=("n3",)), 0),
    "a node lags": (CALM, replace(CALM, lacking=("n2",), since=NOW - 60), 0),
    "a node fails": (CALM, FAILED, 0),
    "it fails no more": (FAILED, CALM, 0),
    "it fails for another reason": (
        FAILED,
        replace(CALM, failures={"n1": Failure(0, "KernelError", "no")}),
        0,
    ),
    "a node more while one fails": (FAILED, replace(FAILED, nodes=("n1", "n2", "n3")), 0),
    "all nodes are at it": (CALM, replace(CALM, lacking=("n1", "n2")), 0),
    "another version": (CALM, replace(CALM, generation=4), 0),
    "not judged yet": (CALM, replace(CALM, judgement=None), 0),
    "refused": (CALM, replace(CALM, judgement=REFUSED), 0),
    "something else to say of it": (CALM, replace(CALM, judgement=Judgement(message="no Secret")), 0),
    "it gives way": (CALM, replace(CALM, conflict="an older policy names the other engine"), 0),
    "another engine": (CALM, replace(CALM, engine="sidecar"), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_says_nothing_of_a_policy_that_is_in_force_may_wait(case: str) -> None:
    old, new, wanted = CASES[case]
    before = old.status({}, WRITTEN_AT)
    after = new.status(before, WRITTEN_AT + timedelta(hours=1))
    assert objects.without_times(after) != objects.without_times(before)
    assert delay(after, before) == wanted


def test_the_first_status_does_not_wait() -> None:
    assert delay(CALM.status({}, WRITTEN_AT), {}) == 0
