"""What the compiler hands out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from yett_policy.cluster import PodKey
from yett_policy.document import Document, Ruleset, Snapshot
from yett_policy.identity import WORLD, Labels, Table
from yett_policy.merge import Conflict
from yett_policy.prefix import Packed, parse_prefix
from yett_policy.service import Backends, Frontend

PodRecord = tuple[str, str, int, tuple[str, ...]]
"""(namespace, name, identity, addresses)."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """All policies over one state of the cluster."""

    documents: Mapping[int, Document]
    """By identity; one for every identity that has a pod."""
    rulesets: Mapping[str, Ruleset]
    """By digest; those that documents name."""
    ipcache: Mapping[str, int]
    """Prefix -> identity, as a node sees it that is none of the cluster's."""
    node_addresses: Mapping[str, Mapping[str, int]]
    """Node -> its prefixes -> identity, as the node itself sees them: `host`."""
    identities: Mapping[int, Labels]
    """Labels of every identity in use."""
    pods: tuple[PodRecord, ...]
    table: Table
    services: Mapping[Frontend, Backends] = field(default_factory=dict)
    """Who is behind the addresses that kube-proxy translates."""

    def ipcache_on(self, node: str | None) -> dict[str, int]:
        """Prefix -> identity as one node sees it; None: as none of them does."""
        return {**self.ipcache, **self.node_addresses.get(node or "", {})}

    def snapshot(self, node: str | None = None, identities: Iterable[int] | None = None) -> Snapshot:
        """Everything that a node must have; `identities` are those of its own pods (None: all)."""
        wanted = set(self.documents if identities is None else identities)
        documents = [self.documents[number] for number in sorted(wanted & self.documents.keys())]
        digests = {digest for document in documents for digest, _ in document.rulesets}
        return Snapshot(
            documents=tuple(documents),
            rulesets=tuple(self.rulesets[digest] for digest in sorted(digests)),
            ipcache=tuple(sorted(self.ipcache_on(node).items())),
            identities=tuple(sorted(self.identities.items())),
            pods=self.pods,
            services=tuple(sorted(self.services.items())),
        )

    def identity_of(self, address: str, node: str | None = None) -> int:
        """The identity that a node sees behind an address; ValueError if it is none."""
        wanted = parse_prefix(address)
        best, number = -1, WORLD
        for text, identity in self.ipcache_on(node).items():
            prefix = parse_prefix(text)
            if prefix.bits > best and prefix.covers(wanted):
                best, number = prefix.bits, identity
        return number


@dataclass(frozen=True, slots=True)
class Delta:
    """What one change did to the output; empty parts did not change."""

    documents: Mapping[int, Document] = field(default_factory=dict)
    """New or different ones."""
    gone: frozenset[int] = frozenset()
    """Identities that no longer have a document."""
    ipcache: Mapping[Packed, int | None] = field(default_factory=dict)
    """Prefix -> identity, or None: no longer there."""
    node_addresses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Node -> all its prefixes, of nodes whose own addresses changed."""
    subjects: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Identity -> sources of the policies that select it, where that may have changed."""
    identities: Mapping[int, Labels | None] = field(default_factory=dict)
    """Labels of identities that came into use; None: no longer in use."""
    services: Mapping[Frontend, Backends | None] = field(default_factory=dict)
    """None: no Service has the address any more."""
    conflicts: frozenset[Conflict] = frozenset()
    """All that there are now between policies that select pods, not only new ones."""
    pods: Mapping[PodKey, int | None] = field(default_factory=dict)
    """Pod -> identity, of pods whose identity or addresses changed; None: none."""
