"""PURE: a snapshot and this node's endpoints and numbers -> what the maps must hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from types import MappingProxyType

from yett_loader.assign import Assignment
from yett_loader.endpoint import LocalEndpoint
from yett_loader.host import Identities, hosts_among, own_rows
from yett_loader.memo import Memo
from yett_loader.rows import RowMap
from yett_loader.state import (
    Backends,
    EndpointState,
    MapState,
    Policy,
    PolicyKey,
    PolicyValue,
    Prefix,
    ServiceKey,
    mapped,
)
from yett_policy.document import Direction, Document, Engine, Entry, Snapshot, Verdict
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX, Frontend

FORBIDDEN = 1
"""POLICY_FORBIDDEN"""


Listeners = Mapping[tuple[str, Direction], int]
"""Digest of a ruleset and direction -> port of the sidecar's listener."""
_NO_LISTENERS: Listeners = MappingProxyType({})
_Numbers = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Of one document on this node: of its rules, of its rulesets in the kernel, of those in the sidecar."""


def encode(
    snapshot: Snapshot,
    endpoints: Iterable[LocalEndpoint],
    assignment: Assignment,
    listeners: Listeners = _NO_LISTENERS,
) -> MapState:
    """As `Encoder.encode`, of a snapshot that is like no other."""
    return Encoder().encode(snapshot, endpoints, assignment, listeners)


class Encoder:
    """Of snapshots one after the other: what did not change is the same object in the state as before."""

    def __init__(self) -> None:
        self._ipcache = RowMap(_address)
        self._services = RowMap(_service)
        self._open = Memo(is_open)
        self._policies: dict[int, tuple[Document, _Numbers, Policy]] = {}
        """By the document's id."""
        self._hosts: tuple[Identities, frozenset[int]] = ((), hosts_among(()))
        self._laid: tuple[Mapping[Prefix, int], Mapping[Prefix, int], Mapping[Prefix, int]] = ({}, {}, {})
        """The operator's addresses, this node's own, and both together."""

    def encode(
        self,
        snapshot: Snapshot,
        endpoints: Iterable[LocalEndpoint],
        assignment: Assignment,
        listeners: Listeners = _NO_LISTENERS,
        own: Iterable[str] = (),
        local: Iterable[LocalEndpoint] = (),
    ) -> MapState:
        """The wanted state.  Its epoch is 0: `plan` counts from what is there.

        An endpoint whose identity has no document is there but not ready: everything is denied.
        An entry whose ruleset this node cannot run (unknown, or for a sidecar without a listener) denies.
        `own` are addresses of the node, `local` all its pods (see `host`).
        """
        kernel = (item.digest for item in snapshot.rulesets if item.engine is Engine.KERNEL)
        places = (assignment.rulesets[digest] for digest in kernel)
        slots = assignment.documents
        is_open = dict(
            zip(
                (item.identity for item in snapshot.documents), self._open.of(snapshot.documents), strict=True
            )
        )
        by_identity = {item.identity: slots[item.digest] for item in snapshot.documents}
        return MapState(
            rulesets={place.handle: place.state for place in places},
            policies=self._encode_documents(snapshot.documents, assignment, listeners),
            ipcache=self._addresses(snapshot, local, own),
            endpoints={
                item.ifindex: EndpointState(
                    identity=item.identity,
                    policy=by_identity.get(item.identity, 0),
                    ready=item.identity in by_identity,
                    addresses=_packed(item.addresses),
                    open=is_open.get(item.identity, False),
                )
                for item in endpoints
                if item.ifindex is not None
            },
            services=self._services.of(snapshot.services),
        )

    def _encode_documents(
        self, documents: Iterable[Document], assignment: Assignment, listeners: Listeners
    ) -> dict[int, Policy]:
        made = {}
        for document in documents:
            numbers = _numbers(document, assignment, listeners)
            before = self._policies.get(id(document))
            same = before is not None and before[1] == numbers
            made[id(document)] = (
                before if before and same else (document, numbers, _policy(document, numbers))
            )
        self._policies = made
        return {assignment.documents[document.digest]: policy for document, _, policy in made.values()}

    def _addresses(
        self, snapshot: Snapshot, local: Iterable[LocalEndpoint], own: Iterable[str]
    ) -> Mapping[Prefix, int]:
        if self._hosts[0] is not snapshot.identities:
            self._hosts = (snapshot.identities, hosts_among(snapshot.identities))
        said = self._ipcache.of(snapshot.ipcache)
        rows = own_rows(said, self._hosts[1], local, own)
        if self._laid[0] is not said or self._laid[1] != rows:
            self._laid = (said, rows, said | rows)
        return self._laid[2]


def _numbers(document: Document, assignment: Assignment, listeners: Listeners) -> _Numbers:
    places = (assignment.rulesets.get(digest) for digest, _ in document.rulesets)
    return (
        tuple(assignment.rules[reference] for reference in document.rules),
        tuple(place.handle if place else 0 for place in places),
        tuple(listeners.get(named, 0) for named in document.rulesets),
    )


def _policy(document: Document, numbers: _Numbers) -> Policy:
    rules, handles, ports = numbers
    judges = dict(zip(document.rulesets, zip(handles, ports, strict=True), strict=True))
    return MappingProxyType(
        {
            PolicyKey(entry.direction, entry.peer, entry.proto, entry.port, entry.port_bits): _value(
                entry, rules[entry.rule], *judges.get((entry.ruleset, entry.direction), (0, 0))
            )
            for entry in document.entries
        }
    )


def _value(entry: Entry, rule: int, handle: int, port: int) -> PolicyValue:
    flags = FORBIDDEN if entry.forbidden else 0
    if not entry.ruleset:
        return PolicyValue(entry.verdict, entry.reason, flags, rule, 0)
    if port and entry.verdict is Verdict.REDIRECT:
        return PolicyValue(Verdict.REDIRECT, entry.reason, flags, rule, port)
    if not handle:
        return PolicyValue(Verdict.DENY, Reason.SIDECAR_DOWN, flags, rule, 0)
    return PolicyValue(entry.verdict, entry.reason, flags, rule, handle)


def _address(row: tuple[str, int]) -> tuple[Prefix, int]:
    return Prefix.parse(row[0]), row[1]


def _service(row: tuple[Frontend, Backends]) -> tuple[ServiceKey, Backends]:
    """As the kernel keeps them: of too many backends it does not say who the last is."""
    (address, proto, port), backends = row
    told = backends if len(backends) <= BACKENDS_MAX else (*backends[:BACKENDS_MAX], (0, 0))
    return ServiceKey(mapped(ip_address(address).packed), proto, port), told


@lru_cache(1 << 12)  # of the node's pods
def _packed(addresses: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(sorted(mapped(ip_address(text).packed) for text in addresses))


def is_open(document: Document) -> bool:
    """Whether nothing is said of egress."""
    said = [entry for entry in document.entries if entry.direction is Direction.EGRESS]
    return len(said) == 1 and said[0].reason is Reason.NOT_ENFORCED
