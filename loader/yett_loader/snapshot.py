"""PURE: snapshots and endpoints as bytes: on disk, and on the API's socket.

What arrives is hostile input: sizes are bounded, an unknown schema or field is refused, every
digest is computed again, and nothing is applied unless all of it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeVar, cast

from yett_loader.endpoint import LocalEndpoint
from yett_loader.errors import SnapshotError
from yett_policy.document import SCHEMA, Snapshot, canonical
from yett_policy.sync import values
from yett_policy.sync.reader import Malformed, Value, parse

T = TypeVar("T")

BODY_LIMIT = 256 << 20
"""Bytes of a snapshot as JSON."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot together with the pods of this node."""

    snapshot: Snapshot
    endpoints: tuple[LocalEndpoint, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`namespace/name` -> value of the Secrets that rulesets name, as far as they are there.  Not
    part of the bytes: those are shown, and their digest too."""


def to_bytes(wanted: Wanted) -> bytes:
    """Canonical JSON; equal values give equal bytes."""
    snapshot = wanted.snapshot
    return canonical(
        {
            "schema": SCHEMA,
            "documents": [item.to_json() for item in snapshot.documents],
            "rulesets": list(map(values.ruleset_json, snapshot.rulesets)),
            "ipcache": snapshot.ipcache,
            "identities": snapshot.identities,
            "pods": snapshot.pods,
            "services": [(*key, backends) for key, backends in snapshot.services],
            "endpoints": [asdict(endpoint) for endpoint in wanted.endpoints],
        }
    )


class Memory:
    """What was read before: equal JSON gives the same value, without reading it again.

    One snapshot is mostly the one before; comparing is many times faster than checking.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, object], tuple[object, object]] = {}
        self._next: dict[tuple[str, object], tuple[object, object]] = {}

    def read(self, kind: str, key: str, value: Value, read: Callable[[Value], T]) -> T:
        """`read(value)`, or what it gave for an equal one; `key` is the field that names it."""
        named = (kind, value.raw.get(key)) if isinstance(value.raw, dict) else None
        if named is None or not isinstance(named[1], str | int):
            return read(value)
        before = self._known.get(named)
        # As text: 1, 1.0 and True are equal in Python, but not what was checked.
        found = (
            before[1]
            if before and before[0] == value.raw and repr(before[0]) == repr(value.raw)
            else read(value)
        )
        self._next[named] = (value.raw, found)
        return cast("T", found)

    def keep(self) -> None:
        """Remember what was read since the last time, and only that."""
        self._known, self._next = self._next, {}


def from_bytes(body: bytes, name: str = "snapshot", memory: Memory | None = None) -> Wanted:
    """The inverse; SnapshotError names the first thing that is wrong."""
    try:
        return _from_bytes(body, name, memory or Memory())
    except Malformed as error:
        raise SnapshotError(str(error)) from None


def _from_bytes(body: bytes, name: str, memory: Memory) -> Wanted:
    if len(body) > BODY_LIMIT:
        raise Value(None, name).fail(f"{len(body)} bytes, at most {BODY_LIMIT} are taken")
    top = parse(body, name)
    schema, documents, rulesets, ipcache, identities, pods, services, endpoints = top.fields(
        "schema", "documents", "rulesets", "ipcache", "identities", "pods", "services", "endpoints"
    )
    if schema.raw != SCHEMA:
        raise schema.fail(f"schema {str(schema.raw)[:40]} is not the {SCHEMA} that this loader speaks")
    compiled = tuple(memory.read("ruleset", "digest", item, values.ruleset) for item in rulesets.items())
    digests = {ruleset.digest for ruleset in compiled}
    if len(digests) != len(compiled):
        raise rulesets.fail("a ruleset occurs twice")
    snapshot = Snapshot(
        documents=tuple(
            memory.read("document", "identity", item, values.document) for item in documents.items()
        ),
        rulesets=compiled,
        ipcache=tuple(map(values.prefix_row, ipcache.items())),
        identities=tuple(map(values.identity_row, identities.items())),
        pods=tuple(map(values.pod_row, pods.items())),
        services=tuple(map(values.service_row, services.items())),
    )
    for value, document in zip(documents.items(), snapshot.documents, strict=True):
        for digest, _ in document.rulesets:
            if digest not in digests:
                raise value.fail(f"its ruleset {digest!r} is not in the snapshot")
    if len({document.identity for document in snapshot.documents}) != len(snapshot.documents):
        raise documents.fail("an identity has two documents")
    if len({values.map_key(text) for text, _ in snapshot.ipcache}) != len(snapshot.ipcache):
        raise ipcache.fail("a prefix occurs twice")
    if len({key for key, _ in snapshot.services}) != len(snapshot.services):
        raise services.fail("a service occurs twice")
    local = tuple(map(_endpoint, endpoints.items()))
    if len({endpoint.name for endpoint in local}) != len(local):
        raise endpoints.fail("an endpoint occurs twice")
    found = [endpoint.ifindex for endpoint in local if endpoint.ifindex is not None]
    if len(set(found)) != len(found):
        raise endpoints.fail("two endpoints have one interface")
    memory.keep()
    return Wanted(snapshot, local)


def _endpoint(value: Value) -> LocalEndpoint:
    namespace, pod, identity, listed, ifindex = value.fields(
        "namespace", "pod", "identity", "addresses", optional=("ifindex",)
    )
    return LocalEndpoint(
        namespace=namespace.text(values.NAME_LIMIT),
        pod=pod.text(values.NAME_LIMIT),
        identity=identity.integer(1, values.IDENTITY_MAX),
        addresses=values.addresses(listed),
        ifindex=None if ifindex.raw is None else ifindex.integer(1, 2**31 - 1),
    )


def with_endpoints(wanted: Wanted, endpoints: Iterable[LocalEndpoint]) -> Wanted:
    """The same snapshot, other pods."""
    return Wanted(wanted.snapshot, tuple(endpoints), wanted.secrets)
