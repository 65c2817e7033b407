"""Every prefix of a plan is safe: against the kernel's look-ups, written in Python."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_loader.lookup import effective, identity_of, judge, look_up
from yett_loader.plan import DENIED, Retired, drops, plan, retired, transition
from yett_loader.state import (
    WORLD,
    DropAddress,
    DropPolicy,
    DropRuleset,
    DropService,
    EndpointState,
    MapState,
    PolicyKey,
    PolicyValue,
    Prefix,
    PutAddress,
    PutEndpoint,
    PutPolicy,
    PutRuleset,
    PutService,
    RulesetState,
    ServiceKey,
    SetEpoch,
    after,
    reached,
)
from yett_policy.document import Verdict

ADDRESSES = [Prefix.parse(f"10.0.{a}.{b}/32").address for a in (0, 1) for b in (1, 2, 3)]
PREFIXES = [
    *(Prefix(address, 128) for address in ADDRESSES),
    Prefix.parse("10.0.0.0/24"),
    Prefix.parse("10.0.1.0/24"),
    Prefix.parse("10.0.0.0/16"),
]
IDENTITIES = [WORLD, 300, 301, 302]
PORTS = [(6, 80), (6, 81), (6, 443), (17, 53)]
REQUESTS = range(4)
HANDLES = range(1, 6)


def requests_of(ruleset: RulesetState) -> frozenset[int]:
    """A stand-in for tables: the bits of the id say which of four requests it allows."""
    return frozenset(request for request in REQUESTS if ruleset.id >> request & 1)


def outcome(
    state: MapState, ifindex: int, direction: int, peer: bytes, proto: int, port: int
) -> frozenset[int]:
    found = judge(state, ifindex, direction, peer, proto, port)
    if found is None or found.verdict == Verdict.DENY:
        return frozenset()
    return requests_of(state.rulesets[found.ruleset]) if found.ruleset else frozenset(REQUESTS)


def values(handles: list[int]) -> st.SearchStrategy[PolicyValue]:
    plain = [
        PolicyValue(Verdict.DENY, 16, 0, 7, 0),
        PolicyValue(Verdict.ALLOW, 1, 0, 8, 0),
        PolicyValue(Verdict.AUDIT, 1, 0, 9, 0),
    ]
    return st.sampled_from(plain + [PolicyValue(Verdict.ALLOW, 1, 0, 10, handle) for handle in handles])


@st.composite
def policies(draw: st.DrawFn, handles: list[int]) -> dict[PolicyKey, PolicyValue]:
    policy = {PolicyKey(direction, 0, 0, 0, 0): draw(values(handles)) for direction in (0, 1)}
    keys = st.one_of(
        st.builds(
            PolicyKey,
            st.sampled_from([0, 1]),
            st.sampled_from([0, *IDENTITIES]),
            st.sampled_from([6, 17]),
            st.just(0),
            st.just(0),
        ),
        st.builds(
            lambda direction, peer, where, bits: PolicyKey(
                direction, peer, where[0], where[1] & (0xFFFF << (16 - bits)) & 0xFFFF, bits
            ),
            st.sampled_from([0, 1]),
            st.sampled_from([0, *IDENTITIES]),
            st.sampled_from(PORTS),
            st.sampled_from([16, 15, 8]),
        ),
        st.builds(
            PolicyKey,
            st.sampled_from([0, 1]),
            st.sampled_from(IDENTITIES),
            st.just(0),
            st.just(0),
            st.just(0),
        ),
    )
    return policy | draw(st.dictionaries(keys, values(handles), max_size=12))


services = st.dictionaries(
    st.builds(
        lambda address, where: ServiceKey(address, *where), st.sampled_from(ADDRESSES), st.sampled_from(PORTS)
    ),
    st.lists(st.tuples(st.sampled_from(IDENTITIES), st.sampled_from([80, 81])), max_size=3, unique=True).map(
        lambda backends: tuple(sorted(backends))
    ),
    max_size=4,
)


@st.composite
def states(draw: st.DrawFn) -> MapState:
    """Rulesets and policies are named by content, as the assignment makes sure."""
    rulesets = {
        handle: RulesetState(handle * 3, handle * 10, 2)
        for handle in draw(st.sets(st.sampled_from(list(HANDLES))))
    }
    contents = draw(st.lists(policies(sorted(rulesets)), min_size=1, max_size=3))
    slots = {slot_of(policy): policy for policy in contents}
    endpoints = draw(
        st.dictionaries(
            st.sampled_from([5, 6]),
            st.builds(
                EndpointState,
                st.sampled_from(IDENTITIES),
                st.sampled_from(sorted(slots)),
                st.sampled_from([True, True, True, False]),
                st.just(()),
                st.just(False),
            ),
        )
    )
    endpoints = {
        number: item._replace(open=is_open(slots[item.policy])) for number, item in endpoints.items()
    }
    ipcache = draw(st.dictionaries(st.sampled_from(PREFIXES), st.sampled_from(IDENTITIES)))
    epoch = draw(st.sampled_from([0, 4, 0xFFFFFFFF]))
    return MapState(rulesets, slots, ipcache, endpoints, epoch, draw(services))


def is_open(policy: dict[PolicyKey, PolicyValue]) -> bool:
    """Whether it has no word on egress: then services are not asked about, so it must be true of the policy."""
    said = [value for key, value in policy.items() if key.direction == 1]
    return len(said) == 1 and said[0].verdict == Verdict.ALLOW and not said[0].ruleset


def slot_of(policy: dict[PolicyKey, PolicyValue]) -> int:
    content = sorted((*map(int, key), *map(int, value)) for key, value in policy.items())
    return int.from_bytes(hashlib.sha256(repr(content).encode()).digest()[:4])


def walk(have: MapState, want: MapState, *, slots: int = 1 << 16) -> list[MapState]:
    states = [have]
    for op in (*plan(have, want, slots), *drops(retired(have, want))):
        states.append(after(states[-1], op))
    return states


def each_packet(*, ifindexes: tuple[int, ...] = (5, 6)) -> list[tuple[int, int, bytes, int, int]]:
    return [
        (ifindex, direction, peer, proto, port)
        for ifindex in ifindexes
        for peer in [*ADDRESSES, bytes(16)]
        for direction, (proto, port) in [
            *((0, where) for where in PORTS),
            *((1, where) for where in PORTS[:2]),
        ]
    ]


@given(states(), states())
def test_no_prefix_of_a_plan_allows_what_neither_side_allows(have: MapState, want: MapState) -> None:
    steps = walk(have, want)
    for packet in each_packet():
        bound = outcome(have, *packet) | outcome(want, *packet)
        for state in steps:
            assert outcome(state, *packet) <= bound


@given(states(), states())
def test_no_prefix_of_a_plan_denies_what_both_sides_allow(have: MapState, want: MapState) -> None:
    steps = walk(have, want)
    excused = denied_meanwhile(have, want)
    for packet in each_packet():
        bound = outcome(have, *packet) & outcome(want, *packet)
        for state in steps:
            if identity_of(state.ipcache, packet[2]) in excused:
                continue
            if packet[1] == 1 and is_meanwhile_stricter(have, want, ServiceKey(*packet[2:]), excused):
                continue
            assert outcome(state, *packet) >= bound


def is_meanwhile_stricter(have: MapState, want: MapState, key: ServiceKey, excused: set[int]) -> bool:
    """A service that gets other backends while endpoints turn, or one with a backend that is denied
    for the time: the exceptions that `plan` names.
    """
    old, new = have.services.get(key), want.services.get(key)
    return old != new or any(identity in excused for identity, _ in old or ())


def denied_meanwhile(have: MapState, want: MapState) -> set[int]:
    """Identities that a policy of the time between denies: the exception that `plan` names."""
    return {
        key.peer
        for op in plan(have, want)
        if isinstance(op, PutPolicy) and op.slot not in want.policies
        for key, value in op.policy.items()
        if value == DENIED
    }


@given(states(), states())
def test_a_plan_ends_in_what_is_wanted(have: MapState, want: MapState) -> None:
    end = walk(have, want)[-1]
    assert end.endpoints == want.endpoints
    assert end.ipcache == want.ipcache
    assert end.services == want.services
    for packet in each_packet():
        assert outcome(end, *packet) == outcome(want, *packet)
    assert plan(end, want) == ()
    final = after(end, *drops(retired(end, want)))
    assert replace(final, epoch=0) == replace(want, epoch=0)


@given(states(), states())
def test_what_is_reached_by_a_plan_is_what_its_steps_add_up_to(have: MapState, want: MapState) -> None:
    ops = plan(have, want)
    end = reached(have, want, ops)
    assert end == after(have, *ops)
    assert (end.ipcache, end.endpoints, end.services) == (want.ipcache, want.endpoints, want.services)
    assert all(end.policies[slot] is policy for slot, policy in want.policies.items())


@given(states(), states())
def test_without_a_free_slot_a_plan_denies_rather_than_allows(have: MapState, want: MapState) -> None:
    # No number below 1 is a slot, so there is none to be had.
    for packet in each_packet():
        bound = outcome(have, *packet) | outcome(want, *packet)
        for state in walk(have, want, slots=1):
            assert outcome(state, *packet) <= bound


_DECIDING = PutAddress | DropAddress | PutEndpoint | PutService | DropService


@given(states(), states())
def test_the_epoch_changes_after_everything_that_may_change_a_verdict(have: MapState, want: MapState) -> None:
    ops = plan(have, want)
    deciding = [at for at, op in enumerate(ops) if isinstance(op, _DECIDING)]
    epochs = [at for at, op in enumerate(ops) if isinstance(op, SetEpoch)]
    assert len(epochs) <= 1
    if deciding:
        assert epochs[0] > deciding[-1]
        assert ops[epochs[0]] == SetEpoch((have.epoch + 1) % 2**32)


@given(policies([1, 2]), st.sampled_from(IDENTITIES), policies([1]))
def test_effective_entries_carry_a_verdict_into_another_policy(
    policy: dict[PolicyKey, PolicyValue], identity: int, other: dict[PolicyKey, PolicyValue]
) -> None:
    alone = {key: value for key, value in other.items() if key.peer != 999} | effective(policy, identity, 999)
    for direction in (0, 1):
        for proto, port in PORTS:
            assert look_up(alone, direction, 999, proto, port) == look_up(
                policy, direction, identity, proto, port
            )


def entry(verdict: Verdict, ruleset: int = 0) -> PolicyValue:
    return PolicyValue(verdict, 1, 0, 1, ruleset)


def policy(**peers: Verdict) -> dict[PolicyKey, PolicyValue]:
    """`any=DENY, i300=ALLOW`: a policy of whole peers."""
    numbers = {name: 0 if name == "any" else int(name[1:]) for name in peers}
    return {
        PolicyKey(d, numbers[name], 0, 0, 0): entry(verdict)
        for name, verdict in peers.items()
        for d in (0, 1)
    }


DENY, ALLOW = Verdict.DENY, Verdict.ALLOW


def test_an_endpoint_keeps_the_old_word_about_an_address_that_moves() -> None:
    # 10.0.0.1 is 300 and becomes 301; 300 was denied and is now allowed; 301 is denied.
    old, new = policy(any=DENY), policy(any=DENY, i300=ALLOW)
    address = Prefix.parse("10.0.0.1/32")
    have = MapState(policies={1: old}, ipcache={address: 300}, endpoints={5: EndpointState(2, 1, True, ())})
    want = MapState(policies={2: new}, ipcache={address: 301}, endpoints={5: EndpointState(2, 2, True, ())})
    for state in walk(have, want):
        assert outcome(state, 5, 0, address.address, 6, 80) == frozenset()


def test_two_identities_that_swap_addresses_are_denied_meanwhile() -> None:
    old = policy(any=DENY, i300=ALLOW)
    new = policy(any=DENY, i301=ALLOW)
    between = transition(old, new, {(300, 301), (301, 300)})
    assert look_up(between, 0, 300, 6, 80) == DENIED
    assert look_up(between, 0, 301, 6, 80) == DENIED
    assert look_up(between, 0, 302, 6, 80) == new[PolicyKey(0, 0, 0, 0, 0)]


def safe(have: MapState, want: MapState) -> None:
    """Both properties, at every step, for every packet."""
    for state in walk(have, want):
        for packet in each_packet():
            now, before, then = (outcome(each, *packet) for each in (state, have, want))
            assert before & then <= now <= before | then


def test_identities_in_a_row_move_without_a_wrong_moment() -> None:
    # 10.0.0.1 goes 300 -> 301, 10.0.0.2 goes 301 -> 302; 301 was allowed and is denied from now on.
    one, two = Prefix.parse("10.0.0.1/32"), Prefix.parse("10.0.0.2/32")
    old, new = policy(any=DENY, i301=ALLOW), policy(any=DENY)
    endpoint = EndpointState(2, 1, True, ())
    have = MapState(policies={1: old}, ipcache={one: 300, two: 301}, endpoints={5: endpoint})
    want = MapState(
        policies={2: new}, ipcache={one: 301, two: 302}, endpoints={5: endpoint._replace(policy=2)}
    )
    safe(have, want)


@pytest.mark.parametrize("coming", [False, True])
def test_nested_prefixes_that_come_or_go_together_show_none_of_those_between(coming: bool) -> None:
    # An address of the /32 is never for a moment that of the /24 or the /16, which are allowed.
    nested = {
        Prefix.parse("10.0.0.1/32"): 300,
        Prefix.parse("10.0.0.0/24"): 301,
        Prefix.parse("10.0.0.0/16"): 302,
    }
    rules = {1: policy(any=DENY, i301=ALLOW, i302=ALLOW)}
    endpoints = {5: EndpointState(2, 1, True, ())}
    with_them = MapState(policies=rules, ipcache=nested, endpoints=endpoints)
    without = MapState(policies=rules, endpoints=endpoints)
    safe(*((without, with_them) if coming else (with_them, without)))


def test_a_prefix_that_changes_under_one_that_goes_is_never_seen_with_its_old_identity() -> None:
    inner, outer = Prefix.parse("10.0.0.1/32"), Prefix.parse("10.0.0.0/24")
    rules = {1: policy(any=DENY, i301=ALLOW)}
    endpoints = {5: EndpointState(2, 1, True, ())}
    have = MapState(policies=rules, ipcache={inner: 300, outer: 301}, endpoints=endpoints)
    want = MapState(policies=rules, ipcache={outer: 302}, endpoints=endpoints)
    safe(have, want)


def test_an_endpoint_that_goes_is_gone_before_addresses_move_and_one_that_comes_comes_after() -> None:
    address = Prefix.parse("10.0.0.1/32")
    rules = {1: policy(any=DENY, i300=ALLOW)}
    here = {5: EndpointState(2, 1, True, ())}
    have = MapState(policies=rules, ipcache={address: 301}, endpoints=here)
    safe(have, MapState(policies=rules, ipcache={address: 300}))
    safe(replace(have, endpoints={}), MapState(policies=rules, ipcache={}, endpoints=here))
    safe(replace(have, ipcache={address: 300}, endpoints={}), replace(have, endpoints=here))


def test_a_service_alone_changes_with_one_update() -> None:
    key = ServiceKey(ADDRESSES[0], 6, 80)
    rules = {1: policy(any=DENY, i300=ALLOW)}
    have = MapState(
        policies=rules, endpoints={5: EndpointState(2, 1, True, ())}, services={key: ((301, 80),)}
    )
    want = replace(have, services={key: ((300, 8080),)}, epoch=0)
    assert plan(have, want) == (PutService(key, ((300, 8080),)), SetEpoch(1))
    assert plan(want, replace(want, services={})) == (DropService(key), SetEpoch(1))


def test_a_service_whose_backends_change_with_the_policy_is_never_judged_by_halves() -> None:
    # The old policy allows the new backend and the new policy the old one: no half may be seen.
    key = ServiceKey(ADDRESSES[0], 6, 80)
    endpoint = EndpointState(2, 1, True, ())
    have = MapState(
        policies={1: policy(any=DENY, i301=ALLOW)}, endpoints={5: endpoint}, services={key: ((300, 80),)}
    )
    want = MapState(
        policies={2: policy(any=DENY, i300=ALLOW)},
        endpoints={5: endpoint._replace(policy=2)},
        services={key: ((301, 80),)},
    )
    for state in walk(have, want):
        assert outcome(state, 5, 1, key.address, 6, 80) == frozenset()


def test_a_policy_change_alone_is_one_swap() -> None:
    have = MapState(policies={1: policy(any=DENY)}, endpoints={5: EndpointState(2, 1, True, ())}, epoch=7)
    want = MapState(policies={2: policy(any=ALLOW)}, endpoints={5: EndpointState(2, 2, True, ())})
    assert plan(have, want) == (
        PutPolicy(2, policy(any=ALLOW)),
        PutEndpoint(5, EndpointState(2, 2, True, ())),
        SetEpoch(8),
    )


def test_nothing_to_do_is_an_empty_plan() -> None:
    state = MapState(policies={1: policy(any=DENY)}, endpoints={5: EndpointState(2, 1, True, ())}, epoch=7)
    assert plan(state, replace(state, epoch=0)) == ()


def test_what_is_retired_stays_until_it_is_dropped() -> None:
    have = MapState(rulesets={1: RulesetState(9, 10, 2)}, policies={3: policy(any=DENY)})
    want = MapState()
    assert plan(have, want) == ()
    assert retired(have, want) == Retired(frozenset({1}), frozenset({3}))
    assert drops(retired(have, want)) == (DropPolicy(3), DropRuleset(1))


def test_rulesets_come_before_the_policies_that_name_them() -> None:
    named = {PolicyKey(0, 0, 0, 0, 0): entry(ALLOW, 1), PolicyKey(1, 0, 0, 0, 0): entry(ALLOW)}
    want = MapState(
        rulesets={1: RulesetState(9, 10, 2)},
        policies={1: named},
        endpoints={5: EndpointState(2, 1, True, ())},
    )
    kinds = [type(op) for op in plan(MapState(), want)]
    assert kinds == [PutRuleset, PutPolicy, PutEndpoint, SetEpoch]


def test_a_slot_never_changes_its_meaning() -> None:
    have = MapState(policies={1: policy(any=DENY)})
    with pytest.raises(ValueError, match="policy slot 1 would change its meaning"):
        plan(have, MapState(policies={1: policy(any=ALLOW)}))
