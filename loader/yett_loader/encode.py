"""PURE: a snapshot and this node's endpoints and numbers -> what the maps must hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from types import MappingProxyType

from yett_loader.assign import Assignment, digest_of
from yett_loader.endpoint import LocalEndpoint
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
from yett_policy.service import BACKENDS_MAX

FORBIDDEN = 1
"""POLICY_FORBIDDEN"""


Listeners = Mapping[tuple[str, Direction], int]
"""Digest of a ruleset and direction -> port of the sidecar's listener."""
_NO_LISTENERS: Listeners = MappingProxyType({})


def encode(
    snapshot: Snapshot,
    endpoints: Iterable[LocalEndpoint],
    assignment: Assignment,
    listeners: Listeners = _NO_LISTENERS,
) -> MapState:
    """The wanted state.  Its epoch is 0: `plan` counts from what is there.

    An endpoint whose identity has no document is there but not ready: everything is denied.
    An entry whose ruleset this node cannot run (unknown, or for a sidecar without a listener) denies.
    """
    by_identity = {document.identity: document for document in snapshot.documents}
    kernel = {item.digest for item in snapshot.rulesets if item.engine is Engine.KERNEL}
    slots = assignment.documents
    return MapState(
        rulesets={assignment.rulesets[digest].handle: assignment.rulesets[digest].state for digest in kernel},
        policies={
            slots[digest_of(item)]: encode_document(item, assignment, listeners)
            for item in snapshot.documents
        },
        ipcache={Prefix.parse(text): identity for text, identity in snapshot.ipcache},
        endpoints={
            item.ifindex: _endpoint(item, by_identity.get(item.identity), assignment)
            for item in endpoints
            if item.ifindex is not None
        },
        services={
            ServiceKey(mapped(ip_address(each.address).packed), each.proto, each.port): _backends(backends)
            for each, backends in snapshot.services
        },
    )


def encode_document(
    document: Document, assignment: Assignment, listeners: Listeners = _NO_LISTENERS
) -> Policy:
    """One inner map."""
    named = {(entry.ruleset, entry.direction) for entry in document.entries if entry.ruleset}
    digests = sorted({digest for digest, _ in named})
    places = ((digest, assignment.rulesets.get(digest)) for digest in digests)
    return _encode_document(
        document,
        tuple(assignment.rules[reference] for reference in document.rules),
        tuple((digest, place.handle if place else 0) for digest, place in places),
        tuple((item, listeners[item]) for item in sorted(named) if item in listeners),
    )


@lru_cache(1 << 14)
def _encode_document(
    document: Document,
    rules: tuple[int, ...],
    rulesets: tuple[tuple[str, int], ...],
    listeners: tuple[tuple[tuple[str, Direction], int], ...],
) -> Policy:
    """With the numbers of its rules, the handles of its rulesets (0: not in the kernel), and the
    listeners of those that the sidecar judges.
    """
    handles, ports = dict(rulesets), dict(listeners)
    return MappingProxyType(
        {
            PolicyKey(entry.direction, entry.peer, entry.proto, entry.port, entry.port_bits): _value(
                entry, rules[entry.rule], handles, ports
            )
            for entry in document.entries
        }
    )


def _value(entry: Entry, rule: int, handles: Mapping[str, int], ports: Listeners) -> PolicyValue:
    flags = FORBIDDEN if entry.forbidden else 0
    if not entry.ruleset:
        return PolicyValue(entry.verdict, entry.reason, flags, rule, 0)
    handle = handles[entry.ruleset]
    port = ports.get((entry.ruleset, entry.direction), 0)
    if port and entry.verdict is Verdict.REDIRECT:
        return PolicyValue(Verdict.REDIRECT, entry.reason, flags, rule, port)
    if not handle:
        return PolicyValue(Verdict.DENY, Reason.SIDECAR_DOWN, flags, rule, 0)
    return PolicyValue(entry.verdict, entry.reason, flags, rule, handle)


def _endpoint(item: LocalEndpoint, document: Document | None, assignment: Assignment) -> EndpointState:
    return EndpointState(
        identity=item.identity,
        policy=assignment.documents[digest_of(document)] if document else 0,
        ready=document is not None,
        addresses=tuple(sorted(mapped(ip_address(text).packed) for text in item.addresses)),
        open=document is not None and _is_open(document),
    )


def _backends(backends: Backends) -> Backends:
    """As the kernel keeps them: of too many it does not say who the last is."""
    return backends if len(backends) <= BACKENDS_MAX else (*backends[:BACKENDS_MAX], (0, 0))


def _is_open(document: Document) -> bool:
    """Whether nothing is said of egress."""
    said = [entry for entry in document.entries if entry.direction is Direction.EGRESS]
    return len(said) == 1 and said[0].reason is Reason.NOT_ENFORCED
