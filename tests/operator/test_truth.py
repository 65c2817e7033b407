"""A status is true at every moment, whatever happens to nodes, policies and replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from yett_operator.compilation.batch import Batch, Judgement, Outcome
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.world import Taken
from yett_operator.kube.slim import SlimPod, SlimPolicy
from yett_operator.ports import Ack, Failure, NodeInfo, PublishedDocument
from yett_operator.status import delay, writer
from yett_operator.status.rollup import AWAY, LAG, RollUp, roll_up
from yett_operator.status.tracker import Tracker
from yett_operator.sync.settings import Settings
from yett_policy.cluster import Workload

NODES = ("n1", "n2", "n3")
IDENTITIES = (256, 257)
FULL = Failure(0, "MapFull", "cannot place 9 entries: map policy holds 8")


def document(identity: int, version: int) -> PublishedDocument:
    return PublishedDocument(identity, f"{identity}-{version}", (), b"{}")


@dataclass
class Loader:
    """What a node has in force, and which replica it talks to."""

    replica: str | None = None
    applied: dict[int, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


class Cluster:
    """Two replicas' worth of the operator's own parts, under a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.publisher = Publisher()
        self.tracker = Tracker(self.publisher, lambda _: None, lambda: self.now)
        self.loaders = {name: Loader() for name in NODES}
        self.policies: dict[str, SlimPolicy] = {}
        self.judged: dict[str, int] = {}
        self.version = 0
        self.subjects: dict[int, frozenset[str]] = {}
        self.pods: dict[tuple[str, str], SlimPod] = {}
        self._publish({})

    # -- the operator's side

    def _publish(self, seen: Mapping[tuple[str, str], SlimPod | None], **changes: Any) -> None:
        policies = changes.pop("policies", {})
        outcome = Outcome(**changes)
        whole = not self.publisher.revision
        change = (self.publisher.publish_whole if whole else self.publisher.publish)(outcome, seen)
        self.tracker.compiled(Taken(Batch(), seen, policies), outcome, change)

    def change_policy(self, name: str) -> None:
        """It is stored and seen, and not compiled yet."""
        source = f"L7Policy/default/{name}"
        generation = self.policies[source].generation + 1 if source in self.policies else 1
        self.policies[source] = SlimPolicy("L7Policy", "default", name, f"u-{name}", generation, b"")

    def compile(self) -> None:
        """Everything that was seen is judged and published: other documents for whom it concerns."""
        self.version += 1
        taken = {s: p for s, p in self.policies.items() if self.judged.get(s) != p.generation}
        if not taken:
            return
        self.judged |= {source: policy.generation for source, policy in taken.items()}
        # Policy `a` selects both identities, `b` one.
        selecting = {
            number: {s for s in self.judged if number == 256 or s.endswith("a")} for number in IDENTITIES
        }
        concerned = [n for n in IDENTITIES if selecting[n] & taken.keys()]
        self.subjects |= {n: frozenset(selecting[n]) for n in IDENTITIES}
        self._publish(
            {},
            policies=taken,
            judgements=dict.fromkeys(taken, Judgement()),
            documents={n: document(n, self.version) for n in concerned},
            subjects=dict(self.subjects),
        )

    def place(self, identity: int, node: str) -> None:
        """A pod of the identity comes to the node, or its only one there leaves."""
        key = f"default/{identity}-{node}"
        pod = None if key in self.pods else SlimPod(key, (), node, workload=Workload("default"))
        documents = {} if identity in self.publisher.documents else {identity: document(identity, 0)}
        numbers = {key: None if pod is None else identity}
        if pod is None:
            del self.pods[key]
        else:
            self.pods[key] = pod
        self._publish({key: pod}, pods=numbers, documents=documents)

    def change_leader(self) -> None:
        """Another replica leads: it compiled the same, and has heard of no node."""
        for loader in self.loaders.values():
            loader.replica = None
        judged = self.tracker.judged
        self.tracker = Tracker(self.publisher, lambda _: None, lambda: self.now)
        self.tracker.lead()
        policies = {source: each.policy for source, each in judged.items()}
        outcome = Outcome(dict.fromkeys(policies, Judgement()), subjects=dict(self.subjects))
        self.tracker.compiled(Taken(Batch(), {}, policies), outcome, None)

    # -- the nodes' side

    def connect(self, node: str, replica: str = "") -> None:
        loader = self.loaders[node]
        loader.replica = replica
        sink = self.tracker.nodes.via(replica)
        sink.connected(node, NodeInfo())
        sink.acked(node, Ack(dict(loader.applied), whole=True, failures=loader.failures))

    def disconnect(self, node: str) -> None:
        replica, self.loaders[node].replica = self.loaders[node].replica, None
        if replica is not None:
            self.tracker.nodes.via(replica).disconnected(node)

    def take(self, node: str, *failures: Failure) -> None:
        """The node puts in force what it must, or fails and keeps what it had; and says so."""
        loader = self.loaders[node]
        if loader.replica is None:
            return
        if not failures:
            here = {pod.identity for pod in self.publisher.by_node.get(node, ())}
            loader.applied = {number: self.publisher.documents[number].digest for number in here}
        loader.failures = failures
        ack = Ack(dict(loader.applied), whole=True, failures=failures)
        self.tracker.nodes.via(loader.replica).acked(node, ack)

    def fall_silent_elsewhere(self, node: str) -> None:
        """A replica that the node has left says, late, that it is gone."""
        self.tracker.nodes.via("left").disconnected(node)

    # -- what is said

    def status(self, source: str, now: float | None = None) -> RollUp:
        view = self.tracker.view(self.policies[source])
        return roll_up(view, self.tracker.node_views(view.nodes), self.now if now is None else now)

    def has(self, node: str, source: str) -> bool:
        """The truth: connected, and in force there is what is wanted for this policy's pods."""
        loader = self.loaders[node]
        wanted = {
            pod.identity: self.publisher.documents[pod.identity].digest
            for pod in self.publisher.by_node.get(node, ())
            if source in self.subjects.get(pod.identity, ())
        }
        return (
            loader.replica is not None
            and not any(each.identity in {0, *wanted} for each in loader.failures)
            and all(loader.applied.get(number) == digest for number, digest in wanted.items())
        )

    def needing(self, source: str) -> set[str]:
        return {
            node
            for number, sources in self.subjects.items()
            if source in sources
            for node in self.publisher.nodes_of.get(number, ())
        }


names = st.sampled_from(NODES)
steps = st.one_of(
    st.tuples(st.just("policy"), st.sampled_from("ab")),
    st.tuples(st.just("compile")),
    st.tuples(st.just("compile")),
    st.tuples(st.just("pod"), st.sampled_from(IDENTITIES), names),
    st.tuples(st.just("connect"), names, st.sampled_from(["", "relay-1"])),
    st.tuples(st.just("connect"), names, st.sampled_from(["", "relay-1"])),
    st.tuples(st.just("disconnect"), names),
    st.tuples(st.just("take"), names),
    st.tuples(st.just("take"), names),
    st.tuples(st.just("take"), names),
    st.tuples(st.just("fail"), names, st.sampled_from([0, *IDENTITIES])),
    st.tuples(st.just("late word"), names),
    st.tuples(st.just("leader")),
    st.tuples(st.just("time"), st.sampled_from([0.01, 0.5, AWAY, LAG, 11.0])),
)


def play(cluster: Cluster, step: tuple[Any, ...]) -> None:
    match step:
        case ("policy", name):
            cluster.change_policy(name)
        case ("compile",):
            cluster.compile()
        case ("pod", identity, node):
            cluster.place(identity, node)
        case ("connect", node, replica):
            cluster.connect(node, replica)
        case ("disconnect", node):
            cluster.disconnect(node)
        case ("take", node):
            cluster.take(node)
        case ("fail", node, identity):
            cluster.take(node, replace(FULL, identity=identity))
        case ("late word", node):
            cluster.fall_silent_elsewhere(node)
        case ("leader",):
            cluster.change_leader()
        case ("time", seconds):
            cluster.now += seconds


@settings(max_examples=examples(400), suppress_health_check=[HealthCheck.too_slow])
@given(st.booleans(), st.lists(steps, min_size=5, max_size=40))
def test_no_history_makes_a_status_claim_what_is_not_in_force(
    quiet: bool, history: list[tuple[Any, ...]]
) -> None:
    cluster = calm() if quiet else Cluster()
    for step in history:
        play(cluster, step)
        for source, policy in cluster.policies.items():
            roll, needing = cluster.status(source), cluster.needing(source)
            true = {node for node in needing if cluster.has(node, source)}
            assert roll.desired == len(needing)
            assert roll.enforced == len(true), "exactly those that have it: none more, none less"
            assert {each.node for each in roll.failed} <= needing - true
            judged = cluster.judged.get(source) == policy.generation
            assert roll.ready is (judged and true == needing)
            if not judged:
                assert {each.status for each in roll.conditions} == {"Unknown"}
            late = cluster.status(source, cluster.now + max(LAG, AWAY) + 0.001)
            assert len(late.failed) == len(needing - true), "by then each that lacks it is named"
            if roll.again_at is not None:
                just_before = cluster.status(source, roll.again_at - 1e-6)
                assert just_before.conditions == roll.conditions, "nothing differs before it says so"


SOURCE = "L7Policy/default/a"


def calm() -> Cluster:
    """Three nodes, each with a pod, all in force."""
    cluster = Cluster()
    for node in NODES:
        cluster.place(256, node)
    cluster.change_policy("a")
    cluster.compile()
    for node in NODES:
        cluster.connect(node)
        cluster.take(node)
    cluster.now += 60
    assert cluster.status(SOURCE).ready
    return cluster


def changed(cluster: Cluster) -> None:
    """Another version, which n2 and n3 take at once."""
    cluster.change_policy("a")
    cluster.compile()
    cluster.take("n2")
    cluster.take("n3")


def stale(cluster: Cluster) -> None:
    """n1 comes back with documents of long ago, from its disk."""
    changed(cluster)
    cluster.disconnect("n1")
    cluster.connect("n1", "relay-1")


def other_leader(cluster: Cluster) -> None:
    """All but n1 find their way to another replica."""
    cluster.change_leader()
    cluster.connect("n2", "relay-1")
    cluster.connect("n3")


EVENTS: list[tuple[str, Callable[[Cluster], None], str]] = [
    ("failed", lambda cluster: cluster.take("n1", FULL), "MapFull"),
    ("lags", changed, "Lagging"),
    ("gone", lambda cluster: cluster.disconnect("n1"), "Disconnected"),
    ("has a stale document", stale, "Lagging"),
    (
        "has a loader of another schema",  # its stream is ended before it says anything
        lambda cluster: cluster.disconnect("n1"),
        "Disconnected",
    ),
    ("did not come to the new leader", other_leader, "NoLoader"),
]


@pytest.mark.parametrize(("event", "reason"), [each[1:] for each in EVENTS], ids=[each[0] for each in EVENTS])
def test_a_node_that_does_not_have_it_is_named_in_time(event: Callable[[Cluster], None], reason: str) -> None:
    cluster = calm()
    event(cluster)
    begin, roll = cluster.now, cluster.status(SOURCE)
    assert not roll.ready, "not for a moment"
    while not roll.failed:
        assert roll.again_at is not None
        cluster.now = roll.again_at
        roll = cluster.status(SOURCE)
    assert [(each.node, each.reason) for each in roll.failed] == [("n1", reason)]
    assert (roll.enforced, roll.desired) == (2, 3)
    assert cluster.now - begin <= LAG


def test_what_every_part_takes_at_most_adds_up_to_less_than_five_seconds() -> None:
    sync = Settings()
    silence = sync.silent + sync.ping
    assert silence <= 3
    write = writer.SETTLE + writer.INTERVAL
    assert max(silence, sync.grace) + AWAY + writer.INTERVAL < 5, "gone"
    assert LAG + write < 5, "lags"
    assert delay.PLACES + write < 5, "in force on other nodes"
    assert writer.PATIENCE + writer.INTERVAL < 5, "not back after a change of leaders"


def test_a_replica_that_restarts_is_no_failure_while_its_nodes_find_another() -> None:
    cluster = calm()
    for node in NODES:
        cluster.disconnect(node)
    cluster.now += AWAY / 2
    for node in NODES:
        cluster.connect(node, "relay-1")
        cluster.fall_silent_elsewhere(node)
    assert cluster.status(SOURCE).ready
