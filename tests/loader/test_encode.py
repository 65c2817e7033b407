"""What is encoded with the help of what was encoded before is what would be encoded without."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from yett_loader.assign import Assignment, Limits, Numbers, assign, rules_in
from yett_loader.encode import Encoder
from yett_loader.memo import Memo
from yett_loader.names import Pods, names_of
from yett_loader.plan import plan
from yett_loader.rows import RowMap, difference, updated
from yett_loader.snapshot import Wanted
from yett_loader.state import MapState, reached
from yett_policy.document import Direction, Engine
from yett_policy.identity import HOST, REMOTE_NODE
from yett_policy.service import Frontend

LIMITS = Limits(policies=64, rulesets=(32, 32, 32, 32), ipcache=100, endpoints=100)
RULES = [build.ruleset(path) for path in ("/a", "/b", "/c")]
JUDGED = [build.ruleset(path, Engine.SIDECAR) for path in ("/d", "/e")]
OWN = ["10.0.0.1", "10.0.0.2", "fd00::1"]
ADDRESSES = [*OWN, "10.0.0.3", "10.0.0.4", "fd00::2"]

rulesets = st.sets(st.sampled_from(RULES + JUDGED), max_size=3)
documents = st.dictionaries(st.sampled_from([300, 301, 302]), rulesets, max_size=3)
ipcache = st.dictionaries(
    st.sampled_from([f"{text}/{128 if ':' in text else 32}" for text in ADDRESSES] + ["10.0.0.0/8"]),
    st.sampled_from([300, 301, 302, HOST, REMOTE_NODE]),
)
identities = st.dictionaries(
    st.sampled_from([300, 301, 302]),
    st.sampled_from([("k8s:app=web",), ("cidr:10.0.0.0/8", "reserved:host")]),
)
pods = st.dictionaries(
    st.tuples(st.just("default"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.sampled_from([300, 301]), st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple)),
)
services = st.dictionaries(
    st.builds(Frontend, st.sampled_from(["10.96.0.1", "fd00:96::1"]), st.just(6), st.sampled_from([80, 81])),
    st.sampled_from([(), ((300, 80),), tuple((300, port) for port in range(1, 18))]),
)
endpoints = st.lists(
    st.builds(
        build.LocalEndpoint,
        st.just("default"),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([300, 301, 302, 303]),
        st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple),
        st.none() | st.integers(5, 7),
    ),
    max_size=3,
    unique_by=(lambda item: item.pod, lambda item: item.ifindex or item.pod),
)


@st.composite
def steps(draw: st.DrawFn) -> list[Wanted]:
    """Each differs from the one before in some of its parts; the others are the same objects."""
    wanted = Wanted(build.snapshot())
    found = []
    for _ in range(draw(st.integers(1, 6))):
        snapshot = wanted.snapshot
        if draw(st.booleans()):
            chosen = draw(documents)
            made = (build.document(number, *sorted(some, key=str)) for number, some in chosen.items())
            known = {item.digest: item for item in snapshot.documents}
            snapshot = replace(
                snapshot,
                documents=tuple(
                    sorted((known.get(item.digest, item) for item in made), key=lambda item: item.identity)
                ),
                rulesets=tuple({item.digest: item for some in chosen.values() for item in some}.values()),
            )
        for name, rows in (("ipcache", ipcache), ("identities", identities), ("services", services)):
            if draw(st.booleans()):
                snapshot = replace(snapshot, **{name: tuple(sorted(draw(rows).items()))})  # type: ignore[arg-type]
        if draw(st.booleans()):
            rows_of_pods = tuple(sorted((*key, *value) for key, value in draw(pods).items()))
            snapshot = replace(snapshot, pods=rows_of_pods)
        local = tuple(draw(endpoints)) if draw(st.booleans()) else wanted.endpoints
        wanted = Wanted(snapshot, local)
        found.append(wanted)
    return found


@given(steps(), st.data())
def test_a_state_made_of_the_one_before_is_the_one_made_from_nothing(
    wanted: list[Wanted], data: st.DataObject
) -> None:
    encoder, pods, have, assignment = Encoder(), Pods(), MapState(), Assignment()
    numbers: Numbers = Memo(rules_in)
    for item in wanted:
        snapshot, local = item.snapshot, item.endpoints
        own = data.draw(st.sets(st.sampled_from(OWN)))
        ports = {
            (rules.digest, direction): 61_000 + number
            for number, rules in enumerate(JUDGED)
            for direction in Direction
            if data.draw(st.booleans())
        }
        fresh = assign(snapshot, assignment, have, LIMITS)
        assignment = assign(snapshot, assignment, have, LIMITS, numbers)
        assert assignment == fresh
        want = encoder.encode(snapshot, local, assignment, ports, own, local)
        assert want == Encoder().encode(snapshot, local, assignment, ports, own, local)
        assert encoder.encode(snapshot, local, assignment, ports, own, local).ipcache is want.ipcache
        have = reached(have, want, plan(have, want))
        names = names_of(snapshot, local, assignment.names, {}, pods=pods)
        afresh = names_of(snapshot, local, assignment.names, {})
        for address in ADDRESSES:
            assert names.party(address, 80, 300) == afresh.party(address, 80, 300)


def test_a_new_rule_pushes_on_no_number_of_a_rule_that_stays() -> None:
    """Not even of one that no entry names: the documents that list it would all be written again."""
    first = build.document(300, RULES[0])
    first = replace(first, rules=(*first.rules, "L7Policy/default/web:ingress[9].toPorts[0]"))
    before = assign(build.snapshot(first, rulesets=(RULES[0],)), Assignment(), MapState(), LIMITS)
    have = Encoder().encode(build.snapshot(first, rulesets=(RULES[0],)), (), before)
    second = replace(build.document(301), rules=("A/new:one", "A/new:two", "A/new:three"))
    snapshot = build.snapshot(first, second, rulesets=(RULES[0],))
    after = assign(snapshot, before, have, LIMITS)
    assert {name: after.rules[name] for name in before.rules} == before.rules
    assert len(set(after.rules.values())) == len(after.rules)


# -- rows ---------------------------------------------------------------------------------

rows = st.dictionaries(st.integers(0, 30), st.integers(0, 2), max_size=20).map(
    lambda held: tuple(sorted(held.items()))
)


@given(rows, rows, st.integers(1, 30), st.integers(1, 30))
def test_a_difference_is_what_sets_say(
    before: tuple[tuple[int, int], ...], after: tuple[tuple[int, int], ...], piece: int, many: int
) -> None:
    kept = {row: row for row in before}
    same_objects = tuple(kept.get(row, row) for row in after)
    expected = (frozenset(before) - set(after), frozenset(after) - set(before))
    with patch("yett_loader.rows._PIECE", piece), patch("yett_loader.rows._MANY", many):
        assert difference(before, after) == difference(before, same_objects) == expected
        assert difference(before, same_objects[::-1]) == expected


@given(rows, st.dictionaries(st.integers(0, 30), st.none() | st.integers(3, 5)))
def test_sorted_rows_with_changes_are_sorted_rows(
    before: tuple[tuple[int, int], ...], changes: dict[int, int | None]
) -> None:
    changed = {(key,): None if value is None else (key, value) for key, value in changes.items()}
    expected = {key: value for key, value in {**dict(before), **changes}.items() if value is not None}
    many = {(key,): None for key in range(100, 200)}
    assert updated(before, changed) == tuple(sorted(expected.items()))
    assert updated(before, changed | many) == tuple(sorted(expected.items()))


@given(st.lists(rows, max_size=4))
def test_a_mapping_of_rows_is_what_the_rows_say(steps: list[tuple[tuple[int, int], ...]]) -> None:
    made: RowMap[tuple[int, int], str, int] = RowMap(lambda row: (str(row[0]), row[1]))
    for step in steps:
        found = made.of(step)
        assert found == {str(key): value for key, value in step}
        assert made.of(step) is found
