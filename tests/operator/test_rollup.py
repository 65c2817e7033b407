"""From what nodes have to conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_operator.compilation.batch import Judgement
from yett_operator.ports import Failure
from yett_operator.status.rollup import (
    AWAY,
    LAG,
    Condition,
    NodeView,
    PolicyView,
    RollUp,
    Wanted,
    roll_up,
    shown,
)

NOW = 1000.0
ACCEPTED = Judgement()


def policy(
    nodes: Mapping[str, Mapping[int, str]],
    judgement: Judgement | None = ACCEPTED,
    since: float = NOW,
) -> PolicyView:
    wanted = {
        node: {identity: Wanted(digest, since) for identity, digest in documents.items()}
        for node, documents in nodes.items()
    }
    return PolicyView(3, judgement, wanted)


def node(applied: Mapping[int, str], *failures: Failure, connected: bool = True, at: float = 0) -> NodeView:
    return NodeView(connected, at, applied=applied, failures=failures)


def condition(roll: RollUp, name: str) -> Condition:
    return next(each for each in roll.conditions if each.type == name)


def test_a_policy_in_force_on_every_node_is_ready() -> None:
    roll = roll_up(
        policy({"n1": {256: "a"}, "n2": {256: "a", 257: "b"}}),
        {"n1": node({256: "a"}), "n2": node({256: "a", 257: "b", 258: "c"})},
        NOW,
    )
    assert (roll.desired, roll.enforced, roll.failed) == (2, 2, ())
    assert [(each.type, each.status, each.reason) for each in roll.conditions] == [
        ("Accepted", "True", "Accepted"),
        ("Programmed", "True", "Programmed"),
        ("Ready", "True", "Programmed"),
    ]
    assert roll.again_at is None
    assert roll.ready


def test_a_node_with_an_old_document_is_awaited_first_and_then_failed() -> None:
    view = policy({"n1": {256: "new"}})
    nodes = {"n1": node({256: "old"})}
    waiting = roll_up(view, nodes, NOW + 0.1)
    assert waiting.failed == ()
    assert waiting.again_at == NOW + LAG
    assert condition(waiting, "Programmed").reason == "Reconciling"
    assert condition(waiting, "Ready").status == "False"
    late = roll_up(view, nodes, NOW + LAG)
    assert late.failed[0].reason == "Lagging"
    assert condition(late, "Programmed").status == "False"


def test_one_failed_node_of_two_makes_the_policy_partially_programmed_and_not_ready() -> None:
    full = Failure(256, "MapFull", "cannot place 70000 entries: map policy holds 65536")
    roll = roll_up(
        policy({"n1": {256: "a"}, "n2": {256: "a"}}),
        {"n1": node({256: "a"}), "n2": node({}, full)},
        NOW,
    )
    assert (roll.desired, roll.enforced) == (2, 1)
    assert condition(roll, "Programmed").status == "True"
    assert condition(roll, "Programmed").reason == "PartiallyProgrammed"
    assert condition(roll, "Ready") == Condition(
        "Ready",
        "False",
        "PartiallyProgrammed",
        "in force on 1/2 nodes; n2: cannot place 70000 entries: map policy holds 65536",
    )


def test_the_reason_of_the_node_shows_where_none_succeeded() -> None:
    roll = roll_up(policy({"n1": {256: "a"}}), {"n1": node({}, Failure(0, "MapFull", "full"))}, NOW)
    assert condition(roll, "Programmed").reason == "MapFull"


def test_a_failure_of_another_identity_is_no_failure_of_this_policy() -> None:
    roll = roll_up(policy({"n1": {256: "a"}}), {"n1": node({256: "a"}, Failure(300, "MapFull", "full"))}, NOW)
    assert roll.ready


def test_a_node_without_connection_counts_as_failed_after_a_moment_whatever_it_had() -> None:
    view = policy({"n1": {256: "a"}})
    gone = {"n1": node({256: "a"}, connected=False, at=NOW)}
    assert roll_up(view, gone, NOW + 0.1).failed == ()
    late = roll_up(view, gone, NOW + AWAY)
    assert late.failed[0].reason == "Disconnected"
    assert not late.ready


def test_a_node_that_never_had_a_loader_is_failed() -> None:
    never = {"n1": NodeView(connected=False, changed_at=0, heard=False)}
    assert roll_up(policy({"n1": {256: "a"}}), never, NOW).failed[0].reason == "NoLoader"
    assert roll_up(policy({"n1": {256: "a"}}), {}, NOW).failed[0].reason == "NoLoader"


def test_without_pods_a_policy_is_ready_and_says_so() -> None:
    roll = roll_up(policy({}), {}, NOW)
    assert roll.ready
    assert condition(roll, "Programmed").message == "no pod is selected at the moment"


def test_a_version_that_was_not_looked_at_is_unknown() -> None:
    roll = roll_up(policy({"n1": {256: "a"}}, judgement=None), {"n1": node({256: "a"})}, NOW)
    assert {each.status for each in roll.conditions} == {"Unknown"}


@pytest.mark.parametrize("kept", [True, False])
def test_a_refused_policy_is_never_ready_and_stalled(kept: bool) -> None:
    refused = Judgement("UnsupportedField", "spec.egress[0].toFQDNs: not supported yet", kept=kept)
    roll = roll_up(policy({"n1": {256: "a"}}, refused), {"n1": node({256: "a"})}, NOW)
    assert condition(roll, "Accepted") == Condition(
        "Accepted", "False", "UnsupportedField", "spec.egress[0].toFQDNs: not supported yet"
    )
    assert condition(roll, "Ready").status == "False"
    assert condition(roll, "Stalled").status == "True"
    assert ("stays in force on 1/1 nodes" in condition(roll, "Programmed").message) is kept


def test_a_policy_that_gives_way_to_an_older_one_is_never_ready_and_says_why() -> None:
    view = replace(policy({"n1": {256: "a"}}), conflict="spec.engine: Sidecar contradicts ...")
    roll = roll_up(view, {"n1": node({256: "a"})}, NOW)
    assert [(each.type, each.status, each.reason) for each in roll.conditions] == [
        ("Accepted", "False", "Conflicted"),
        ("Programmed", "False", "Conflicted"),
        ("Ready", "False", "Conflicted"),
        ("Stalled", "True", "Conflicted"),
    ]
    assert condition(roll, "Ready").message == "spec.engine: Sidecar contradicts ..."
    assert "in force on 1/1 nodes" in condition(roll, "Programmed").message


def test_what_a_node_says_cannot_break_out_of_a_terminal() -> None:
    evil = Failure(0, "x" * 200 + "\n", "\x1b[31mred\n" + "y" * 5000)
    (failed,) = roll_up(policy({"n1": {1: "a"}}), {"n1": node({}, evil)}, NOW).failed
    assert failed.reason == "NodeFailed"
    assert failed.message.isprintable()
    assert len(failed.message) <= 1024
    assert shown("\x1b[1m") == "\\x1b[1m"


views = st.builds(
    NodeView,
    connected=st.booleans(),
    changed_at=st.sampled_from([0.0, NOW - 0.5, NOW]),
    heard=st.booleans(),
    applied=st.dictionaries(st.sampled_from([1, 2]), st.sampled_from("ab")),
    failures=st.lists(
        st.builds(Failure, st.sampled_from([0, 1, 9]), st.just("MapFull"), st.just("full")), max_size=1
    ).map(tuple),
)


@given(
    st.dictionaries(
        st.sampled_from(["n1", "n2", "n3"]),
        st.dictionaries(st.sampled_from([1, 2]), st.sampled_from("ab"), min_size=1),
    ),
    st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), views),
    st.sampled_from([0.0, NOW - 10, NOW]),
)
def test_ready_means_that_every_node_is_connected_and_has_exactly_what_it_must(
    wanted: dict[str, dict[int, str]], nodes: dict[str, NodeView], since: float
) -> None:
    roll = roll_up(policy(wanted, since=since), nodes, NOW)
    truth = all(
        name in nodes
        and nodes[name].connected
        and all(nodes[name].applied.get(identity) == digest for identity, digest in documents.items())
        and not any(failure.identity in {0, *documents} for failure in nodes[name].failures)
        for name, documents in wanted.items()
    )
    assert roll.ready is truth
    assert roll.enforced + len(roll.failed) <= roll.desired == len(wanted)
    pending = roll.desired - roll.enforced - len(roll.failed)
    assert (roll.again_at is None) is (pending == 0)
    if roll.again_at is not None:
        assert NOW < roll.again_at <= NOW + max(LAG, AWAY)
