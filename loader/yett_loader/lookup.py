"""PURE: the kernel's look-ups, written to be read; `plan` reasons with them and tests compare.

The order of the policy look-up is that of yett_abi.h, map `policies`.
"""

from __future__ import annotations

from collections.abc import Mapping

from yett_loader.state import (
    WORLD,
    Backends,
    MapState,
    Policy,
    PolicyKey,
    PolicyValue,
    Prefix,
    ServiceKey,
)
from yett_policy.document import Direction, Verdict
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX


def identity_of(ipcache: Mapping[Prefix, int], address: bytes) -> int:
    """Longest prefix wins; what no prefix holds is the world."""
    hits = [prefix for prefix in ipcache if prefix.holds(address)]
    return ipcache[max(hits, key=lambda prefix: prefix.length)] if hits else WORLD


def look_up(policy: Policy, direction: int, peer: int, proto: int, port: int) -> PolicyValue | None:
    """The first step that hits decides; within a step the longest port prefix."""
    steps = ((peer, proto, port), (peer, 0, 0), (0, proto, port), (0, 0, 0))
    for step in steps:
        hit = longest(policy, direction, *step)
        if hit is not None:
            return hit
    return None


def longest(policy: Policy, direction: int, peer: int, proto: int, port: int) -> PolicyValue | None:
    """One look-up in the LPM map."""
    for bits in range(16, -1, -1):
        key = PolicyKey(direction, peer, proto, masked(port, bits), bits)
        if key in policy:
            return policy[key]
    return None


def judge(
    state: MapState, ifindex: int, direction: int, peer: bytes, proto: int, port: int
) -> PolicyValue | None:
    """What the packet of a new connection meets; None: denied because the node cannot judge."""
    endpoint = state.endpoints.get(ifindex)
    if endpoint is None or not endpoint.ready:
        return None
    policy = state.policies.get(endpoint.policy)
    if policy is None:
        return None
    backends = state.services.get(ServiceKey(peer, proto, port))
    if direction == Direction.EGRESS and not endpoint.open and backends is not None:
        found = strictest(policy, backends, proto)
    else:
        found = look_up(policy, direction, identity_of(state.ipcache, peer), proto, port)
    if (
        found is not None
        and found.verdict != Verdict.REDIRECT
        and found.ruleset
        and found.ruleset not in state.rulesets
    ):
        return None
    return found


def strictest(policy: Policy, backends: Backends, proto: int) -> PolicyValue | None:
    """What holds for a connection that any of these may get; None: the node cannot judge."""
    if not backends:
        return PolicyValue(Verdict.DENY, Reason.SERVICE_WITHOUT_BACKENDS, 0, 0, 0)
    said: PolicyValue | None = None
    for identity, port in backends[:BACKENDS_MAX]:
        found = look_up(policy, Direction.EGRESS, identity, proto, port)
        if found is None or found.verdict == Verdict.DENY:
            return found
        if said is None or _strictness(found) > _strictness(said):
            said = found
        elif found.ruleset and (found.ruleset, found.verdict) != (said.ruleset, said.verdict):
            return PolicyValue(Verdict.DENY, Reason.SERVICE_MIXED, 0, found.rule, 0)
    if len(backends) > BACKENDS_MAX:
        return PolicyValue(Verdict.DENY, Reason.SERVICE_MIXED, 0, 0, 0)
    return said


def _strictness(value: PolicyValue) -> int:
    return 2 if value.ruleset else value.verdict == Verdict.AUDIT


def effective(policy: Policy, identity: int, as_peer: int) -> dict[PolicyKey, PolicyValue]:
    """Entries that give `as_peer`, by itself, exactly what `policy` gives `identity`.

    They need no (any, ...) entry to fall back on, so they can be put into another policy.
    """
    result: dict[PolicyKey, PolicyValue] = {}
    for direction in (0, 1):
        own = {
            key: value for key, value in policy.items() if key.direction == direction and key.peer == identity
        }
        result |= {key._replace(peer=as_peer): value for key, value in own.items()}
        if PolicyKey(direction, identity, 0, 0, 0) in own:
            continue  # the second step always hits: the third and fourth are never reached
        for key, value in policy.items():
            if key.direction == direction and key.peer == 0 and not any(covers(mine, key) for mine in own):
                result.setdefault(key._replace(peer=as_peer), value)
    return result


def covers(mine: PolicyKey, other: PolicyKey) -> bool:
    """Whether every port of `other` is one of `mine` (peers aside)."""
    return (
        mine.proto == other.proto
        and mine.port_bits <= other.port_bits
        and masked(other.port, mine.port_bits) == mine.port
    )


def masked(port: int, bits: int) -> int:
    """The leading `bits` of a port, the others 0."""
    return port & (0xFFFF << (16 - bits)) & 0xFFFF
