"""PURE: numbers of this node: slots, handles, rule numbers.

Digests and rule references are the same on every node; the kernel wants small numbers.  A
number, once given, keeps its meaning for as long as anything in the maps (a retired ruleset
that a request is still running through, a counter, a flow) may carry it.  So the step from one
assignment to the next looks at what the maps hold, and an assignment that was lost, or does
not fit the maps, only costs numbers, never meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from yett_loader.errors import LoaderError
from yett_loader.memo import Memo
from yett_loader.state import MapState, Policy, RulesetState
from yett_policy.document import Engine, Ruleset, Snapshot
from yett_policy.http.layout import TIER_SIZE
from yett_policy.sync.values import table_header

RULE_LIMIT = 65536
TIER_BITS = 24
TRANSITIONS = 16
"""Policy slots that a plan may need besides those wanted, kept free of documents."""


class MapFull(LoaderError):  # noqa: N818 - reads better
    """What is wanted does not fit into the maps; nothing was changed."""


class Crowded(MapFull):
    """There is not enough room now; there may be when what is retired has been dropped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps that numbers point into."""

    policies: int
    rulesets: tuple[int, ...]
    """By tier."""
    ipcache: int
    endpoints: int
    services: int = 65536


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ruleset is on this node."""

    handle: int
    state: RulesetState


@dataclass(frozen=True, slots=True)
class Assignment:
    """All numbers given."""

    rulesets: Mapping[str, Place] = field(default_factory=dict)
    """By digest."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Digest -> slot in `policies`."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """Rule reference of documents -> number."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Number -> rule reference, those of rulesets too."""


def rules_in(policy: Policy) -> frozenset[int]:
    """Every rule number that it can speak of."""
    return frozenset(value.rule for value in policy.values())


Numbers = Memo[Policy, frozenset[int]]
"""`rules_in`, of policies that mostly were looked at before."""


def assign(
    snapshot: Snapshot,
    previous: Assignment,
    have: MapState,
    limits: Limits,
    numbers: Numbers | None = None,
) -> Assignment:
    """Numbers for everything in `snapshot`; Crowded if there are not enough."""
    in_use = _rule_numbers(have, numbers or Memo(rules_in))
    names = {number: name for number, name in previous.names.items() if number in in_use}
    taken = bytearray(RULE_LIMIT)
    taken[0] = 1
    for number in in_use:
        taken[number] = 1

    # First those that stay: what is new must not push them on, and with them every document that names them.
    references = sorted({name for document in snapshot.documents for name in document.rules})
    rules: dict[str, int] = {}
    for reference in references:
        number = previous.rules.get(reference, 0)
        if number and (not taken[number] or names.get(number) == reference):
            taken[number] = 1
            rules[reference] = number
            names[number] = reference

    kernel = {item.digest: item for item in snapshot.rulesets if item.engine is Engine.KERNEL}
    rulesets = _places(kernel, previous, have, limits, taken)
    for digest, place in rulesets.items():
        spec = kernel[digest].spec
        base = place.state.rule_base
        names |= {base + index: rule.ref for index, rule in enumerate(spec.rules)}
        names[base + len(spec.rules)] = spec.default_rule

    for reference in references:
        if reference not in rules:
            number = rules[reference] = _block(taken, 1)
            taken[number] = 1
            names[number] = reference

    wanted = sorted({document.digest for document in snapshot.documents})
    documents = {digest: previous.documents[digest] for digest in wanted if digest in previous.documents}
    used = set(have.policies) | set(documents.values()) | {0}
    for digest in wanted:
        if digest not in documents:
            documents[digest] = _slot(used, limits.policies - TRANSITIONS, "policies", "documents")
            used.add(documents[digest])
    return Assignment(rulesets, documents, rules, names)


def check_room(want: MapState, limits: Limits) -> None:
    """MapFull unless the maps hold all of it; what numbers point into is the business of `assign`."""
    for name, rows, limit in (
        ("ipcache", want.ipcache, limits.ipcache),
        ("services", want.services, limits.services),
        ("endpoints", want.endpoints, limits.endpoints),
    ):
        if len(rows) > limit:
            raise MapFull(
                f"cannot place {len(rows)} entries: map {name} holds {limit}; raise the size of {name} and "
                "reload (`yett-loader unload`, `load`)"
            )


def moved(assignment: Assignment, digests: Iterable[str], have: MapState, limits: Limits) -> Assignment:
    """Other slots for documents whose slot holds something else (an assignment that was lost)."""
    documents = dict(assignment.documents)
    used = set(have.policies) | set(documents.values()) | {0}
    for digest in digests:
        documents[digest] = _slot(used, limits.policies - TRANSITIONS, "policies", "documents")
        used.add(documents[digest])
    return Assignment(assignment.rulesets, documents, assignment.rules, assignment.names)


def handle(tier: int, slot: int) -> int:
    """As policy entries name rulesets."""
    return tier << TIER_BITS | slot


def tier_and_slot(number: int) -> tuple[int, int]:
    """The inverse of `handle`."""
    return number >> TIER_BITS, number & ((1 << TIER_BITS) - 1)


def _places(
    kernel: Mapping[str, Ruleset], previous: Assignment, have: MapState, limits: Limits, taken: bytearray
) -> dict[str, Place]:
    places: dict[str, Place] = {}
    used = set(have.rulesets)
    for digest in sorted(kernel):
        known = previous.rulesets.get(digest)
        if known is not None and have.rulesets.get(known.handle) == known.state:
            places[digest] = known
    for digest in sorted(kernel.keys() - places.keys()):
        item = kernel[digest]
        slots = {number & ((1 << TIER_BITS) - 1) for number in used if number >> TIER_BITS == item.tier}
        size = f"rulesets of {TIER_SIZE[item.tier] >> 10} KiB"
        slot = _slot(slots | {0}, limits.rulesets[item.tier], f"rulesets{item.tier}", size)
        rules = len(item.spec.rules) + 1
        base = _block(taken, rules)
        taken[base : base + rules] = b"\1" * rules
        number = handle(item.tier, slot)
        used.add(number)
        places[digest] = Place(number, RulesetState(table_header(item.tables)["id"], base, rules))
    return places


def _rule_numbers(have: MapState, numbers: Numbers) -> set[int]:
    """Every rule number that something in the maps can speak of."""
    found: set[int] = set().union(*numbers.of(have.policies.values()))
    for state in have.rulesets.values():
        found |= set(range(state.rule_base, min(state.rule_base + state.rules, RULE_LIMIT)))
    return found - {0}


def _block(taken: bytearray, count: int) -> int:
    at = taken.find(bytes(count))
    if at < 0:
        raise Crowded(
            f"cannot number {count} rules: the node has {RULE_LIMIT - 1} rule numbers and too few are free "
            "in a row; use fewer rules per node"
        )
    return at


def _slot(used: set[int], room: int, name: str, what: str) -> int:
    slot = next((number for number in range(1, room) if number not in used), 0)
    if not slot:
        raise Crowded(
            f"cannot place more {what}: map {name} is full ({room}); raise the size of {name} and reload "
            "(`yett-loader unload`, `load`)"
        )
    return slot
