"""Which address has which labels: pods, nodes, API servers and CIDR blocks as claims.

Several may claim one address for a moment (a pod that took over another's); the claim that
sorts first wins, so the answer does not depend on the order of events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache

from yett_policy.cluster import Node, PodFacts, Workload
from yett_policy.document import Direction
from yett_policy.identity import Labels, cidr_labels, inside_block, pod_labels
from yett_policy.policy import Policy, Rule
from yett_policy.prefix import Packed, Prefix, parse_prefix, read_prefix, unpacked
from yett_policy.selector import CidrSelector, exists

Holder = str
"""Sorts by who goes first: `!0-node/NAME`, `!1-api-server/ADDRESS`, the key of a pod, `~cidr/PREFIX`, `~ipv4`."""
_OTHERS = ("!", "~")
"""What no namespace begins with, so that a pod's holder is its key, and no text of its own."""

_HOST = "reserved:host"
_REMOTE = "reserved:remote-node"
_API_SERVER = "reserved:kube-apiserver"
_WORLD: Labels = ("reserved:world",)
_MAPPED = parse_prefix("::ffff:0:0/96")
_ALL_IPV4 = parse_prefix("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Sight:
    """As what a holder is seen, and why; pods of one workload share the object."""

    labels: tuple[Labels, ...] = ()
    """Of each of its prefixes."""
    own: Labels | None = None
    """Labels of the holder as a subject of policies."""
    as_local: tuple[Labels, ...] = ()
    """Of a node's prefixes as the node itself sees them."""
    workload: Workload | None = None
    """Of a pod."""


_sight = lru_cache(maxsize=4096)(Sight)


@dataclass(frozen=True, slots=True)
class Claims:
    """What one holder says."""

    claimed: Packed | tuple[Packed, ...] = ()
    """Prefixes, once each; a lone one bare, which saves a tuple for each pod."""
    sight: Sight = Sight()

    @property
    def prefixes(self) -> tuple[Packed, ...]:
        """All of them."""
        return (self.claimed,) if isinstance(self.claimed, int) else self.claimed

    @property
    def by_prefix(self) -> Iterator[tuple[Packed, Labels]]:
        """With the labels of each."""
        return zip(self.prefixes, self.sight.labels, strict=True)

    @property
    def as_local(self) -> Iterator[tuple[Packed, Labels]]:
        """A node's, with those as the node itself sees them."""
        return zip(self.prefixes, self.sight.as_local, strict=False)  # only nodes have any

    @property
    def own(self) -> Labels | None:
        """See `Sight`."""
        return self.sight.own

    @property
    def label_sets(self) -> tuple[Labels, ...]:
        """All that need a number."""
        sight = self.sight
        return (*sight.labels, *sight.as_local, *(() if sight.own is None else (sight.own,)))


class ClaimsOf(MutableMapping[Holder, Claims]):
    """By holder.  Each half is in a dictionary of its own, and the whole is made when it is asked for: an object for
    each of ten thousand pods takes twice the room.
    """

    def __init__(self) -> None:
        self._claimed: dict[Holder, Packed | tuple[Packed, ...]] = {}
        self._sights: dict[Holder, Sight] = {}

    def __getitem__(self, holder: Holder) -> Claims:
        return Claims(self._claimed[holder], self._sights[holder])

    def __setitem__(self, holder: Holder, claims: Claims) -> None:
        self._claimed[holder], self._sights[holder] = claims.claimed, claims.sight

    def __delitem__(self, holder: Holder) -> None:
        del self._claimed[holder], self._sights[holder]

    def __iter__(self) -> Iterator[Holder]:
        return iter(self._claimed)

    def __len__(self) -> int:
        return len(self._claimed)


class Blocks:
    """The prefixes that policies name, counted."""

    def __init__(self) -> None:
        self.cidrs: Counter[Prefix] = Counter()
        self.ip_blocks: Counter[Prefix] = Counter()
        self.denials_of_nodes = 0
        """Deny rules that cover the node itself: only then do the ports of probes matter."""
        self._lengths: dict[int, list[int]] = {4: [], 6: []}

    def add(self, policy: Policy, count: int) -> None:
        """Count a policy's prefixes; -1 takes them back."""
        for rule in policy.rules:
            if rule.deny and rule.direction is Direction.INGRESS and _covers_node(rule):
                self.denials_of_nodes += count
            for selector in rule.peers or ():
                if isinstance(selector, CidrSelector):
                    for prefix in (selector.network, *selector.excepts):
                        self.cidrs[prefix] += count
                        if selector.everyone:
                            self.ip_blocks[prefix] += count
        self.cidrs, self.ip_blocks = +self.cidrs, +self.ip_blocks
        for version, lengths in self._lengths.items():
            lengths[:] = sorted({p.bits for p in self.ip_blocks if p.version == version}, reverse=True)

    def smallest(self, address: Prefix) -> Prefix | None:
        """The smallest ipBlock (or exception of one) that covers an address."""
        width = 32 if address.version == 4 else 128
        for bits in self._lengths[address.version]:
            block = Prefix(address.version, address.first >> (width - bits) << (width - bits), bits)
            if block in self.ip_blocks:
                return block
        return None

    def claims(self) -> Iterator[tuple[Holder, Claims]]:
        """Identities of addresses outside the cluster."""
        for prefix in self.cidrs:
            yield f"~cidr/{prefix}", Claims(prefix.packed, _sight((cidr_labels(prefix),)))
        if any(prefix.covers(_MAPPED) for prefix in self.cidrs):
            # Addresses are looked up as 16 bytes, IPv4 as ::ffff:a.b.c.d, which ::/0 covers.
            yield "~ipv4", Claims(_ALL_IPV4.packed, _sight((_WORLD,)))


def node_holder(name: str) -> Holder:
    """A node."""
    return f"!0-node/{name}"


def api_server_holder(address: str) -> Holder:
    """An API server outside the cluster."""
    return f"!1-api-server/{address}"


def is_pod(holder: Holder) -> bool:
    """Whether it is one, and so its key."""
    return not holder.startswith(_OTHERS)


def pod_claims(
    pod: PodFacts, counted: Workload, namespace_labels: Mapping[str, str], blocks: Blocks
) -> Claims:
    """Of a pod that has its own addresses; `counted`: its workload with the labels that count."""
    own = pod_labels(counted, namespace_labels, probes=blocks.denials_of_nodes > 0)
    found = tuple(map(unpacked, dict.fromkeys(pod.prefixes)))
    return Claims(_packed(found), _sight(_seen_as(found, own, blocks), own, (), pod.workload))


def node_claims(node: Node, blocks: Blocks) -> Claims:
    """Of a node's addresses."""
    more = (_API_SERVER,) if node.api_server else ()
    found = tuple(dict.fromkeys(map(read_prefix, node.addresses)))
    labels, as_local = (_seen_as(found, tuple(sorted((who, *more))), blocks) for who in (_REMOTE, _HOST))
    return Claims(_packed(found), _sight(labels, None, as_local))


def api_server_claims(address: str) -> Claims:
    """Of an API server outside the cluster."""
    prefix = parse_prefix(address)
    return Claims(prefix.packed, _sight((tuple(sorted((*cidr_labels(prefix), _API_SERVER))),)))


def _covers_node(rule: Rule) -> bool:
    return rule.peers is None or exists(_HOST) in rule.peers


def _packed(prefixes: Iterable[Prefix]) -> Packed | tuple[Packed, ...]:
    packed = tuple(prefix.packed for prefix in prefixes)
    return packed[0] if len(packed) == 1 else packed


def _seen_as(prefixes: Iterable[Prefix], labels: Labels, blocks: Blocks) -> tuple[Labels, ...]:
    found = map(blocks.smallest, prefixes)
    return tuple(labels if block is None else inside_block(labels, block) for block in found)
