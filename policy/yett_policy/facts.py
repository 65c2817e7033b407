"""Which address has which labels: pods, nodes, API servers and CIDR blocks as claims.

Several may claim one address for a moment (a pod that took over another's); the claim that
sorts first wins, so the answer does not depend on the order of events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from yett_policy.cluster import Node, Workload
from yett_policy.document import Direction
from yett_policy.identity import Labels, cidr_labels, inside_block, pod_labels
from yett_policy.policy import Policy, Rule
from yett_policy.prefix import Prefix, parse_prefix, read_prefix
from yett_policy.selector import CidrSelector, exists

Holder = tuple[str, ...]
"""Sorts by who goes first: `0-node`, `1-api-server`, `2-pod`, `3-cidr`, then names."""

_HOST = "reserved:host"
_REMOTE = "reserved:remote-node"
_API_SERVER = "reserved:kube-apiserver"
_WORLD: Labels = ("reserved:world",)
_MAPPED = parse_prefix("::ffff:0:0/96")
_ALL_IPV4 = parse_prefix("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Claims:
    """What one holder says."""

    prefixes: tuple[str, ...] = ()
    """As text, once each."""
    labels: tuple[Labels, ...] = ()
    """Of each of them."""
    own: Labels | None = None
    """Labels of the holder as a subject of policies."""
    as_local: tuple[Labels, ...] = ()
    """Of a node's prefixes as the node itself sees them."""

    @property
    def label_sets(self) -> tuple[Labels, ...]:
        """All that need a number."""
        return (*self.labels, *self.as_local, *(() if self.own is None else (self.own,)))


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
            yield ("3-cidr", str(prefix)), Claims((str(prefix),), (cidr_labels(prefix),))
        if any(prefix.covers(_MAPPED) for prefix in self.cidrs):
            # Addresses are looked up as 16 bytes, IPv4 as ::ffff:a.b.c.d, which ::/0 covers.
            yield ("4-ipv4",), Claims((str(_ALL_IPV4),), (_WORLD,))


def pod_claims(
    workload: Workload, addresses: Iterable[str], namespace_labels: Mapping[str, str], blocks: Blocks
) -> Claims:
    """Of a pod that has its own addresses, which may be prefixes that it claims already."""
    own = pod_labels(workload, namespace_labels, probes=blocks.denials_of_nodes > 0)
    found = _prefixes(addresses)
    return Claims(_texts(found), _seen_as(found, own, blocks), own)


def node_claims(node: Node, blocks: Blocks) -> Claims:
    """Of a node's addresses."""
    more = (_API_SERVER,) if node.api_server else ()
    found = _prefixes(node.addresses)
    return Claims(
        _texts(found),
        _seen_as(found, tuple(sorted((_REMOTE, *more))), blocks),
        as_local=_seen_as(found, tuple(sorted((_HOST, *more))), blocks),
    )


def api_server_claims(address: str) -> Claims:
    """Of an API server outside the cluster."""
    prefix = parse_prefix(address)
    return Claims((str(prefix),), (tuple(sorted((*cidr_labels(prefix), _API_SERVER))),))


def _covers_node(rule: Rule) -> bool:
    return rule.peers is None or exists(_HOST) in rule.peers


def _prefixes(addresses: Iterable[str]) -> tuple[Prefix, ...]:
    return tuple(dict.fromkeys(map(read_prefix, addresses)))


def _texts(prefixes: Iterable[Prefix]) -> tuple[str, ...]:
    return tuple(map(str, prefixes))


def _seen_as(prefixes: Iterable[Prefix], labels: Labels, blocks: Blocks) -> tuple[Labels, ...]:
    found = map(blocks.smallest, prefixes)
    return _one(tuple(labels if block is None else inside_block(labels, block) for block in found))


@lru_cache(maxsize=4096)
def _one(labels: tuple[Labels, ...]) -> tuple[Labels, ...]:
    """Pods of one workload share the object."""
    return labels
