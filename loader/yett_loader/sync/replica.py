"""PURE: what the operator has sent, complete up to a revision; updates are taken whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, assert_never

from yett_loader.copied import Copied
from yett_loader.endpoint import LocalEndpoint
from yett_loader.rows import updated
from yett_loader.snapshot import Wanted
from yett_policy.document import Document, Ruleset, Snapshot, canonical
from yett_policy.service import Backends, Frontend
from yett_policy.sync import values
from yett_policy.sync.message import (
    LOCAL_MAX,
    AddressesPart,
    Begin,
    Commit,
    DocumentPart,
    IdentitiesPart,
    NodeChanges,
    NodePart,
    Part,
    PodName,
    PodsPart,
    Problem,
    RulesetPart,
    SecretPart,
    ServicesPart,
)

ROWS_MAX = 1 << 20
"""Of a whole update, each kind."""

K = TypeVar("K")
V = TypeVar("V")
Pod = tuple[int, tuple[str, ...]]
_CLUSTER = (AddressesPart, IdentitiesPart, PodsPart, ServicesPart)


class Refused(Exception):  # noqa: N818 - reads better
    """Nothing of an update is taken."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Replica:
    """A whole state; the next one is made beside it."""

    epoch: str = ""
    revision: int = 0
    """0: the cluster's parts are not known, only documents and rulesets from disk."""
    documents: Mapping[str, Document] = field(default_factory=dict)
    """By digest."""
    rulesets: Mapping[str, Ruleset] = field(default_factory=dict)
    """By content."""
    node: NodePart = field(default_factory=lambda: NodePart({}, {}, {}, ()))
    ipcache: Mapping[str, int] = field(default_factory=dict)
    identities: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    pods: Mapping[PodName, Pod] = field(default_factory=dict)
    services: Mapping[Frontend, Backends] = field(default_factory=dict)
    secrets: Mapping[str, SecretPart] = field(default_factory=dict)
    """By name."""
    wanted: Wanted = field(default_factory=lambda: Wanted(Snapshot()))
    """All of it, as the agent wants it."""


def from_disk(wanted: Wanted) -> Replica:
    """What need not be sent again, though nothing is known about how new it is."""
    return Replica(
        documents={item.digest: item for item in wanted.snapshot.documents},
        rulesets={content_of(item): item for item in wanted.snapshot.rulesets},
        wanted=wanted,
    )


def content_of(ruleset: Ruleset) -> str:
    """SHA-256 of a ruleset with its tables, as published."""
    return hashlib.sha256(canonical(values.ruleset_json(ruleset))).hexdigest()


class Update:
    """One update on its way in, from Begin to Commit."""

    def __init__(self, base: Replica, epoch: str, begin: Begin) -> None:
        """Refused if it is no change to `base`."""
        if begin.base is not None and (base.epoch != epoch or base.revision != begin.base):
            raise Refused(
                Problem.GAP,
                f"update {begin.seq} changes revision {begin.base}, this node is at {base.revision}",
            )
        self.begin = begin
        self._base = base
        self._epoch = epoch
        whole = begin.base is None
        self._node: NodePart | None = None
        self._documents: dict[str, Document] = {}
        self._rulesets: dict[str, Ruleset] = {}
        self._secrets: dict[str, SecretPart] = {}
        self._ipcache = Copied({} if whole else base.ipcache)
        self._identities = Copied({} if whole else base.identities)
        self._pods = Copied({} if whole else base.pods)
        self._services = Copied({} if whole else base.services)
        self._changed: dict[type, set[Any]] = {kind: set() for kind in _CLUSTER}
        """Keys that changed, by kind of part."""

    def take(self, part: Part) -> None:
        """Refused if there is too much of it."""
        match part:
            case NodePart():
                self._node = part
            case NodeChanges():
                if self.begin.base is None:
                    raise Refused(Problem.MALFORMED, "changes of the node's part in a snapshot")
                self._node = (self._node or self._base.node).changed(part)
            case DocumentPart(digest, document):
                self._documents[digest] = document
            case RulesetPart(content, ruleset):
                self._rulesets[content] = ruleset
            case SecretPart():
                self._secrets[part.name] = part
            case AddressesPart(rows):
                self._change(AddressesPart, self._ipcache, rows)
            case IdentitiesPart(rows):
                self._change(IdentitiesPart, self._identities, rows)
            case PodsPart(rows):
                self._change(PodsPart, self._pods, rows)
            case ServicesPart(rows):
                self._change(ServicesPart, self._services, rows)
            case _:
                assert_never(part)
        for kind, held in (
            ("addresses", self._ipcache.now),
            ("identities", self._identities.now),
            ("pods", self._pods.now),
            ("services", self._services.now),
            ("documents", self._documents),
            ("rulesets", self._rulesets),
            ("secrets", self._secrets),
        ):
            if len(held) > ROWS_MAX:
                raise Refused(Problem.MALFORMED, f"more than {ROWS_MAX} {kind} in one update")

    def commit(self, end: Commit) -> Replica:
        """The new state; Refused if anything does not fit together."""
        if end.seq != self.begin.seq:
            raise Refused(Problem.MALFORMED, f"commit {end.seq} ends update {self.begin.seq}")
        for kind, want, have in (
            ("addresses", end.ipcache, len(self._ipcache.now)),
            ("identities", end.identities, len(self._identities.now)),
            ("pods", end.pods, len(self._pods.now)),
            ("services", end.services, len(self._services.now)),
        ):
            if want != have:
                raise Refused(Problem.GAP, f"{have} {kind} here, {want} at the operator")
        if self._node is None and self.begin.base is None:
            raise Refused(Problem.MALFORMED, "a snapshot without the node's part")
        node = self._node or self._base.node
        for kind, count in ("documents", len(node.documents)), ("endpoints", len(node.endpoints)):
            if count > LOCAL_MAX:
                raise Refused(Problem.MALFORMED, f"{count} {kind} on one node, at most {LOCAL_MAX} are taken")
        documents, rulesets = self._bodies(node)
        secrets = self._values(node)
        return Replica(
            epoch=self._epoch,
            revision=self.begin.revision,
            documents=documents,
            rulesets=rulesets,
            node=node,
            ipcache=self._ipcache.now,
            identities=self._identities.now,
            pods=self._pods.now,
            services=self._services.now,
            secrets=secrets,
            wanted=self._wanted(node, documents, rulesets, secrets),
        )

    def _values(self, node: NodePart) -> dict[str, SecretPart]:
        """The secrets that the node's part names."""
        found: dict[str, SecretPart] = {}
        for name, version in node.secrets.items():
            for part in (self._secrets.get(name), self._base.secrets.get(name)):
                if part is not None and part.version == version:
                    found[name] = part
            if name not in found:
                raise Refused(Problem.GAP, f"secret {name} was not sent")
        return found

    def _bodies(self, node: NodePart) -> tuple[dict[str, Document], dict[str, Ruleset]]:
        """What the node's part names, and nothing else."""
        known = {**self._base.documents, **self._documents}
        compiled = {**self._base.rulesets, **self._rulesets}
        documents: dict[str, Document] = {}
        for identity, digest in node.documents.items():
            document = known.get(digest)
            if document is None:
                raise Refused(Problem.GAP, f"document {digest[:12]} of identity {identity} was not sent")
            if document.identity != identity:
                raise Refused(
                    Problem.MALFORMED, f"document {digest[:12]} is of {document.identity}, not {identity}"
                )
            documents[digest] = document
        rulesets: dict[str, Ruleset] = {}
        for digest, content in node.rulesets.items():
            ruleset = compiled.get(content)
            if ruleset is None:
                raise Refused(Problem.GAP, f"ruleset {digest[:12]} was not sent")
            if ruleset.digest != digest:
                raise Refused(Problem.MALFORMED, f"ruleset {ruleset.digest[:12]} stands as {digest[:12]}")
            rulesets[content] = ruleset
        for document in documents.values():
            for digest, _ in document.rulesets:
                if digest not in node.rulesets:
                    raise Refused(
                        Problem.MALFORMED,
                        f"ruleset {digest[:12]} of identity {document.identity} is not listed",
                    )
        return documents, rulesets

    def _wanted(
        self,
        node: NodePart,
        documents: Mapping[str, Document],
        rulesets: Mapping[str, Ruleset],
        secrets: Mapping[str, SecretPart],
    ) -> Wanted:
        """Parts that did not change stay the same objects: who compares them is done at once."""
        whole, wanted = self.begin.base is None, self._base.wanted
        snapshot, endpoints = wanted.snapshot, wanted.endpoints
        if whole or (self._node is not None and node.addresses != self._base.node.addresses):
            snapshot = replace(
                snapshot, ipcache=tuple(sorted({**self._ipcache.now, **node.addresses}.items()))
            )
        elif changed := self._changed[AddressesPart] - node.addresses.keys():
            rows = {(key,): self._ipcache.now.get(key) for key in changed}
            now = {key: None if value is None else (*key, value) for key, value in rows.items()}
            snapshot = replace(snapshot, ipcache=updated(snapshot.ipcache, now))
        if self._node is not None:
            snapshot = replace(
                snapshot,
                documents=tuple(sorted(documents.values(), key=lambda item: item.identity)),
                rulesets=tuple(sorted(rulesets.values(), key=lambda item: item.digest)),
            )
            endpoints = _endpoints(node)
        if whole or self._changed[IdentitiesPart]:
            snapshot = replace(snapshot, identities=tuple(sorted(self._identities.now.items())))
        if whole:
            snapshot = replace(
                snapshot, pods=tuple(sorted((*key, *pod) for key, pod in self._pods.now.items()))
            )
        elif changed := self._changed[PodsPart]:
            pods = {key: self._pods.now.get(key) for key in changed}
            named = {key: None if pod is None else (*key, *pod) for key, pod in pods.items()}
            snapshot = replace(snapshot, pods=updated(snapshot.pods, named))
        if whole or self._changed[ServicesPart]:
            snapshot = replace(snapshot, services=tuple(sorted(self._services.now.items())))
        return Wanted(snapshot, endpoints, {name: part.value for name, part in secrets.items()})

    def _change(self, kind: type, held: Copied[K, V], rows: Iterable[tuple[K, V | None]]) -> None:
        changed = self._changed[kind]
        for key, value in rows:
            changed.add(key)
            if value is None:
                held.drop(key)
            else:
                held.put(key, value)


def _endpoints(node: NodePart) -> tuple[LocalEndpoint, ...]:
    endpoints = tuple(LocalEndpoint(*row) for row in node.endpoints)
    if len({item.name for item in endpoints}) != len(endpoints):
        raise Refused(Problem.MALFORMED, "an endpoint occurs twice")
    return endpoints
