"""What differences add up to is what a snapshot would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from yett_loader.snapshot import Wanted, to_bytes
from yett_loader.sync.replica import Replica, Update, content_of, from_disk
from yett_operator.compilation import encode as publish
from yett_policy.document import Document
from yett_policy.service import Frontend
from yett_policy.sync.message import (
    AddressesPart,
    Begin,
    Commit,
    DocumentPart,
    IdentitiesPart,
    NodePart,
    PodsPart,
    ServicesPart,
)

keys = st.integers(0, 9)
addresses = st.dictionaries(keys.map("10.0.0.{}/32".format), st.none() | st.integers(1, 9), max_size=6)
identities = st.dictionaries(st.integers(1, 9), st.none() | st.sampled_from([("a=1",), ("a=2",)]), max_size=4)
pods = st.dictionaries(
    st.tuples(st.just("default"), keys.map("pod-{}".format)),
    st.none() | st.tuples(st.integers(1, 9), st.tuples(keys.map("10.0.0.{}".format))),
    max_size=4,
)
own = st.dictionaries(keys.map("10.0.0.{}/32".format), st.integers(1, 9), max_size=3)
services = st.dictionaries(
    st.builds(Frontend, st.sampled_from(["10.96.0.1", "2001:db8::1"]), st.just(6), st.sampled_from([80, 81])),
    st.none() | st.sampled_from([(), ((300, 80),), ((300, 80), (301, 81))]),
    max_size=3,
)
changes = st.lists(st.tuples(addresses, identities, pods, services, st.none() | own), min_size=1, max_size=6)


_KINDS = (AddressesPart, IdentitiesPart, PodsPart, ServicesPart)


def node_part(own: dict[str, int], *documents: Document) -> NodePart:
    return NodePart(
        {item.identity: item.digest for item in documents}, {}, own, (("default", "web", 300, ("10.0.0.1",)),)
    )


@given(changes)
def test_differences_one_by_one_give_what_one_snapshot_gives(
    steps: list[tuple[dict, dict, dict, dict, dict | None]],  # type: ignore[type-arg]
) -> None:
    replica, held, last_own = Replica(), ({}, {}, {}, {}), {}  # type: ignore[var-annotated]
    document = build.document(300)
    for number, (*parts, own_now) in enumerate(steps, 1):
        update = Update(replica, "epoch", Begin(number, number - 1 or None, number))
        if number == 1 or own_now is not None:
            last_own = own_now or {}
            update.take(DocumentPart(document.digest, document))
            update.take(node_part(last_own, document))
        for state, part in zip(held, parts, strict=True):
            for key, value in part.items():
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value
        for kind, part in zip(_KINDS, parts, strict=True):
            update.take(kind(tuple(part.items())))
        replica = update.commit(Commit(number, *map(len, held)))
    whole = Update(Replica(), "epoch", Begin(1, None, len(steps)))
    whole.take(DocumentPart(document.digest, document))
    whole.take(node_part(last_own, document))
    for kind, state in zip(_KINDS, held, strict=True):
        whole.take(kind(tuple(state.items())))
    assert whole.commit(Commit(1, *map(len, held))) == replica
    assert to_bytes(replica.wanted)


def test_what_is_on_disk_has_the_digests_that_the_operator_gives() -> None:
    wanted: Wanted = build.wanted(build.web())
    replica = from_disk(wanted)
    assert set(replica.documents) == {publish.document(item).digest for item in wanted.snapshot.documents}
    assert set(replica.rulesets) == {publish.ruleset(item).content for item in wanted.snapshot.rulesets}
    assert content_of(build.ruleset()) in replica.rulesets
    assert replica.revision == 0
