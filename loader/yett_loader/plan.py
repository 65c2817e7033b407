"""PURE: from what the maps hold to what they must hold, in an order in which no moment is wrong.

For every prefix of the plan, every endpoint, peer address and port: the endpoint never allows
what neither `have` nor `want` allows, and never denies what both allow.  ("Allows" of an HTTP
entry: the requests that its ruleset allows.)  The one exception is named under 3.

How.  Rulesets and policies are written to numbers that nothing points at yet, so they change
nothing.  Verdicts change in three kinds of atomic steps:

1. an endpoint that goes, or is no longer ready, goes first; one that comes, comes last: a
   denial of everything is right as long as either side denies everything;
2. an address moves from one identity to another with one update.  The order (new prefixes,
   longest first; changed ones; vanishing ones, shortest first) takes every address straight
   from its old identity to its new one, however prefixes nest;
3. an endpoint's policy pointer is swapped.  If addresses move from identity X meanwhile and the
   endpoint's old and new policy differ about X, then neither order is right: the new policy's
   word about X is not meant for those addresses, and the old policy's word about their new
   identity neither.  Such an endpoint gets, while addresses move, a policy of its own: the new
   one, but about every such X what the old one says.  An identity that is the old one of some
   addresses and the new one of others, and about which no single answer is right for all of
   them, is denied for that time: a few milliseconds, the exception.  (So is everything on an
   endpoint for whose policy of that time no slot is free.)

4. a service is given other backends with one update.  If endpoints turn or addresses move at
   the same time, its old backends and its new ones both count meanwhile (and one that comes or
   goes has nobody behind it): the strictest word on all of them is in every prefix too strict at
   worst, for a few milliseconds.

The new epoch, which makes flows judge again, comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter, ne
from typing import NamedTuple

from yett_loader.lookup import effective
from yett_loader.state import (
    WORLD,
    DropAddress,
    DropEndpoint,
    DropPolicy,
    DropRuleset,
    DropService,
    EndpointState,
    MapOp,
    MapState,
    Policy,
    PolicyKey,
    PolicyValue,
    Prefix,
    PutAddress,
    PutEndpoint,
    PutPolicy,
    PutRuleset,
    PutService,
    SetEpoch,
)
from yett_policy.document import Verdict
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX

DENIED = PolicyValue(Verdict.DENY, Reason.NOT_READY, 0, 0, 0)
"""About an identity while no answer is right."""


@dataclass(frozen=True, slots=True)
class Retired:
    """What is in the maps though nothing points at it any more.

    A request head that began under a ruleset finishes under it, so it must stay for a while (`GRACE`); policies
    for packets under way, and for records of what they decided, whose rules have their names by number.
    """

    rulesets: frozenset[int] = frozenset()
    policies: frozenset[int] = frozenset()


class Grace(NamedTuple):
    """Seconds that what is retired stays."""

    rulesets: float
    policies: float


GRACE = Grace(rulesets=15.0, policies=5.0)
"""Rulesets: longer than a head may take (config.head_timeout_ms).  Policies: each change of a document needs a place for
the new one; with the places of `policies` (1,024) and this a node takes 200 changed documents a second."""


def retired(have: MapState, want: MapState) -> Retired:
    """What `want` needs no more."""
    return Retired(
        frozenset(have.rulesets.keys() - want.rulesets.keys()),
        frozenset(have.policies.keys() - want.policies.keys()),
    )


def drops(rest: Retired) -> tuple[MapOp, ...]:
    """The changes that drop it."""
    return (*map(DropPolicy, sorted(rest.policies)), *map(DropRuleset, sorted(rest.rulesets)))


def plan(have: MapState, want: MapState, policy_slots: int = 1 << 16) -> tuple[MapOp, ...]:
    """The changes in order.  What is retired stays (`drops`).

    `policy_slots` is the size of the map `policies`.
    """
    ops: list[MapOp] = []
    for handle, state in sorted(want.rulesets.items()):
        if handle not in have.rulesets:
            ops.append(PutRuleset(handle, state))
        elif have.rulesets[handle] != state:
            raise ValueError(f"ruleset handle {handle:#x} would change its meaning")
    for slot, policy in sorted(want.policies.items()):
        if slot not in have.policies:
            ops.append(PutPolicy(slot, policy))
        elif not is_same(have.policies[slot], policy):
            raise ValueError(f"policy slot {slot} would change its meaning")

    moves, pairs = _moves(have.ipcache, want.ipcache)
    gone, turned, come = _endpoints(have, want)
    ops += gone
    between, final = _turn(have, want, turned, pairs, policy_slots)
    widened, services = _services(have, want, apart=bool(turned or moves))
    ops += [*widened, *between, *moves, *final, *services, *come]
    if moves or gone or turned or come or services:
        ops.append(SetEpoch((have.epoch + 1) & 0xFFFFFFFF))
    return tuple(ops)


def is_same(one: Policy, other: Policy) -> bool:
    """Whether two policies are equal, which is seen at once if they are one object."""
    return one is other or one == other


# -- addresses ----------------------------------------------------------------------------


def _moves(
    have: Mapping[Prefix, int], want: Mapping[Prefix, int]
) -> tuple[list[MapOp], set[tuple[int, int]]]:
    """The updates of ipcache in order, and every (old, new) identity that an address takes."""
    if have is want:
        return [], set()
    # Whole mappings at once: in a cluster of 10,000 pods a loop takes ten times as long.
    put = list(compress(want, map(ne, map(have.get, want), want.values())))
    added = sorted((prefix for prefix in put if prefix not in have), key=_longest_first)
    changed = sorted((prefix for prefix in put if prefix in have), key=_longest_first)
    dropped = sorted(have.keys() - want.keys(), key=_longest_first, reverse=True)
    now = _Trie(have)
    ops: list[MapOp] = []
    pairs: set[tuple[int, int]] = set()
    for prefix in (*added, *changed):
        pairs.add((now.at(prefix), want[prefix]))
        now.set(prefix, want[prefix])
        ops.append(PutAddress(prefix, want[prefix]))
    for prefix in dropped:
        before = now.at(prefix)
        now.drop(prefix)
        pairs.add((before, now.at(prefix)))
        ops.append(DropAddress(prefix))
    return ops, {(old, new) for old, new in pairs if old != new}


def _longest_first(prefix: Prefix) -> tuple[int, bytes]:
    return -prefix.length, prefix.address


class _Trie:
    """ipcache, with the identity that an address of a prefix has now if no longer prefix holds it."""

    def __init__(self, entries: Mapping[Prefix, int]) -> None:
        self._entries = dict(entries)
        self._lengths = sorted(set(map(itemgetter(1), entries)), reverse=True)
        """Of all prefixes there ever were."""

    def set(self, prefix: Prefix, identity: int) -> None:
        self._entries[prefix] = identity
        if prefix.length not in self._lengths:
            self._lengths = sorted([*self._lengths, prefix.length], reverse=True)

    def drop(self, prefix: Prefix) -> None:
        del self._entries[prefix]

    def at(self, prefix: Prefix) -> int:
        for length in self._lengths:
            if length <= prefix.length:
                identity = self._entries.get(_cut(prefix, length))
                if identity is not None:
                    return identity
        return WORLD


def _cut(prefix: Prefix, length: int) -> Prefix:
    """What of that length holds it."""
    bits = int.from_bytes(prefix.address) >> (128 - length) << (128 - length)
    return Prefix(bits.to_bytes(16, "big"), length)


# -- services -----------------------------------------------------------------------------


def _services(have: MapState, want: MapState, *, apart: bool) -> tuple[list[MapOp], list[MapOp]]:
    """Updates before anything else changes (only if they are to be kept `apart`), and after."""
    before: list[MapOp] = []
    after: list[MapOp] = []
    if have.services is want.services:
        return before, after
    for key in sorted(have.services.keys() | want.services.keys()):
        old, new = have.services.get(key), want.services.get(key)
        if old == new:
            continue
        if apart:
            both = tuple(sorted({*old, *new})) if old and new else ()
            before.append(PutService(key, both[: BACKENDS_MAX + 1]))
        after.append(DropService(key) if new is None else PutService(key, new))
    return before, after


# -- endpoints ----------------------------------------------------------------------------


def _endpoints(
    have: MapState, want: MapState
) -> tuple[list[MapOp], list[tuple[int, EndpointState, EndpointState]], list[MapOp]]:
    """Those that go or stop (first), those that turn from one policy to another, those that come (last)."""
    gone: list[MapOp] = []
    turned: list[tuple[int, EndpointState, EndpointState]] = []
    come: list[MapOp] = []
    for ifindex in sorted(have.endpoints.keys() | want.endpoints.keys()):
        old, new = have.endpoints.get(ifindex), want.endpoints.get(ifindex)
        if new is None:
            gone.append(DropEndpoint(ifindex))
        elif old is None or not _judges(have, old):
            if old != new:
                come.append(PutEndpoint(ifindex, new))
        elif not _judges(want, new):
            gone.append(PutEndpoint(ifindex, new))
        elif old != new:
            turned.append((ifindex, old, new))
    return gone, turned, come


def _judges(state: MapState, endpoint: EndpointState) -> bool:
    return endpoint.ready and endpoint.policy in state.policies


def _turn(
    have: MapState,
    want: MapState,
    turned: Iterable[tuple[int, EndpointState, EndpointState]],
    pairs: set[tuple[int, int]],
    policy_slots: int,
) -> tuple[list[MapOp], list[MapOp]]:
    """Endpoint updates before the addresses move, and after."""
    slots: dict[tuple[int, int], int] = {}
    taken = have.policies.keys() | want.policies.keys()
    free = (number for number in range(1, policy_slots) if number not in taken)
    put: list[MapOp] = []
    before: list[MapOp] = []
    final: list[MapOp] = []
    for ifindex, old, new in turned:
        both = (old.policy, new.policy)
        if both not in slots:
            policy = transition(have.policies[old.policy], want.policies[new.policy], pairs)
            if is_same(policy, want.policies[new.policy]):
                slots[both] = new.policy
            elif is_same(policy, have.policies[old.policy]):
                slots[both] = old.policy
            else:
                slots[both] = next(free, 0)
                put += [PutPolicy(slots[both], policy)] if slots[both] else []
        slot = slots[both]
        if slot == old.policy != new.policy:
            final.append(PutEndpoint(ifindex, new))
            continue
        before.append(PutEndpoint(ifindex, new._replace(policy=slot, ready=slot != 0)))
        if slot != new.policy:
            final.append(PutEndpoint(ifindex, new))
    return put + before, final


def transition(old: Policy, new: Policy, pairs: set[tuple[int, int]]) -> Policy:
    """What an endpoint goes by while addresses move between the identities of `pairs`."""
    if not pairs or is_same(old, new):
        return new
    sources = {source for source, _ in pairs if not _agree(old, source, new, source)}
    result = dict(new)
    for identity in sorted(sources):
        leaving = [target for source, target in pairs if source == identity]
        arriving = [source for source, target in pairs if target == identity]
        if all(_agree(old, source, old, identity) for source in arriving):
            entries = effective(old, identity, identity)
        elif all(_agree(new, identity, new, target) for target in leaving):
            continue
        else:
            entries = {PolicyKey(direction, identity, 0, 0, 0): DENIED for direction in (0, 1)}
        result = {key: value for key, value in result.items() if key.peer != identity} | entries
    return result


def _agree(first: Policy, one: int, second: Policy, other: int) -> bool:
    """Whether the first policy gives `one` what the second gives `other`, reasons and rules aside."""
    return _verdicts(effective(first, one, 0)) == _verdicts(effective(second, other, 0))


def _verdicts(policy: Policy) -> dict[PolicyKey, tuple[int, int]]:
    return {key: (value.verdict, value.ruleset) for key, value in policy.items()}
