"""Snapshots as bytes: round trip, and what is refused, with its place."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from yett_loader.errors import SnapshotError
from yett_loader.snapshot import Memory, Wanted, from_bytes, to_bytes
from yett_policy.document import SCHEMA, Engine
from yett_policy.http.layout import TIER_SIZE

GOOD = build.wanted(build.web(7), build.client())


def test_a_snapshot_survives_the_round_trip() -> None:
    assert from_bytes(to_bytes(GOOD)) == GOOD


def test_an_empty_snapshot_survives_the_round_trip() -> None:
    empty = Wanted(build.snapshot(ipcache=(), identities=(), pods=()))
    assert from_bytes(to_bytes(empty)) == empty


def test_equal_snapshots_are_equal_bytes() -> None:
    assert to_bytes(build.wanted(build.web())) == to_bytes(build.wanted(build.web()))


def test_what_was_read_before_is_the_same_value_again() -> None:
    memory = Memory()
    first = from_bytes(to_bytes(GOOD), memory=memory)
    changed = build.wanted(build.web(7), build.client(), path="/changed")
    second = from_bytes(to_bytes(changed), memory=memory)
    assert second == changed
    assert second.snapshot.documents[1] is first.snapshot.documents[1]
    assert second.snapshot.documents[0] is not first.snapshot.documents[0]


def test_a_value_that_only_looks_equal_is_checked_again() -> None:
    memory = Memory()
    from_bytes(to_bytes(GOOD), memory=memory)
    raw = json.loads(to_bytes(GOOD))
    raw["documents"][0]["entries"][0][2] = False
    with pytest.raises(SnapshotError, match="a whole number is expected here"):
        from_bytes(json.dumps(raw).encode(), memory=memory)


def test_a_remembered_document_still_needs_its_ruleset() -> None:
    memory = Memory()
    from_bytes(to_bytes(GOOD), memory=memory)
    raw = json.loads(to_bytes(GOOD))
    raw["rulesets"].clear()
    with pytest.raises(SnapshotError, match="is not in the snapshot"):
        from_bytes(json.dumps(raw).encode(), memory=memory)


def test_a_sidecar_ruleset_has_no_tables() -> None:
    rules = build.ruleset(engine=Engine.SIDECAR)
    value = Wanted(build.snapshot(build.document(build.WEB, rules), rulesets=(rules,)))
    assert from_bytes(to_bytes(value)) == value


Change = Callable[[Any], object]


def pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


REFUSED: list[tuple[str, Change, str]] = [
    ("another schema", lambda s: s.update(schema=99), f"snapshot.schema: schema 99 is not the {SCHEMA}"),
    ("a new field", lambda s: s.update(extra=1), "snapshot: unknown field 'extra'; its sender may be newer"),
    ("a missing field", lambda s: s.pop("ipcache"), "snapshot: field 'ipcache' is missing"),
    (
        "a field of another type",
        lambda s: s.update(documents={}),
        "snapshot.documents: a list is expected here",
    ),
    (
        "a port that is none",
        lambda s: s["documents"][0]["entries"][0].__setitem__(3, 65536),
        "snapshot.documents[0].entries[0][3]: 65536 is not in 0..65535",
    ),
    (
        "a truth value as number",
        lambda s: s["documents"][0]["entries"][0].__setitem__(2, True),
        "snapshot.documents[0].entries[0][2]: a whole number is expected here",
    ),
    (
        "a port range with host bits",
        lambda s: s["documents"][0]["entries"][-1].__setitem__(slice(3, 5), [81, 15]),
        "entries[2][3]: 81 has more than 15 leading bits",
    ),
    (
        "an unknown verdict",
        lambda s: s["documents"][0]["entries"][0].__setitem__(5, 9),
        "entries[0][5]: '9' is no Verdict",
    ),
    (
        "an unknown reason",
        lambda s: s["documents"][0]["entries"][0].__setitem__(6, 8),
        "entries[0][6]: '8' is no Reason",
    ),
    (
        "a rule that is not in the document",
        lambda s: s["documents"][0]["entries"][0].__setitem__(7, 3),
        "entries[0][7]: 3 is not in 0..2",
    ),
    (
        "a ruleset that is not there",
        lambda s: s["rulesets"].clear(),
        "snapshot.documents[0]: its ruleset ",
    ),
    (
        "no default",
        lambda s: s["documents"][0].update(entries=s["documents"][0]["entries"][1:]),
        "snapshot.documents[0].entries: there is no default for ingress",
    ),
    (
        "a key twice",
        lambda s: s["documents"][0]["entries"].append([*s["documents"][0]["entries"][-1][:7], 2, 0, 0]),
        "snapshot.documents[0].entries: a key occurs twice",
    ),
    (
        "an identity twice",
        lambda s: s["documents"].append(s["documents"][0]),
        "snapshot.documents: an identity has two documents",
    ),
    (
        "identity 0",
        lambda s: s["documents"][0].update(identity=0),
        "snapshot.documents[0].identity: 0 is not in 1..4294967295",
    ),
    (
        "rules changed behind the digest's back",
        lambda s: s["rulesets"][0]["spec"].update(audit=True),
        "snapshot.rulesets[0].digest: the digest of its rules is ",
    ),
    (
        "tables for another digest",
        lambda s: s["rulesets"][0].update(tables=pack(build.head_only(build.ruleset("/other").spec))),
        "snapshot.rulesets[0].tables: made for another digest",
    ),
    (
        "tables of another ABI",
        lambda s: s["rulesets"][0].update(tables=pack(build.head_only(build.ruleset().spec, abi=99))),
        "snapshot.rulesets[0].tables: made for ABI version 99",
    ),
    (
        "tables that are too short",
        lambda s: s["rulesets"][0].update(tables=pack(b"x")),
        "snapshot.rulesets[0].tables: 1 bytes, the header alone has",
    ),
    (
        "a bomb",
        lambda s: s["rulesets"][0].update(tables=pack(bytes(TIER_SIZE[0] + 1))),
        "snapshot.rulesets[0].tables: more than the 65536 bytes of their tier",
    ),
    (
        "tables cut short",
        lambda s: s["rulesets"][0].update(
            tables=base64.b64encode(zlib.compress(build.head_only(build.ruleset().spec))[:-4]).decode()
        ),
        "snapshot.rulesets[0].tables: cut short",
    ),
    (
        "tables that are no base64",
        lambda s: s["rulesets"][0].update(tables="***"),
        "snapshot.rulesets[0].tables: no compressed tables in base64",
    ),
    (
        "a ruleset twice",
        lambda s: s["rulesets"].append(s["rulesets"][0]),
        "snapshot.rulesets: a ruleset occurs twice",
    ),
    (
        "a prefix with host bits",
        lambda s: s["ipcache"].append(["10.0.0.1/8", 300]),
        "'10.0.0.1/8' is no prefix such as 10.0.0.0/8",
    ),
    (
        "a prefix twice",
        lambda s: s["ipcache"].append(["::ffff:10.9.1.2/128", 300]),
        "snapshot.ipcache: a prefix occurs twice",
    ),
    (
        "a service twice",
        lambda s: s["services"].extend([["10.96.0.1", 6, 80, []]] * 2),
        "snapshot.services: a service occurs twice",
    ),
    (
        "a service whose address is spelled in another way",
        lambda s: s["services"].append(["2001:DB8::1", 6, 80, []]),
        "snapshot.services[0][0]: '2001:db8::1' is spelled in another way than the operator does",
    ),
    (
        "a service at the kernel's own spelling of IPv4",
        lambda s: s["services"].append(["::ffff:10.96.0.1", 6, 80, []]),
        "is spelled in another way than the operator does",
    ),
    (
        "a service without a port",
        lambda s: s["services"].append(["10.96.0.1", 6, 0, []]),
        "snapshot.services[0][2]: 0 is not in 1..65535",
    ),
    (
        "a backend of nobody",
        lambda s: s["services"].append(["10.96.0.1", 6, 80, [[0, 80]]]),
        "snapshot.services[0][3][0][0]: 0 is not in 1..4294967295",
    ),
    (
        "backends that are not sorted",
        lambda s: s["services"].append(["10.96.0.1", 6, 80, [[301, 80], [300, 80]]]),
        "snapshot.services[0][3]: not sorted, or one occurs twice",
    ),
    (
        "more backends than there can be",
        lambda s: s["services"].append(["10.96.0.1", 6, 80, [[300, port] for port in range(1, 19)]]),
        "snapshot.services[0][3]: 18 items, at most 17 are taken",
    ),
    (
        "an address that is none",
        lambda s: s["endpoints"][0].update(addresses=["10.0.0.256"]),
        "snapshot.endpoints[0].addresses[0]: '10.0.0.256' is no IP address",
    ),
    (
        "more addresses than the kernel holds",
        lambda s: s["endpoints"][0].update(addresses=["10.0.0.1"] * 9),
        "snapshot.endpoints[0].addresses: 9 items, at most 8 are taken",
    ),
    (
        "an endpoint twice",
        lambda s: s["endpoints"].append(s["endpoints"][0]),
        "snapshot.endpoints: an endpoint occurs twice",
    ),
    (
        "an interface twice",
        lambda s: s["endpoints"][1].update(ifindex=7),
        "snapshot.endpoints: two endpoints have one interface",
    ),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_malformed_snapshot_is_refused_with_its_place(change: Change, message: str) -> None:
    raw = json.loads(to_bytes(GOOD))
    change(raw)
    with pytest.raises(SnapshotError) as caught:
        from_bytes(json.dumps(raw).encode())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"schema": NaN}', b"9" * 5000],
    ids=["nothing", "cut", "no UTF-8", "deep", "NaN", "a long number"],
)
def test_what_is_no_json_is_refused_in_a_sentence(body: bytes) -> None:
    with pytest.raises(SnapshotError, match="snapshot: "):
        from_bytes(body)


paths = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.data(), paths)
def test_whatever_is_put_anywhere_is_refused_or_understood(data: st.DataObject, value: object) -> None:
    """No other exception, wherever a value of another kind stands."""
    raw = json.loads(to_bytes(GOOD))
    here: Any = raw
    while True:
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.integers(0, 3)) == 0:
            here[key] = value
            break
        here = here[key]
    try:
        again = from_bytes(json.dumps(raw).encode())
    except SnapshotError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert from_bytes(to_bytes(again)) == again
    assert "\n" not in complaint


def test_the_limit_of_the_body_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yett_loader.snapshot.BODY_LIMIT", 10)
    with pytest.raises(SnapshotError, match="at most 10 are taken"):
        from_bytes(to_bytes(GOOD))


def test_addresses_are_spelled_in_one_way() -> None:
    value = replace(GOOD, endpoints=(replace(build.web(), addresses=("2001:DB8:0::1",)),))
    assert from_bytes(to_bytes(value)).endpoints[0].addresses == ("2001:db8::1",)
