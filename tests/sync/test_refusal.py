"""What Envoy says of rules that it refuses is what `kubectl get policystatus` shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from yett_loader.names import Names
from yett_loader.sidecar.counts import Counts
from yett_loader.sidecar.engine import Sidecar
from yett_loader.snapshot import Wanted
from yett_loader.sync.target import AgentTarget
from yett_operator.compilation.batch import Judgement
from yett_operator.ports import Failure
from yett_operator.status.rollup import NodeView, PolicyView, roll_up
from yett_operator.status.rollup import Wanted as WantedThere
from yett_policy.document import Direction, Document, Engine, Entry, Ruleset, Snapshot, Verdict
from yett_policy.http.rule import RulesetSpec
from yett_policy.reason import Reason

SENTENCE = "the sidecar refuses the rules, the old ones stay: regex '/(' missing )"


def ruleset(name: str) -> Ruleset:
    spec = RulesetSpec((), f"L7Policy/default/{name}:default-deny")
    return Ruleset(spec.digest, spec, Engine.SIDECAR, "engine: Sidecar")


def document(identity: int, rules: Ruleset) -> Document:
    entry = Entry(Direction.INGRESS, 0, 6, 80, 16, Verdict.REDIRECT, Reason.ALLOWED, 0, rules.digest)
    return Document.of(identity, (entry,), (rules.spec.default_rule,))


def agent(tmp_path: Any, refused: Ruleset, *others: Ruleset) -> Any:
    everything = (refused, *others)
    snapshot = Snapshot(
        documents=tuple(document(300 + n, item) for n, item in enumerate(everything)), rulesets=everything
    )
    sidecar = Sidecar(
        tmp_path,
        object(),
        tmp_path,
        lambda _: None,
        lambda *_: None,
        Counts(tmp_path / "counts.json", tmp_path / "allowed"),
    )
    sidecar.refused = {(refused.digest, 61_001): SENTENCE}
    return SimpleNamespace(
        wanted=Wanted(snapshot, ()),
        sidecar=sidecar,
        waiting={},
        error="",
        names=Names(listeners={61_001 + n: item.digest for n, item in enumerate(everything)}),
    )


def test_only_the_policy_at_fault_is_not_programmed_and_says_why(tmp_path: Any) -> None:
    target = AgentTarget(agent(tmp_path, ruleset("bad"), ruleset("good")))
    state = target.in_force()
    assert [(item.identity, item.reason, item.message) for item in state.failures] == [
        (300, "SidecarNACK", SENTENCE)
    ]
    view = NodeView(
        True,
        0.0,
        applied=state.applied,
        failures=tuple(Failure(i.identity, i.reason, i.message) for i in state.failures),
    )
    for identity, ready in ((300, False), (301, True)):
        wanted = {"node-1": {identity: WantedThere(state.applied[identity], 0.0)}}
        rolled = roll_up(PolicyView(1, Judgement(), wanted), {"node-1": view}, 100.0)
        assert rolled.ready is ready
        (programmed,) = [each for each in rolled.conditions if each.type == "Programmed"]
        assert programmed.reason == ("Programmed" if ready else "SidecarNACK")
        assert (SENTENCE in programmed.message) is not ready
