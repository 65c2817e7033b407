"""What loaders must have, as of the last batch: the `SnapshotSource` of the sync stream."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from sys import intern
from typing import TypeVar

from yett_operator.compilation.batch import Outcome, RulesetFacts
from yett_operator.compilation.places import Places
from yett_operator.differing import changed, differing
from yett_operator.kube.slim import SlimPod
from yett_operator.ports import (
    Change,
    Listener,
    NodeSnapshot,
    PublishedDocument,
    PublishedRuleset,
    PublishedSecret,
)
from yett_policy.cluster import PodKey
from yett_policy.identity import one_text
from yett_policy.prefix import Packed
from yett_policy.service import Backends, Frontend

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


class Publisher:
    """Everything that is published, with the places of pods."""

    def __init__(self) -> None:
        self.documents: dict[int, PublishedDocument] = {}
        self.rulesets: dict[str, PublishedRuleset] = {}
        self.ruleset_facts: dict[str, RulesetFacts] = {}
        self.ipcache: dict[Packed, int] = {}
        self.node_addresses: dict[str, Mapping[str, int]] = {}
        self.identities: dict[int, tuple[str, ...]] = {}
        self.services: dict[Frontend, Backends] = {}
        self.secrets: dict[str, PublishedSecret] = {}
        self._places = Places()
        self.pods, self.by_node = self._places.pods, self._places.by_node
        self.nodes_of = self._places.nodes_of
        self._epoch = secrets.token_hex(8)
        self._revision = 0
        self._listeners: list[Listener] = []

    @property
    def epoch(self) -> str:
        """See `SnapshotSource`."""
        return self._epoch

    @property
    def revision(self) -> int:
        """See `SnapshotSource`."""
        return self._revision

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """See `SnapshotSource`."""
        return len(self.ipcache), len(self.identities), len(self.pods), len(self.services)

    def snapshot(self, node: str) -> NodeSnapshot:
        """See `SnapshotSource`."""
        if not self._revision:
            raise RuntimeError("nothing is published yet")
        endpoints = self.by_node.get(node, ())
        documents = {
            pod.identity: self.documents[pod.identity] for pod in endpoints if pod.identity in self.documents
        }
        digests = sorted({digest for document in documents.values() for digest in document.rulesets})
        return NodeSnapshot(
            revision=self._revision,
            documents=documents,
            rulesets={digest: self.rulesets[digest] for digest in digests},
            ipcache=self.ipcache,
            node_addresses=self.node_addresses.get(node, {}),
            identities=self.identities,
            pods=self.pods,
            endpoints=endpoints,
            services=self.services,
            secrets={
                name: self.secrets[name]
                for digest in digests
                for name in self.rulesets[digest].secrets
                if name in self.secrets
            },
        )

    def document(self, identity: int) -> PublishedDocument | None:
        """See `SnapshotSource`."""
        return self.documents.get(identity)

    def ruleset(self, digest: str) -> PublishedRuleset | None:
        """See `SnapshotSource`."""
        return self.rulesets.get(digest)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """See `SnapshotSource`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # -- in

    def publish_secret(self, name: str, secret: PublishedSecret | None) -> None:
        """It came, has another value, or is gone.  Before anything is compiled nobody is told."""
        if self.secrets.get(name) == secret:
            return
        _update(self.secrets, {name: secret})
        if self._revision:
            self._tell(Change(self._revision + 1, secrets=frozenset({name})))

    def publish(self, outcome: Outcome, pods: Mapping[PodKey, SlimPod | None]) -> Change | None:
        """What a batch led to; `pods` are those of the batch.  None if nothing changed."""
        moves = self._places.update(pods, outcome.pods, first=not self._revision)
        self.documents.update(outcome.documents)
        for document in outcome.documents.values():
            intern(document.digest)  # loaders will name it too
        for number in outcome.gone:
            self.documents.pop(number, None)
        self.rulesets.update(outcome.rulesets)
        self.ruleset_facts.update(
            (digest, replace(facts, sources=one_text(facts.sources)))
            for digest, facts in outcome.ruleset_facts.items()
        )
        for digest in outcome.rulesets_gone:
            self.rulesets.pop(digest, None)
            self.ruleset_facts.pop(digest, None)
        one = self._places.one
        _update(self.ipcache, {prefix: number and one(number) for prefix, number in outcome.ipcache.items()})
        self.node_addresses.update(outcome.node_addresses)
        for node in [node for node, held in outcome.node_addresses.items() if not held]:
            del self.node_addresses[node]
        _update(
            self.identities,
            {number: labels and one_text(labels) for number, labels in outcome.identities.items()},
        )
        _update(self.services, outcome.services)
        change = Change(
            revision=self._revision + 1,
            documents=outcome.documents,
            gone=outcome.gone,
            rulesets=outcome.rulesets,
            ipcache=outcome.ipcache,
            node_addresses=outcome.node_addresses,
            identities=outcome.identities,
            services=outcome.services,
            pods=moves.pods,
            moved=moves.moved,
            came=moves.came,
            left=moves.left,
        )
        if self._revision and change == Change(self._revision + 1):
            return None
        self._tell(change)
        return change

    def publish_whole(self, outcome: Outcome, pods: Mapping[PodKey, SlimPod | None]) -> Change | None:
        """The first outcome of a compiling process that was started anew: what it does not speak
        of is gone.
        """
        outcome = replace(
            outcome,
            documents=changed(self.documents, outcome.documents),
            gone=frozenset(self.documents.keys() - outcome.documents.keys()),
            rulesets=changed(self.rulesets, outcome.rulesets),
            rulesets_gone=frozenset(self.rulesets.keys() - outcome.rulesets.keys()),
            ipcache=differing(self.ipcache, outcome.ipcache),
            node_addresses={node: {} for node in self.node_addresses.keys() - outcome.node_addresses.keys()}
            | changed(self.node_addresses, outcome.node_addresses),
            identities=differing(self.identities, outcome.identities),
            services=differing(self.services, outcome.services),
            pods=_absent(self.pods, outcome.pods) | dict(outcome.pods),
        )
        gone = dict.fromkeys((self.pods.keys() | self._places.waiting.keys()) - pods.keys())
        return self.publish(outcome, {**gone, **pods})

    def _tell(self, change: Change) -> None:
        self._revision = change.revision
        for listener in tuple(self._listeners):
            try:
                listener(change)
            except Exception:
                log.exception("a listener failed at revision %d", change.revision)


def _update(held: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


def _absent(held: Mapping[K, object], now: Mapping[K, V]) -> dict[K, V | None]:
    return dict.fromkeys(held.keys() - now.keys())
