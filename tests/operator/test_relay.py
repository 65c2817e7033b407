"""What one replica tells another, and whom it believes."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_operator.leader import Election
from yett_operator.ports import Ack, Failure, NodeInfo
from yett_operator.relay import RelaySink, ack_message, connected_message, password, take
from yett_operator.status.nodes import Nodes
from yett_operator.webhook.certificate import renewed


class Dirt:
    def __init__(self) -> None:
        self.seen: set[object] = set()

    def identities(self, numbers: Iterable[int]) -> None:
        self.seen |= set(numbers)

    def node(self, name: str) -> None:
        self.seen.add(name)

    def policies(self, sources: Iterable[str]) -> None:
        self.seen |= set(sources)


def nodes() -> Nodes:
    return Nodes(Dirt(), clock=lambda: 1.0)


acks = st.builds(
    Ack,
    applied=st.dictionaries(st.integers(1, 5), st.sampled_from("abc")),
    dropped=st.frozensets(st.integers(1, 5)),
    whole=st.booleans(),
    failures=st.lists(st.builds(Failure, st.integers(0, 5), st.text(), st.text())).map(tuple),
)


@given(st.lists(acks, max_size=5), st.integers(0, 5))
def test_a_leader_knows_what_the_other_replica_knows_whenever_it_is_told(
    history: list[Ack], moment: int
) -> None:
    here, there = nodes(), nodes()
    sink = RelaySink(here.via(""))
    relayed = there.via("relay-1")
    sink.connected("n1", NodeInfo("v", "k"))
    for i, ack in enumerate(history):
        sink.acked("n1", ack)
        if i >= moment:
            take(json.loads(json.dumps(ack_message("n1", ack))), relayed)
        elif i == moment - 1:
            for message in sink.everything(here):
                take(json.loads(json.dumps(message)), relayed)
    if not 0 < moment <= len(history):
        for message in sink.everything(here):
            take(json.loads(json.dumps(message)), relayed)
    assert there.states["n1"].applied == here.states["n1"].applied
    assert there.states["n1"].failures == here.states["n1"].failures
    assert there.states["n1"].info == NodeInfo("v", "k")


def test_a_loader_that_changed_replicas_is_not_lost_by_the_word_of_the_old_one() -> None:
    leader = nodes()
    old, new = leader.via("relay-1"), leader.via("")
    old.connected("n1", NodeInfo())
    old.acked("n1", Ack({256: "a"}, whole=True))
    new.connected("n1", NodeInfo())
    old.acked("n1", Ack({256: "stale"}))
    old.disconnected("n1")
    assert leader.states["n1"].connected
    assert leader.states["n1"].applied == {256: "a"}
    new.disconnected("n1")
    assert not leader.states["n1"].connected


def test_a_replica_that_was_started_again_does_not_take_its_former_self_for_another_leader() -> None:
    async def lead() -> None:
        pass

    election = Election(None, "yett-system", "lease", "pod_2", lead, address="10.0.0.1:9443")  # type: ignore[arg-type]
    for holder, address in (("", ""), ("pod_1", "10.0.0.1:9443")):
        election._saw(holder, "then", address)
        assert election.other_leader == ""
    election._saw("other_1", "now", "10.0.0.2:9443")
    assert election.other_leader == "10.0.0.2:9443"
    election.leading = True
    assert election.other_leader == ""


def test_counters_in_parts_are_not_counted_twice() -> None:
    it = nodes()
    sink = it.via("")
    sink.counted("n1", {"L7Policy/a/p:ingress[0]": 5})
    sink.counted("n1", {"L7Policy/a/q:ingress[0]": 1})
    sink.counted("n1", {"L7Policy/a/p:ingress[0]": 6})
    assert it.hits.of("L7Policy/a/p").allowed == 6


@pytest.mark.parametrize(
    "message",
    [
        {"type": "acked", "node": "n", "applied": [], "dropped": [], "whole": True, "failures": []},
        {"type": "acked", "node": "n", "applied": {"x": "a"}, "dropped": [], "whole": True, "failures": []},
        {"type": "shutdown", "node": "n"},
        {"type": "connected"},
    ],
)
def test_a_message_that_is_none_is_refused(message: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        take(message, nodes().via("relay-1"))


def test_the_password_is_of_the_ca_and_survives_a_renewed_certificate() -> None:
    bundle = renewed(None, ["a"])
    other_names = renewed(bundle, ["a", "b"])
    assert password(bundle) == password(other_names)
    assert password(bundle) != password(renewed(None, ["a"]))
    assert connected_message("n", NodeInfo("1", "2"))["version"] == "1"
