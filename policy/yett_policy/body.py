"""The entries of a document: what the policies of one subject say about every peer.

The identity number of the subject does not matter here, so identities that the same policies
select (and whose ports have the same names and protocols) share one body.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

from yett_policy.app_protocol import Spoken
from yett_policy.cluster import NamedPort
from yett_policy.document import (
    ANY_PEER,
    ANY_PROTO,
    Direction,
    Document,
    Engine,
    Entry,
    Group,
    Ruleset,
    Verdict,
)
from yett_policy.http.rule import RulesetSpec
from yett_policy.merge import KUBELET, Claim, Conflict, Defaults, Outcome, merge
from yett_policy.policy import PORT_MAX, PROTOCOLS, TCP, Policy, Ports, Rule
from yett_policy.ports import blocks
from yett_policy.selector import Selector

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class ServerPorts(NamedTuple):
    """What is known of the ports of whoever is the server, as far as it matters."""

    named: tuple[NamedPort, ...] = ()
    spoken: tuple[Spoken, ...] = ()
    probes: tuple[int, ...] = ()
    """TCP ports that the kubelet probes."""


_UNKNOWN = ServerPorts()


class Peers(Protocol):
    """What a body needs to know of the identities there are."""

    def selected(self, selector: Selector) -> Collection[int]:
        """Identities that a selector of one of the policies selects."""

    def with_port(self, name: str, proto: int) -> Collection[int]:
        """Identities that have a port of that name."""

    def named_ports(self, identity: int) -> Sequence[NamedPort]:
        """Of an identity."""

    def spoken(self, identity: int) -> Sequence[Spoken]:
        """Ports of an identity on which a Service says that HTTP/2 is spoken."""

    def speakers(self) -> Collection[int]:
        """Identities that have such a port."""

    def hosts(self) -> Collection[int]:
        """Identities of the node itself."""


@dataclass(frozen=True, slots=True)
class Body:
    """Groups and rules of a document, and the rulesets that they name."""

    groups: tuple[Group, ...]
    rules: tuple[str, ...]
    rulesets: tuple[Ruleset, ...]
    conflicts: frozenset[Conflict] = frozenset()

    def says_as(self, other: Body | Document) -> bool:
        """Whether groups and rules are equal."""
        return self.rules == other.rules and self.groups == other.groups


class _Span(NamedTuple):
    """A claim and the ports it covers."""

    proto: int
    first: int
    last: int
    claim: Claim

    @property
    def whole(self) -> bool:
        """Every port of the protocol."""
        return self.first == 0 and self.last == PORT_MAX


class _Row(NamedTuple):
    """An entry without peer and direction."""

    proto: int
    port: int
    bits: int
    outcome: Outcome


def build_body(
    policies: Sequence[Policy],
    own: ServerPorts,
    peers: Peers,
    compile_ruleset: Callable[[RulesetSpec], Ruleset],
) -> Body:
    """The body for a subject that exactly `policies` select; `own` are its ports, which ingress
    rules speak of.
    """
    said = [
        (direction, rows, members)
        for direction in Direction
        for rows, members in _direction(policies, direction, own, peers)
    ]
    rules = sorted({row.outcome.rule for _, rows, _ in said for row in rows})
    number = {rule: i for i, rule in enumerate(rules)}
    rulesets: dict[int, Ruleset] = {}
    peers_of: dict[Entry, list[int]] = {}
    for direction, rows, members in said:
        for row in rows:
            spec = row.outcome.ruleset
            if spec is not None and id(spec) not in rulesets:
                rulesets[id(spec)] = compile_ruleset(spec)
            entry = _entry(direction, row, number[row.outcome.rule], rulesets.get(id(spec)))
            peers_of.setdefault(entry, []).extend(members)
    groups = tuple(Group(entry, tuple(sorted(members))) for entry, members in sorted(peers_of.items()))
    unique = {ruleset.digest: ruleset for ruleset in rulesets.values()}
    conflicts = frozenset(each for _, rows, _ in said for row in rows for each in row.outcome.conflicts)
    return Body(groups, tuple(rules), tuple(unique[digest] for digest in sorted(unique)), conflicts)


def _entry(direction: Direction, row: _Row, rule: int, ruleset: Ruleset | None) -> Entry:
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


def _direction(
    policies: Sequence[Policy], direction: Direction, own: ServerPorts, peers: Peers
) -> Iterator[tuple[list[_Row], Iterable[int]]]:
    """Entries, and the peers (ANY_PEER is one) of whom they are said."""
    defaults = _defaults(policies, direction)
    rules = [(policy, rule) for policy in policies for rule in policy.rules_of(direction)]
    ingress = direction is Direction.INGRESS
    server = own if ingress else _UNKNOWN
    common = [
        span for policy, rule in rules if rule.peers is None for span in _spans(policy, rule, server.named)
    ]
    yield _rows([], common, defaults, server.spoken, complete=True, host=False), [ANY_PEER]

    hosts = set(peers.hosts() if ingress and (rules or defaults.all) else ())
    spoken_of = [_peers_of(rule, ingress, peers) for _, rule in rules]
    for chosen, part in _partition([*spoken_of, hosts]):
        host = len(rules) in chosen
        about = [rules[i] for i in chosen if i < len(rules)]
        for ports, members in [(own, part)] if ingress else _by_ports(about, part, peers):
            spans = [span for policy, rule in about for span in _spans(policy, rule, ports.named)]
            if host:
                spans += [_Span(TCP, port, port, KUBELET) for port in ports.probes]
            complete = host or any(span.proto == ANY_PROTO for span in spans)
            yield _rows(spans, common, defaults, ports.spoken, complete=complete, host=host), members


def _partition(sets: Iterable[AbstractSet[int]]) -> list[tuple[tuple[int, ...], AbstractSet[int]]]:
    """Members by which of the sets they are in; of each part the places of those, ascending."""
    parts: list[tuple[tuple[int, ...], AbstractSet[int]]] = []
    seen: set[int] = set()
    for place, members in enumerate(sets):
        split: list[tuple[tuple[int, ...], AbstractSet[int]]] = []
        for places, part in parts:
            if inside := part & members:
                split.append(((*places, place), inside))
            if len(inside) < len(part):
                split.append((places, part - inside))
        if fresh := members - seen:
            split.append(((place,), fresh))
            seen |= fresh
        parts = split
    return parts


def _by_ports(
    rules: Sequence[tuple[Policy, Rule]], members: Collection[int], peers: Peers
) -> Iterator[tuple[ServerPorts, Collection[int]]]:
    """Servers by what is known of their ports, as far as these rules speak of it."""
    named = any(True for _, rule in rules for _ in _names(rule))
    judging = any(rule.has_http for _, rule in rules)
    if not named and not judging:
        yield _UNKNOWN, members
        return
    found: dict[ServerPorts, list[int]] = {}
    for peer in members:
        ports = ServerPorts(
            tuple(peers.named_ports(peer)) if named else (), tuple(peers.spoken(peer)) if judging else ()
        )
        found.setdefault(ports, []).append(peer)
    yield from found.items()


def _defaults(policies: Iterable[Policy], direction: Direction) -> Defaults:
    asking = [policy for policy in policies if policy.default_deny[direction]]
    return Defaults(
        tuple(sorted({policy.default_deny_ref for policy in asking if not policy.audit})),
        tuple(sorted({policy.default_deny_ref for policy in asking if policy.audit})),
    )


def _peers_of(rule: Rule, ingress: bool, peers: Peers) -> set[int]:
    """Whom the rule speaks of by number; for anyone only whose ports make a difference."""
    if rule.peers is not None:
        return set().union(*(peers.selected(selector) for selector in rule.peers))
    if ingress:
        return set()
    found = set(peers.speakers()) if rule.has_http else set()
    return found.union(*(peers.with_port(port.name, port.proto) for port in _names(rule)))


def _names(rule: Rule) -> Iterator[Ports]:
    return (ports for port_rule in rule.ports or () for ports in port_rule.ports if ports.name)


def _spans(policy: Policy, rule: Rule, named: Iterable[NamedPort]) -> Iterator[_Span]:
    if rule.ports is None:
        yield _Span(ANY_PROTO, 0, PORT_MAX, Claim(policy, rule.ref, rule.deny))
        return
    for port_rule in rule.ports:
        claim = Claim(policy, port_rule.ref, rule.deny, port_rule.http)
        for ports in port_rule.ports:
            if not ports.name:
                yield _Span(ports.proto, ports.first, ports.last, claim)
                continue
            for port in named:
                if port.name == ports.name and port.protocol == PROTOCOL_NAMES[ports.proto]:
                    yield _Span(ports.proto, port.port, port.port, claim)


def _rows(
    own: Sequence[_Span],
    common: Sequence[_Span],
    defaults: Defaults,
    spoken: Sequence[Spoken],
    *,
    complete: bool,
    host: bool,
) -> list[_Row]:
    """Entries of one peer.

    `own` are the spans of rules that name the peer, `common` those of rules for anyone.  A
    complete peer gets an entry for (any protocol, any port), which hides the common entries:
    then every common span is stated again here.  Otherwise only the ports that an own span
    covers are stated, and the look-up falls through to the common entries elsewhere.
    """
    spans = [*own, *common]
    everything = [span.claim for span in spans if span.proto == ANY_PROTO]
    rows: list[_Row] = []
    base: Outcome | None = None
    if complete:
        base = merge(everything, defaults, host=host)
        rows.append(_Row(ANY_PROTO, 0, 0, base))
    protos: Mapping[int, None] = dict.fromkeys(span.proto for span in (spans if complete else own))
    for proto in protos:
        if proto == ANY_PROTO:
            continue
        here = [span for span in spans if span.proto == proto]
        speaking = here if complete else [span for span in own if span.proto == proto]
        fallback = base
        if any(span.whole for span in speaking):
            fallback = merge(everything + [span.claim for span in here if span.whole], defaults, host=host)
            rows.append(_Row(proto, 0, 0, fallback))
        said = {port.port: port.said for port in spoken if port.proto == proto}
        for first, last, outcome in _runs(here, speaking, everything, defaults, said, host=host):
            if outcome != fallback:
                rows += [_Row(proto, port, bits, outcome) for port, bits in blocks(first, last)]
    return rows


def _runs(
    here: Sequence[_Span],
    speaking: Sequence[_Span],
    everything: list[Claim],
    defaults: Defaults,
    said: Mapping[int, str],
    *,
    host: bool,
) -> Iterator[tuple[int, int, Outcome]]:
    """The ports that `speaking` covers, cut where the outcome changes; `said`: who says of a
    port that HTTP/2 is spoken there.
    """
    starts: dict[int, list[_Span]] = {}
    for span in here:
        starts.setdefault(span.first, []).append(span)
        starts.setdefault(span.last + 1, [])
    for port in said:
        starts.setdefault(port, [])
        starts.setdefault(port + 1, [])
    speakers = {id(span) for span in speaking}
    active: list[_Span] = []
    run: tuple[int, int, Outcome] | None = None
    for cut, after in pairwise([*sorted(starts), PORT_MAX + 1]):
        active = [span for span in active if span.last >= cut] + starts[cut]
        if cut > PORT_MAX or not any(id(span) in speakers for span in active):
            continue
        outcome = merge(everything + [span.claim for span in active], defaults, host=host)
        if cut in said and outcome.ruleset is not None and outcome.ruleset.engine != "Sidecar":
            outcome = outcome._replace(ruleset=replace(outcome.ruleset, app_protocol=said[cut]))
        if run is not None and run[1] == cut - 1 and run[2] == outcome:
            run = (run[0], after - 1, run[2])
            continue
        if run is not None:
            yield run
        run = (cut, after - 1, outcome)
    if run is not None:
        yield run
