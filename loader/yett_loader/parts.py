"""PURE: a snapshot and its endpoints as small parts, each of which is kept on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from yett_loader.rows import difference
from yett_loader.snapshot import Wanted, from_bytes
from yett_policy.document import Document, canonical
from yett_policy.sync import values


class Part(NamedTuple):
    """One of them."""

    kind: str
    """Field of a snapshot as JSON."""
    key: str
    """Names it among those of its kind."""
    body: bytes
    """Its JSON in that field."""

    @property
    def digest(self) -> bytes:
        """SHA-256."""
        return hashlib.sha256(b"%b\0%b\0%b" % (self.kind.encode(), self.key.encode(), self.body)).digest()


class Change(NamedTuple):
    """What makes one snapshot of another: first the parts (kind, key) that go, then those that come."""

    gone: tuple[tuple[str, str], ...]
    come: tuple[Part, ...]


def change(before: Wanted | None, after: Wanted) -> Change:
    """None: from nothing."""
    gone: list[tuple[str, str]] = []
    come: list[Part] = []
    for kind, made in _KINDS.items():
        old, new = difference(made.rows(before) if before else (), made.rows(after))
        gone += ((kind, made.key_of(row)) for row in old)
        come += (Part(kind, made.key_of(row), canonical(made.json(row))) for row in new)
    return Change(tuple(gone), tuple(come))


def joined(parts: Iterable[tuple[str, bytes]], schema: int, name: str) -> Wanted:
    """(kind, body) of all parts as what they are of, in the order of the operator's.

    Everything is checked as in `from_bytes`; SnapshotError names the first thing that is wrong.
    """
    bodies: dict[str, list[bytes]] = {kind: [] for kind in _KINDS}
    for kind, body in parts:
        bodies.setdefault(kind, []).append(body)
    fields = [canonical(kind) + b":[" + b",".join(found) + b"]" for kind, found in bodies.items()]
    wanted = from_bytes(b'{"schema":%d,%b}' % (schema, b",".join(fields)), name)
    snapshot = wanted.snapshot
    return replace(
        wanted,
        snapshot=replace(
            snapshot,
            documents=tuple(sorted(snapshot.documents, key=lambda item: item.identity)),
            rulesets=tuple(sorted(snapshot.rulesets, key=lambda item: item.digest)),
            ipcache=tuple(sorted(snapshot.ipcache)),
            identities=tuple(sorted(snapshot.identities)),
            pods=tuple(sorted(snapshot.pods)),
            services=tuple(sorted(snapshot.services)),
        ),
        endpoints=tuple(sorted(wanted.endpoints, key=lambda item: (item.namespace, item.pod))),
    )


class Total:
    """The digest of a whole: what those of its parts add up to, in whatever order they came and went.

    It tells damage, and one state from another, not what somebody forged to look the same.
    """

    def __init__(self, digest: str = "0") -> None:
        self._sum = int(digest, 16)

    def add(self, digest: bytes) -> None:
        self._sum += int.from_bytes(digest, "big")

    def take(self, digest: bytes) -> None:
        self._sum -= int.from_bytes(digest, "big")

    def __str__(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum % (1 << 256):064x}"


class _Kind(NamedTuple):
    rows: Callable[[Wanted], tuple[Any, ...]]
    key: Callable[[Any], object]
    json: Callable[[Any], object]

    def key_of(self, row: Any) -> str:
        return canonical(self.key(row)).decode()


_KINDS: Mapping[str, _Kind] = {
    "documents": _Kind(lambda of: of.snapshot.documents, lambda row: row.identity, Document.to_json),
    "rulesets": _Kind(lambda of: of.snapshot.rulesets, lambda row: row.digest, values.ruleset_json),
    "ipcache": _Kind(lambda of: of.snapshot.ipcache, lambda row: row[0], lambda row: row),
    "identities": _Kind(lambda of: of.snapshot.identities, lambda row: row[0], lambda row: row),
    "pods": _Kind(lambda of: of.snapshot.pods, lambda row: row[:2], lambda row: row),
    "services": _Kind(lambda of: of.snapshot.services, lambda row: row[0], lambda row: (*row[0], row[1])),
    "endpoints": _Kind(lambda of: of.endpoints, lambda row: (row.namespace, row.pod), asdict),
}
