"""Numbers of the node: stable, never with two meanings at once."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from support import wanted as build
from yett_loader.assign import (
    TRANSITIONS,
    Assignment,
    Limits,
    MapFull,
    assign,
    check_room,
    handle,
    moved,
    tier_and_slot,
)
from yett_loader.encode import encode
from yett_loader.plan import drops, plan, retired
from yett_loader.snapshot import Wanted, to_bytes
from yett_loader.state import EndpointState, MapState, PolicyKey, PolicyValue, Prefix, RulesetState, after
from yett_loader.store import Store
from yett_policy.document import Engine, Verdict
from yett_policy.reason import Reason

LIMITS = Limits(policies=64, rulesets=(32, 32, 32, 32), ipcache=100, endpoints=100)


def settle(wanted: Wanted, previous: Assignment, have: MapState) -> tuple[Assignment, MapState]:
    """Assign, encode, plan, apply, all but what is retired."""
    assignment = assign(wanted.snapshot, previous, have, LIMITS)
    want = encode(wanted.snapshot, wanted.endpoints, assignment)
    return assignment, after(have, *plan(have, want))


def test_numbers_stay_when_nothing_changes() -> None:
    wanted = build.wanted(build.web(5))
    first, have = settle(wanted, Assignment(), MapState())
    second, again = settle(wanted, first, have)
    assert first == second
    assert have == again


def test_a_handle_is_a_tier_and_a_slot() -> None:
    assert handle(3, 5) == 0x03000005
    assert tier_and_slot(0x03000005) == (3, 5)


def test_each_rule_of_a_ruleset_and_its_default_have_a_name() -> None:
    wanted = build.wanted()
    assignment, _ = settle(wanted, Assignment(), MapState())
    place = assignment.rulesets[wanted.snapshot.rulesets[0].digest]
    assert (
        assignment.names[place.state.rule_base] == "L7Policy/default/web:ingress[0].toPorts[0].rules.http[0]"
    )
    assert assignment.names[place.state.rule_base + 1] == "L7Policy/default/web:default-deny"


def test_a_retired_rulesets_numbers_keep_their_names_until_it_is_dropped() -> None:
    first = build.wanted(build.web(5), path="/one")
    second = build.wanted(build.web(5), path="/two")
    assignment, have = settle(first, Assignment(), MapState())
    old = assignment.rulesets[first.snapshot.rulesets[0].digest]
    assignment, have = settle(second, assignment, have)
    new = assignment.rulesets[second.snapshot.rulesets[0].digest]
    assert old.handle != new.handle
    numbers = set(range(old.state.rule_base, old.state.rule_base + old.state.rules))
    assert not numbers & set(range(new.state.rule_base, new.state.rule_base + new.state.rules))
    assert numbers <= assignment.names.keys()
    want = encode(second.snapshot, second.endpoints, assignment)
    have = after(have, *plan(have, want), *drops(retired(have, want)))
    assignment, _ = settle(second, assignment, have)
    assert not numbers & assignment.names.keys()


def test_an_assignment_that_was_lost_gives_nothing_two_meanings() -> None:
    wanted = build.wanted(build.web(5))
    _, have = settle(wanted, Assignment(), MapState())
    assignment = assign(wanted.snapshot, Assignment(), have, LIMITS)
    want = encode(wanted.snapshot, wanted.endpoints, assignment)
    assert not want.policies.keys() & have.policies.keys()
    assert not want.rulesets.keys() & have.rulesets.keys()
    old = {value.rule for policy in have.policies.values() for value in policy.values()}
    new = {value.rule for policy in want.policies.values() for value in policy.values()}
    assert not old & new


def test_a_slot_that_holds_something_else_is_left_alone() -> None:
    wanted = build.wanted(build.web(5))
    assignment, have = settle(wanted, Assignment(), MapState())
    digest = wanted.snapshot.documents[0].digest
    other = {PolicyKey(0, 0, 0, 0, 0): PolicyValue(0, 16, 0, 9, 0)}
    have = replace(have, policies={**have.policies, assignment.documents[digest]: other})
    again = moved(assignment, [digest], have, LIMITS)
    assert again.documents[digest] not in have.policies


def test_too_many_documents_are_refused_before_anything_is_done() -> None:
    few = replace(LIMITS, policies=TRANSITIONS + 2)
    with pytest.raises(MapFull, match="cannot place more documents: map policies is full"):
        assign(build.wanted().snapshot, Assignment(), MapState(), few)


def test_too_many_rulesets_are_refused_with_their_tier() -> None:
    few = replace(LIMITS, rulesets=(1, 32, 32, 32))
    with pytest.raises(MapFull, match="cannot place more rulesets of 64 KiB: map rulesets0 is full"):
        assign(build.wanted().snapshot, Assignment(), MapState(), few)


def test_too_many_addresses_are_refused() -> None:
    _, want = settle(build.wanted(), Assignment(), MapState())
    with pytest.raises(MapFull, match="cannot place 3 entries: map ipcache holds 2"):
        check_room(want, replace(LIMITS, ipcache=2))
    check_room(want, replace(LIMITS, ipcache=3))


def test_more_rules_than_the_node_has_numbers_are_refused() -> None:
    have = MapState(rulesets={1: RulesetState(9, 1, 65535)})
    with pytest.raises(MapFull, match="cannot number 2 rules"):
        assign(build.wanted().snapshot, Assignment(), have, LIMITS)


def test_values_of_secrets_are_kept_apart_and_for_root_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.prepare()
    assert store.load_secrets() == {}
    wanted = replace(build.wanted(), secrets={"n/s": "a-secret-value"})
    assert b"a-secret-value" not in to_bytes(wanted)
    assert to_bytes(wanted) == to_bytes(build.wanted())
    assert "a-secret-value" not in repr(wanted)
    store.save_secrets(wanted.secrets)
    assert store.load_secrets() == wanted.secrets
    assert stat.S_IMODE((store.directory / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    for damage in (b"", b"[]", b'{"n/s": 1}', b"{"):
        (store.directory / "secrets.json").write_bytes(damage)
        assert store.load_secrets() == {}


# -- encoding -----------------------------------------------------------------------------


def test_an_endpoint_without_a_document_is_not_ready() -> None:
    wanted = Wanted(build.snapshot(), (build.web(5),))
    _, have = settle(wanted, Assignment(), MapState())
    assert have.endpoints[5] == EndpointState(
        build.WEB, 0, False, (Prefix.parse("10.9.2.2/32").address, Prefix.parse("fd00:9:2::2/128").address)
    )


def test_an_endpoint_whose_interface_is_unknown_has_no_entry() -> None:
    _, have = settle(build.wanted(build.web()), Assignment(), MapState())
    assert have.endpoints == {}


def test_a_ruleset_for_the_sidecar_denies_while_there_is_none() -> None:
    rules = build.ruleset(engine=Engine.SIDECAR)
    wanted = Wanted(build.snapshot(build.document(build.WEB, rules), rulesets=(rules,)), (build.web(5),))
    assignment, have = settle(wanted, Assignment(), MapState())
    value = have.policies[have.endpoints[5].policy][PolicyKey(0, build.CLIENT, 6, 80, 16)]
    assert (value.verdict, value.reason, value.ruleset) == (Verdict.DENY, Reason.SIDECAR_DOWN, 0)
    assert assignment.names[value.rule] == "L7Policy/default/web:ingress[0].toPorts[0]"


def test_an_entry_carries_the_handle_of_its_ruleset() -> None:
    wanted = build.wanted(build.web(5))
    assignment, have = settle(wanted, Assignment(), MapState())
    value = have.policies[have.endpoints[5].policy][PolicyKey(0, build.CLIENT, 6, 80, 16)]
    assert value.ruleset == assignment.rulesets[wanted.snapshot.rulesets[0].digest].handle


@pytest.mark.parametrize(
    ("text", "length"),
    [("10.0.0.0/8", 104), ("10.1.2.3/32", 128), ("2001:db8::/64", 64), ("::/0", 0), ("0.0.0.0/0", 96)],
)
def test_prefixes_are_kept_as_sixteen_bytes(text: str, length: int) -> None:
    prefix = Prefix.parse(text)
    assert (len(prefix.address), prefix.length) == (16, length)
    assert str(prefix) == text
