"""PURE: a snapshot and this node's endpoints and numbers -> what the maps must hold."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from yett_loader.assign import Assignment
from yett_loader.endpoint import LocalEndpoint
from yett_loader.state import EndpointState, MapState, PolicyKey, PolicyValue, Prefix, mapped
from yett_policy.document import Document, Engine, Entry, Snapshot, Verdict
from yett_policy.reason import Reason

FORBIDDEN = 1
"""POLICY_FORBIDDEN"""


def encode(snapshot: Snapshot, endpoints: Iterable[LocalEndpoint], assignment: Assignment) -> MapState:
    """The wanted state.  Its epoch is 0: `plan` counts from what is there.

    An endpoint whose identity has no document is there but not ready: everything is denied.
    An entry whose ruleset this node cannot run (unknown, or for the sidecar) denies.
    """
    by_identity = {document.identity: document for document in snapshot.documents}
    kernel = {item.digest for item in snapshot.rulesets if item.engine is Engine.KERNEL}
    slots = assignment.documents
    return MapState(
        rulesets={assignment.rulesets[digest].handle: assignment.rulesets[digest].state for digest in kernel},
        policies={slots[item.digest]: encode_document(item, assignment) for item in snapshot.documents},
        ipcache={Prefix.parse(text): identity for text, identity in snapshot.ipcache},
        endpoints={
            item.ifindex: _endpoint(item, by_identity.get(item.identity), assignment)
            for item in endpoints
            if item.ifindex is not None
        },
    )


def encode_document(document: Document, assignment: Assignment) -> dict[PolicyKey, PolicyValue]:
    """One inner map."""
    return {
        PolicyKey(entry.direction, entry.peer, entry.proto, entry.port, entry.port_bits): _value(
            entry, document.rules[entry.rule], assignment
        )
        for entry in document.entries
    }


def _value(entry: Entry, reference: str, assignment: Assignment) -> PolicyValue:
    rule = assignment.rules[reference]
    flags = FORBIDDEN if entry.forbidden else 0
    if not entry.ruleset:
        return PolicyValue(entry.verdict, entry.reason, flags, rule, 0)
    place = assignment.rulesets.get(entry.ruleset)
    if place is None:
        return PolicyValue(Verdict.DENY, Reason.SIDECAR_DOWN, flags, rule, 0)
    return PolicyValue(entry.verdict, entry.reason, flags, rule, place.handle)


def _endpoint(item: LocalEndpoint, document: Document | None, assignment: Assignment) -> EndpointState:
    return EndpointState(
        identity=item.identity,
        policy=assignment.documents[document.digest] if document else 0,
        ready=document is not None,
        addresses=tuple(sorted(mapped(ip_address(text).packed) for text in item.addresses)),
    )
