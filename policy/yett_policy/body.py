"""The entries of a document: what the policies of one subject say about every peer.

The identity number of the subject does not matter here, so identities that the same policies
select (and whose ports have the same names and protocols) share one body.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from yett_policy.document import ANY_PEER, Direction, Document, Engine, Entry, Group, Ruleset, Verdict
from yett_policy.http.rule import RulesetSpec
from yett_policy.merge import Conflict
from yett_policy.parts import Part, Peers, Row, ServerPorts, Side
from yett_policy.policy import Policy

T = TypeVar("T", bound=Hashable)

_NO_CONFLICTS: frozenset[Conflict] = frozenset()
"""One object: each other empty set takes 216 bytes."""


@dataclass(frozen=True, slots=True)
class Body:
    """Groups and rules of a document, and the rulesets that they name."""

    groups: tuple[Group, ...]
    rules: tuple[str, ...]
    rulesets: tuple[Ruleset, ...]
    conflicts: frozenset[Conflict]
    parts: tuple[tuple[Part, tuple[Entry, ...]], ...] = field(compare=False)
    """What is said of the peers of each part; `groups` say who those are."""

    def sharing(self, one: dict[Hashable, Any]) -> Body:
        """The same, with the objects of `one` for equal ones: much is said alike of many subjects."""

        def same(value: T) -> T:
            shared: T = one.setdefault(value, value)
            return shared

        parts = tuple((same(part), same(tuple(map(same, said)))) for part, said in self.parts)
        groups = (Group(same(entry), same(peers)) for entry, peers in self.groups)
        return replace(self, groups=tuple(map(same, groups)), parts=parts)

    def says_as(self, other: Body | Document) -> bool:
        """Whether groups and rules are equal."""
        return self.rules == other.rules and self.groups == other.groups


def build_body(
    policies: Sequence[Policy],
    own: ServerPorts,
    peers: Peers,
    compile_ruleset: Callable[[RulesetSpec], Ruleset],
    known: Body | None = None,
) -> Body:
    """The body for a subject that exactly `policies` select; `own` are its ports, which ingress
    rules speak of.  `known` is what it was with other peers: what it says is not worked out again.
    """
    sides = [Side(policies, direction, own) for direction in Direction]
    members = {part: some for side in sides for part, some in side.parts(peers)}
    if known is not None and dict(known.parts).keys() == members.keys():
        return replace(known, groups=_groups(known.parts, members))
    rows = {part: sides[part.direction].rows(part) for part in members}
    rules = sorted({row.outcome.rule for said in rows.values() for row in said})
    number = {rule: i for i, rule in enumerate(rules)}
    rulesets: dict[int, Ruleset] = {}
    parts: list[tuple[Part, tuple[Entry, ...]]] = []
    for part, said in rows.items():
        for spec in (row.outcome.ruleset for row in said):
            if spec is not None and id(spec) not in rulesets:
                rulesets[id(spec)] = compile_ruleset(spec)
        entries = (
            _entry(part.direction, row, number[row.outcome.rule], rulesets.get(id(row.outcome.ruleset)))
            for row in said
        )
        parts.append((part, tuple(entries)))
    unique = {ruleset.digest: ruleset for ruleset in rulesets.values()}
    return Body(
        groups=_groups(parts, members),
        rules=tuple(rules),
        rulesets=tuple(unique[digest] for digest in sorted(unique)),
        conflicts=frozenset(each for said in rows.values() for row in said for each in row.outcome.conflicts)
        or _NO_CONFLICTS,
        parts=tuple(parts),
    )


def _groups(
    parts: Iterable[tuple[Part, tuple[Entry, ...]]], members: Mapping[Part, Collection[int]]
) -> tuple[Group, ...]:
    peers: dict[Entry, list[int]] = {}
    for part, entries in parts:
        for entry in entries:
            peers.setdefault(entry, []).extend(members[part])
    return tuple(Group(entry, tuple(sorted(found))) for entry, found in sorted(peers.items()))


def _entry(direction: Direction, row: Row, rule: int, ruleset: Ruleset | None) -> Entry:
    """The row as an entry for anyone."""
    verdict = row.outcome.verdict
    if ruleset is not None and ruleset.engine is Engine.SIDECAR:
        verdict = Verdict.REDIRECT
    return Entry(
        direction,
        ANY_PEER,
        row.proto,
        row.port,
        row.bits,
        verdict,
        row.outcome.reason,
        rule,
        ruleset.digest if ruleset else "",
        ruleset.spec.forbidden if ruleset else False,
    )
