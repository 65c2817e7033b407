"""Messages as bytes: what goes in comes out, and nothing that comes in is a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support import wanted as build
from yett_operator.compilation import encode as publish
from yett_policy.document import SCHEMA, Engine, Verdict
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.service import Backends, Frontend
from yett_policy.sync import decode, encode, rows_fast, values
from yett_policy.sync.frame import (
    BUNDLE,
    INFLATED_LIMIT,
    TO_LOADER_LIMIT,
    TO_OPERATOR_LIMIT,
    bundle,
    pack,
    unbundle,
    unpack,
)
from yett_policy.sync.message import (
    LOCAL_MAX,
    Ack,
    AddressesPart,
    Begin,
    Commit,
    Counters,
    DocumentPart,
    Failing,
    Hello,
    IdentitiesPart,
    NodeChanges,
    NodePart,
    PodsPart,
    Problem,
    Refusal,
    Renewal,
    Resume,
    RulesetPart,
    SecretPart,
    ServicesPart,
    ToOperator,
    Welcome,
)
from yett_policy.sync.once import Once
from yett_policy.sync.reader import Malformed, Value

T = TypeVar("T")

identities = st.integers(1, 2**32 - 1)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.text(st.characters(codec="utf-8"), max_size=64)
revisions = st.integers(1, 2**53)
prefixes = st.one_of(
    st.ip_addresses(v=4).map(lambda item: f"{item}/32"),
    st.ip_addresses(v=6, network="2000::/3").map(lambda item: f"{item}/128"),
)
pods = st.lists(st.ip_addresses().map(str), max_size=8).map(tuple)
applied = st.dictionaries(identities, digests, max_size=20)
failures = st.lists(st.builds(Failing, st.integers(0, 2**32 - 1), names, names), max_size=5).map(tuple)


def several(item: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(item, max_size=10).map(tuple)


hellos = st.builds(
    Hello,
    node=names,
    instance=names,
    version=names,
    kernel=names,
    applied=applied,
    failures=failures,
    documents=several(digests),
    rulesets=several(digests),
    resume=st.none() | st.builds(Resume, names, revisions),
    schema=st.just(SCHEMA),
)
acks = st.builds(Ack, st.integers(0, 2**53), applied, several(identities), failures=failures) | st.builds(
    Ack, st.integers(0, 2**53), st.just({}), as_sent=st.just(True), failures=failures
)
node_parts = st.builds(
    NodePart,
    applied,
    st.dictionaries(digests, digests, max_size=5),
    st.dictionaries(prefixes, identities, max_size=5),
    several(st.tuples(names, names, identities, pods)),
)


@given(hellos)
def test_a_hello_survives_the_round_trip(message: Hello) -> None:
    assert decode.from_loader(encode.hello(message)) == message


@given(acks)
def test_an_ack_survives_the_round_trip(message: Ack) -> None:
    assert decode.from_loader(encode.ack(message)) == message


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 2**53 + 1},
        {"seq": -1},
        {"seq": True},
        {"seq": 1.0},
        {"as_sent": 0},
        {"as_sent": True, "applied": [[300, "0" * 64]]},
        {"as_sent": True, "dropped": [300]},
        {"as_sent": True, "applied": ""},
        {"dropped": {}},
        {"failures": None},
        {"applied": [[number, "0" * 64] for number in range(1, LOCAL_MAX + 2)]},
        {"applied": [[300, "0" * 64], [300, "1" * 64]]},
        {"more": 1},
    ],
)
def test_an_ack_that_is_nearly_plain_is_refused(change: dict[str, object]) -> None:
    plain = {"type": "ack", "seq": 1, "applied": [], "dropped": [], "as_sent": False, "failures": []}
    assert decode.from_loader(pack(json.dumps(plain).encode())) == Ack(1, {})
    with pytest.raises(Malformed):
        decode.from_loader(pack(json.dumps(plain | change).encode()))


frontends = st.builds(
    Frontend,
    st.sampled_from(["10.96.0.1", "2001:db8::1", "0.0.0.0", "::"]),
    st.integers(1, 255),
    st.integers(1, 65535),
)
backends = st.lists(st.tuples(identities, st.integers(1, 65535)), unique=True, max_size=17).map(
    lambda rows: tuple(sorted(rows))
)


@given(node_parts)
def test_a_nodes_part_survives_the_round_trip(message: NodePart) -> None:
    assert decode.from_operator(encode.node(message)) == message


endpoints = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), identities, pods), unique_by=lambda row: row[:2]
).map(lambda rows: tuple(sorted(rows)))
few_digests = st.sampled_from(["0" * 64, "1" * 64])
few_prefixes = st.sampled_from(["10.0.0.1/32", "::1/128"])
similar_parts = st.builds(
    NodePart,
    st.dictionaries(st.integers(1, 3), few_digests),
    st.dictionaries(few_digests, few_digests),
    st.dictionaries(few_prefixes, st.integers(1, 3)),
    endpoints,
    st.dictionaries(st.sampled_from(["n/a", "n/b"]), st.sampled_from(["0" * 32, "1" * 32])),
)


similar_changes = st.builds(
    NodeChanges,
    st.dictionaries(st.integers(1, 3), st.none() | few_digests),
    st.dictionaries(few_digests, st.none() | few_digests),
    st.dictionaries(few_prefixes, st.none() | st.integers(1, 3)),
    st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.sampled_from("cd")), st.none() | st.tuples(identities, pods)
    ),
    st.dictionaries(st.sampled_from(["n/a", "n/b"]), st.none() | st.sampled_from(["0" * 32, "1" * 32])),
)


@given(similar_parts, similar_changes)
def test_changes_of_a_nodes_part_survive_the_round_trip_and_each_is_made(
    old: NodePart, changes: NodeChanges
) -> None:
    assert decode.from_operator(encode.node_changes(changes)) == changes
    new = old.changed(changes)
    placed = {row[:2]: row[2:] for row in old.endpoints}
    assert {row[:2]: row[2:] for row in new.endpoints} == with_changes(placed, changes.endpoints)
    assert new.endpoints == tuple(sorted(new.endpoints))
    for field in ("documents", "rulesets", "addresses", "secrets"):
        assert getattr(new, field) == with_changes(getattr(old, field), getattr(changes, field))


def with_changes(held: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in {**held, **changes}.items() if value is not None}


@given(
    several(st.tuples(prefixes, st.none() | identities)),
    several(st.tuples(identities, st.none() | several(names))),
    several(st.tuples(st.tuples(names, names), st.none() | st.tuples(identities, pods))),
    several(st.tuples(frontends, st.none() | backends)),
)
def test_the_clusters_parts_survive_the_round_trip(
    addresses: tuple[tuple[str, int | None], ...],
    known: tuple[tuple[int, tuple[str, ...] | None], ...],
    placed: tuple[tuple[tuple[str, str], tuple[int, tuple[str, ...]] | None], ...],
    behind: tuple[tuple[Frontend, Backends | None], ...],
) -> None:
    assert decode.from_operator(encode.addresses(addresses)) == AddressesPart(addresses)
    assert decode.from_operator(encode.identities(known)) == IdentitiesPart(known)
    assert decode.from_operator(encode.pods(placed)) == PodsPart(placed)
    assert decode.from_operator(encode.services(behind)) == ServicesPart(behind)


@given(
    st.one_of(
        st.builds(Begin, revisions, st.none() | revisions, revisions),
        st.builds(Commit, revisions, *[st.integers(0, 2**53)] * 4),
        st.builds(Welcome, names, st.integers(1, 3600), st.just(SCHEMA)),
    )
)
def test_what_stands_around_an_update_survives_the_round_trip(message: Begin | Commit | Welcome) -> None:
    match message:
        case Begin():
            frame = encode.begin(message)
        case Commit():
            frame = encode.commit(message)
        case Welcome():
            frame = encode.welcome(message)
    assert decode.from_operator(frame) == message


@given(
    st.one_of(
        st.builds(Refusal, st.integers(0, 2**53), st.sampled_from(Problem), names),
        st.builds(Counters, st.dictionaries(names, st.integers(0, 2**64 - 1), max_size=20)),
        st.builds(Renewal, names),
    )
)
def test_the_other_answers_survive_the_round_trip(message: Refusal | Counters | Renewal) -> None:
    match message:
        case Refusal():
            frame = encode.refusal(message)
        case Counters():
            frame = encode.counters(message)
        case Renewal():
            frame = encode.renewal(message)
    again: ToOperator = decode.from_loader(frame)
    assert again == message


def test_a_document_and_a_ruleset_survive_as_published() -> None:
    rules = build.ruleset()
    document = build.document(build.WEB, rules)
    assert decode.from_operator(publish.document(document).frame) == DocumentPart(document.digest, document)
    compiled = publish.ruleset(rules)
    assert decode.from_operator(compiled.frame) == RulesetPart(compiled.content, rules)


DEFAULTS = [[direction, [0], 0, 0, 0, 0, 0, 0, 0, 0] for direction in (0, 1)]


@pytest.mark.parametrize(
    "row",
    [
        [2, [0], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [-1], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [2**32], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [7.0], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [True], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [7, 7], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [8, 7], 0, 0, 0, 0, 0, 0, 0, 0],
        [0, [0], 256, 0, 0, 0, 0, 0, 0, 0],
        [0, [0], 6, 65536, 16, 0, 0, 0, 0, 0],
        [0, [0], 6, 81, 15, 0, 0, 0, 0, 0],
        [0, [0], 6, 80, 17, 0, 0, 0, 0, 0],
        [0, [0], 0, 0, 0, 4, 0, 0, 0, 0],
        [0, [0], 0, 0, 0, 0, 255, 0, 0, 0],
        [0, [0], 0, 0, 0, 0, 0, 1, 0, 0],
        [0, [0], 0, 0, 0, 0, 0, 0, 2, 0],
        [0, [0], 0, 0, 0, 0, 0, 0, 0, 2],
        [0, [0], 0, 0, 0, 0, 0, 0, 0, True],
        [0, [0], 0.0, 0, 0, 0, 0, 0, 0, 0],
        [0, [0], 0, 0, 0, 0, 0, 0, 0],
        [0, [0], 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "0000000000",
    ],
)
def test_an_entry_that_is_none_is_refused_in_words(row: object) -> None:
    good = build.document(build.WEB, build.ruleset()).to_json()
    assert values.document(Value(json.loads(json.dumps(good)), "document"))
    bad = {**good, "rules": ["none"], "entries": [*DEFAULTS, row], "rulesets": ["0" * 64]}
    with pytest.raises(Malformed, match=r"entries\[2\]"):
        values.document(Value(bad, "document"))


SAID = [0, [7, 9], 6, 80, 16, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ([SAID], "not sorted, or an entry occurs twice"),
        ([[0, [9], 6, 80, 16, 2, 1, 0, 0, 0]], "a key occurs twice"),
        ([[0, [1, 8], 6, 80, 16, 2, 1, 0, 0, 0], [0, [8], 6, 80, 16, 3, 1, 0, 0, 0]], "a key occurs twice"),
        ([[0, [7], 6, 70, 16, 1, 1, 0, 0, 0]], "not sorted, or an entry occurs twice"),
    ],
)
def test_a_document_says_one_thing_of_a_peer_and_port_and_in_one_way(
    others: list[object], complaint: str
) -> None:
    first, last = DEFAULTS
    raw = {"identity": 300, "entries": [first, SAID, *others, last], "rules": ["none"], "rulesets": []}
    with pytest.raises(Malformed, match=complaint):
        values.document(Value(raw, "document"))


def test_a_document_of_more_entries_than_a_node_can_hold_is_refused() -> None:
    first, last = DEFAULTS
    crowd = [[0, list(range(1, 2048)), 6, port, 16, 1, 1, 0, 0, 0] for port in range(80, 80 + 513)]
    raw = {"identity": 300, "entries": [first, *crowd, last], "rules": ["none"], "rulesets": []}
    with pytest.raises(Malformed, match="entries: 1050113 for one peer each, at most 1048576 are taken"):
        values.document(Value(raw, "document"))


@pytest.mark.parametrize("listed", [["a", "a"], ["b", "a"], ["", "a"], ["a", "b"]])
def test_the_rulesets_of_a_document_are_listed_in_one_way(listed: list[str]) -> None:
    first, last = DEFAULTS
    entries = [first, [0, [7], 6, 80, 16, 1, 1, 0, listed.index("a") + 1, 0], last]
    raw = {"identity": 300, "entries": entries, "rules": ["none"], "rulesets": listed}
    with pytest.raises(Malformed, match="rulesets"):
        values.document(Value(raw, "document"))


@given(
    st.lists(
        st.one_of(
            prefixes, names, st.none(), st.booleans(), st.floats(), st.integers(-1, 2**33), pods, names
        ),
        max_size=5,
    )
)
@example(["::ffff:10.0.0.1/128", 1])
@example(["a", "b", True, []])
@example(["a", "b", 1, ["10.0.0.1", 1]])
@example(["a", "\ud800", 1, ["10.0.0.1"]])
def test_the_fast_way_accepts_nothing_that_the_slow_one_refuses(row: list[object]) -> None:
    row = [list(item) if isinstance(item, tuple) else item for item in row]
    for fast, checked in ((rows_fast.address, decode._address_row), (rows_fast.pod, decode._pod_row)):
        quick = fast(row)
        if quick is not None:
            assert quick == checked(Value(row, "row"))


digests = st.sampled_from(["a" * 64, "0" * 64, "A" * 64, "a" * 63, "a" * 64 + "\n", "g" * 64, "", 1, None])
digest_rows = st.lists(
    st.lists(st.one_of(digests, st.integers(-1, 3), st.just(2**32), st.booleans()), max_size=3), max_size=3
)


@given(st.one_of(digest_rows, st.dictionaries(st.text(max_size=3) | st.just("b" * 64), digests), digests))
@example([[1, "a" * 64], [2, "0" * 64]])
@example([[1, "a" * 64], [1, "0" * 64]])
@example([[1.0, "a" * 64]])
@example({"a" * 64: "0" * 64})
def test_the_fast_way_takes_no_digests_that_the_slow_one_refuses(raw: object) -> None:
    if quick := rows_fast.digests(raw):
        assert isinstance(raw, list)
        assert quick == {number: decode._digest(Value(digest, "digest")) for number, digest in raw}
        assert all(Value(number, "identity").integer(1, values.IDENTITY_MAX) for number, _ in raw)
        assert len(quick) == len(raw)
    if found := rows_fast.contents(raw):
        assert isinstance(raw, dict)
        assert found == {key: decode._digest(Value(digest, "digest")) for key, digest in raw.items()}
        assert [decode._digest(Value(key, "key")) for key in found] == list(raw)


def test_a_secret_survives_the_round_trip_and_is_shown_nowhere() -> None:
    part = SecretPart("n/s", "0" * 32, 'v"\\ %')
    assert decode.from_operator(encode.secret(part)) == part
    assert "%" not in repr(part)


@pytest.mark.parametrize(
    "part",
    [
        SecretPart("n/s", "0" * 32, "hidden\r\nx: y"),
        SecretPart("n/s", "0" * 32, ""),
        SecretPart("n/s", "0" * 32, "hidden" * 1000),
        SecretPart("n/s", "0" * 32, "hidden\x7f"),
        SecretPart("n/s", "0" * 31, "hidden"),
        SecretPart("n/s", "x" * 32, "hidden"),
        SecretPart("ns", "0" * 32, "hidden"),
        SecretPart("n/s/t", "0" * 32, "hidden"),
        SecretPart("n/" + "s" * 400, "0" * 32, "hidden"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_its_value(part: SecretPart) -> None:
    with pytest.raises(Malformed) as caught:
        decode.from_operator(encode.secret(part))
    assert "hidden" not in str(caught.value)


def test_a_change_of_headers_that_no_policy_may_make_is_refused() -> None:
    good = HeaderChange("x-a", ChangeOp.REPLACE, "v", "n/s")
    assert decode.from_operator(publish.ruleset(build.ruleset(engine=Engine.SIDECAR, changes=(good,))).frame)
    for bad in (
        replace(good, name="host"),
        replace(good, name="x-envoy-retry-on"),
        replace(good, name="x_a"),
        replace(good, value="v\r\nx: y"),
        replace(good, value=None, secret=""),
    ):
        made = publish.ruleset(build.ruleset(engine=Engine.SIDECAR, changes=(bad,)))
        with pytest.raises(Malformed):
            decode.from_operator(made.frame)


def test_a_token_is_shown_nowhere() -> None:
    assert "secret" not in repr(Renewal("secret"))


# -- hostile bytes --------------------------------------------------------------------------

SAMPLES = [
    encode.hello(Hello("n", "i", "1", "6", {300: "0" * 64}, (Failing(0, "MapFull", "x"),), ("1" * 64,), ())),
    encode.ack(Ack(1, {300: "0" * 64}, (301,))),
    encode.ack(Ack(1, {}, as_sent=True)),
    encode.counters(Counters({"rule": 1})),
    encode.begin(Begin(1, None, 1)),
    encode.node(
        NodePart({300: "0" * 64}, {"1" * 64: "2" * 64}, {"::1/128": 1}, (("a", "b", 300, ("::1",)),))
    ),
    publish.document(build.document(build.WEB, verdict=Verdict.ALLOW)).frame,
    publish.ruleset(build.ruleset()).frame,
    encode.secret(SecretPart("n/s", "0" * 32, "value")),
    encode.addresses([("10.0.0.1/32", 300), ("::/0", None)]),
    encode.identities([(300, ("a=b",)), (301, None)]),
    encode.pods([(("a", "b"), (300, ("10.0.0.1",))), (("a", "c"), None)]),
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def both(frame: bytes) -> None:
    """Either side refuses it in one sentence, or understands it."""
    complaints = []
    for read in (decode.from_loader, decode.from_operator):
        try:
            read(frame)
        except Malformed as error:
            complaints.append(str(error))
    assert complaints  # no message is for both
    assert all(text and "\n" not in text for text in complaints)


@given(st.sampled_from(SAMPLES), st.data())
def test_frames_with_other_bytes_are_refused_or_understood(frame: bytes, data: st.DataObject) -> None:
    plain = b"\0" + json.dumps(unpack(frame, TO_LOADER_LIMIT).raw).encode()
    victim = bytearray(data.draw(st.sampled_from([frame, plain])))
    for _ in range(data.draw(st.integers(1, 4))):
        match data.draw(st.sampled_from(["change", "insert", "drop", "cut"])):
            case "change" if victim:
                victim[data.draw(st.integers(0, len(victim) - 1))] = data.draw(st.integers(0, 255))
            case "insert":
                place = data.draw(st.integers(0, len(victim)))
                victim[place:place] = data.draw(st.binary(max_size=4))
            case "drop" if victim:
                del victim[data.draw(st.integers(0, len(victim) - 1))]
            case "cut":
                del victim[data.draw(st.integers(0, len(victim))) :]
    both(bytes(victim))


@given(st.sampled_from(SAMPLES), st.data(), anything)
def test_whatever_value_stands_anywhere_is_refused_or_understood(
    frame: bytes, data: st.DataObject, value: object
) -> None:
    raw = unpack(frame, TO_LOADER_LIMIT).raw
    here = raw
    while isinstance(here, dict | list):
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.integers(0, 3)) == 0:
            here[key] = value
            break
        here = here[key]
    both(pack(json.dumps(raw).encode()))


@given(st.binary(max_size=300))
@example(b"")
@example(b"\1")
def test_random_bytes_are_refused(frame: bytes) -> None:
    both(frame)


@given(st.binary(max_size=300))
def test_random_messages_are_refused_or_are_frames(message: bytes) -> None:
    try:
        frames = list(unbundle(message))
    except Malformed:
        return
    assert sum(len(frame) + 4 for frame in frames) == len(message)


@given(st.lists(st.binary(max_size=200) | st.just(bytes(BUNDLE)), max_size=20))
def test_frames_keep_their_order_and_edges_in_messages(frames: list[bytes]) -> None:
    messages = list(bundle(frames))
    assert [frame for message in messages for frame in unbundle(message)] == frames
    assert all(len(message) <= BUNDLE + 4 or len(list(unbundle(message))) == 1 for message in messages)


def test_the_limits_of_a_frame_are_checked_before_it_is_made() -> None:
    with pytest.raises(Malformed, match=f"at most {TO_OPERATOR_LIMIT} are taken"):
        decode.from_loader(b"\0" + bytes(TO_OPERATOR_LIMIT))
    bomb = pack(b'"' + b" " * INFLATED_LIMIT + b'"')
    assert len(bomb) < TO_OPERATOR_LIMIT
    with pytest.raises(Malformed, match="when inflated"):
        decode.from_loader(bomb)


def test_the_largest_tables_fit_into_a_frame() -> None:
    """Even if deflate found nothing in them to save."""
    from yett_policy.http.layout import TIER_SIZE  # noqa: PLC0415

    assert max(TIER_SIZE) * 4 / 3 + (1 << 20) < TO_LOADER_LIMIT < INFLATED_LIMIT


def test_the_first_time_is_a_first_time_once() -> None:
    once = Once(room=2)
    assert [once.first(item) for item in "aabab"] == [True, False, True, False, False]
    assert once.first("c")
    assert once.first("a")
    once.forget("a")
    assert once.first("a")
