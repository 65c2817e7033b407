"""What the policies of one subject say, and of which peers: those of whom they say the same are one part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, Protocol

from yett_policy.app_protocol import Spoken
from yett_policy.cluster import NamedPort
from yett_policy.document import ANY_PEER, ANY_PROTO, Direction
from yett_policy.merge import KUBELET, Claim, Defaults, Outcome, merge
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


class Row(NamedTuple):
    """An entry without peer and direction."""

    proto: int
    port: int
    bits: int
    outcome: Outcome


class Part(NamedTuple):
    """Peers of whom the same is said, by what makes it the same."""

    direction: Direction
    rules: tuple[int, ...]
    """Places of the rules that name them, ascending."""
    host: bool
    """They are the node itself."""
    anyone: bool
    """Whoever is in no other part."""
    ports: ServerPorts
    """Of the server."""


class Side:
    """One direction of the policies of one subject."""

    def __init__(self, policies: Sequence[Policy], direction: Direction, own: ServerPorts) -> None:
        """`own`: ports of the subject, which ingress rules speak of."""
        self._direction = direction
        self._own = own if direction is Direction.INGRESS else _UNKNOWN
        self._defaults = _defaults(policies, direction)
        self._rules = [(policy, rule) for policy in policies for rule in policy.rules_of(direction)]
        self._common = [
            span
            for policy, rule in self._rules
            if rule.peers is None
            for span in _spans(policy, rule, self._own.named)
        ]

    def parts(self, peers: Peers) -> Iterator[tuple[Part, Collection[int]]]:
        """Each with its members; ANY_PEER is one."""
        yield Part(self._direction, (), host=False, anyone=True, ports=self._own), (ANY_PEER,)
        ingress = self._direction is Direction.INGRESS
        hosts = set(peers.hosts() if ingress and (self._rules or self._defaults.all) else ())
        named = [_peers_of(rule, ingress, peers) for _, rule in self._rules]
        for places, members in _partition([*named, hosts]):
            host = len(named) in places
            rules = places[:-1] if host else places
            about = [self._rules[place] for place in rules]
            for ports, some in [(self._own, members)] if ingress else _by_ports(about, members, peers):
                yield Part(self._direction, rules, host, anyone=False, ports=ports), some

    def rows(self, part: Part) -> list[Row]:
        """What is said of a part."""
        spans = [span for place in part.rules for span in _spans(*self._rules[place], part.ports.named)]
        if part.host:
            spans += [_Span(TCP, port, port, KUBELET) for port in part.ports.probes]
        complete = part.anyone or part.host or any(span.proto == ANY_PROTO for span in spans)
        return _rows(
            spans, self._common, self._defaults, part.ports.spoken, complete=complete, host=part.host
        )


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
) -> list[Row]:
    """Entries of one peer.

    `own` are the spans of rules that name the peer, `common` those of rules for anyone.  A
    complete peer gets an entry for (any protocol, any port), which hides the common entries:
    then every common span is stated again here.  Otherwise only the ports that an own span
    covers are stated, and the look-up falls through to the common entries elsewhere.
    """
    spans = [*own, *common]
    everything = [span.claim for span in spans if span.proto == ANY_PROTO]
    rows: list[Row] = []
    base: Outcome | None = None
    if complete:
        base = merge(everything, defaults, host=host)
        rows.append(Row(ANY_PROTO, 0, 0, base))
    protos: Mapping[int, None] = dict.fromkeys(span.proto for span in (spans if complete else own))
    for proto in protos:
        if proto == ANY_PROTO:
            continue
        here = [span for span in spans if span.proto == proto]
        speaking = here if complete else [span for span in own if span.proto == proto]
        fallback = base
        if any(span.whole for span in speaking):
            fallback = merge(everything + [span.claim for span in here if span.whole], defaults, host=host)
            rows.append(Row(proto, 0, 0, fallback))
        said = {port.port: port.said for port in spoken if port.proto == proto}
        for first, last, outcome in _runs(here, speaking, everything, defaults, said, host=host):
            if outcome != fallback:
                rows += [Row(proto, port, bits, outcome) for port, bits in blocks(first, last)]
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
