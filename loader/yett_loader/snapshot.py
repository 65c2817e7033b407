"""PURE: snapshots and endpoints as bytes: on disk, and on the API's socket.

What arrives is hostile input: sizes are bounded, an unknown schema or field is refused, every
digest is computed again, and nothing is applied unless all of it is right.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from typing import TypeVar, cast

from yett_loader.assign import header
from yett_loader.endpoint import LocalEndpoint
from yett_loader.lookup import masked
from yett_loader.reader import Value, parse
from yett_loader.state import Prefix
from yett_policy.document import (
    SCHEMA,
    Direction,
    Document,
    Engine,
    Entry,
    Ruleset,
    Snapshot,
    Verdict,
    canonical,
)
from yett_policy.http.layout import ABI_VERSION, HEAD_SIZE, TIER_SIZE
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction, RulesetSpec
from yett_policy.reason import Reason

T = TypeVar("T")

IDENTITY_MAX = 2**32 - 1
ADDRESSES_MAX = 8
BODY_LIMIT = 256 << 20
"""Bytes of a snapshot as JSON."""

_ENTRY = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot together with the pods of this node."""

    snapshot: Snapshot
    endpoints: tuple[LocalEndpoint, ...] = ()


def to_bytes(wanted: Wanted) -> bytes:
    """Canonical JSON; equal values give equal bytes."""
    snapshot = wanted.snapshot
    return canonical(
        {
            "schema": SCHEMA,
            "documents": [
                {
                    "identity": document.identity,
                    "entries": [
                        {name: getattr(entry, name) for name in _ENTRY} for entry in document.entries
                    ],
                    "rules": document.rules,
                }
                for document in snapshot.documents
            ],
            "rulesets": [_ruleset_json(ruleset) for ruleset in snapshot.rulesets],
            "ipcache": snapshot.ipcache,
            "identities": snapshot.identities,
            "pods": snapshot.pods,
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
    memory = memory or Memory()
    if len(body) > BODY_LIMIT:
        raise Value(None, name).fail(f"{len(body)} bytes, at most {BODY_LIMIT} are taken")
    top = parse(body, name)
    schema, documents, rulesets, ipcache, identities, pods, endpoints = top.fields(
        "schema", "documents", "rulesets", "ipcache", "identities", "pods", "endpoints"
    )
    if schema.raw != SCHEMA:
        raise schema.fail(f"schema {str(schema.raw)[:40]} is not the {SCHEMA} that this loader speaks")
    compiled = tuple(memory.read("ruleset", "digest", item, _ruleset) for item in rulesets.items())
    digests = {ruleset.digest for ruleset in compiled}
    if len(digests) != len(compiled):
        raise rulesets.fail("a ruleset occurs twice")
    snapshot = Snapshot(
        documents=tuple(memory.read("document", "identity", item, _document) for item in documents.items()),
        rulesets=compiled,
        ipcache=tuple(map(_ipcache, ipcache.items())),
        identities=tuple(map(_identity, identities.items())),
        pods=tuple(map(_pod, pods.items())),
    )
    for value, document in zip(documents.items(), snapshot.documents, strict=True):
        for entry in document.entries:
            if entry.ruleset and entry.ruleset not in digests:
                raise value.fail(f"its ruleset {entry.ruleset!r} is not in the snapshot")
    if len({document.identity for document in snapshot.documents}) != len(snapshot.documents):
        raise documents.fail("an identity has two documents")
    if len({Prefix.parse(text) for text, _ in snapshot.ipcache}) != len(snapshot.ipcache):
        raise ipcache.fail("a prefix occurs twice")
    local = tuple(map(_endpoint, endpoints.items()))
    if len({endpoint.name for endpoint in local}) != len(local):
        raise endpoints.fail("an endpoint occurs twice")
    found = [endpoint.ifindex for endpoint in local if endpoint.ifindex is not None]
    if len(set(found)) != len(found):
        raise endpoints.fail("two endpoints have one interface")
    memory.keep()
    return Wanted(snapshot, local)


# -- documents ----------------------------------------------------------------------------


def _document(value: Value) -> Document:
    identity, entries, rules = value.fields("identity", "entries", "rules")
    references = tuple(item.text() for item in rules.items())
    document = Document(
        identity=identity.integer(1, IDENTITY_MAX),
        entries=tuple(_entry(item, len(references)) for item in entries.items()),
        rules=references,
    )
    keys = [(e.direction, e.peer, e.proto, e.port, e.port_bits) for e in document.entries]
    if len(set(keys)) != len(keys):
        raise entries.fail("a key occurs twice")
    for direction in Direction:
        if (direction, 0, 0, 0, 0) not in keys:
            raise entries.fail(f"there is no default for {direction.name.lower()}")
    return document


def _entry(value: Value, rules: int) -> Entry:
    direction, peer, proto, port, port_bits, verdict, reason, rule, ruleset, forbidden = value.fields(
        "direction",
        "peer",
        "proto",
        "port",
        "port_bits",
        "verdict",
        "reason",
        "rule",
        "ruleset",
        "forbidden",
    )
    entry = Entry(
        direction=direction.one_of(Direction),
        peer=peer.integer(0, IDENTITY_MAX),
        proto=proto.integer(0, 255),
        port=port.integer(0, 65535),
        port_bits=port_bits.integer(0, 16),
        verdict=verdict.one_of(Verdict),
        reason=reason.one_of(Reason),
        rule=rule.integer(0, rules - 1),
        ruleset=ruleset.text(64),
        forbidden=forbidden.flag(),
    )
    if masked(entry.port, entry.port_bits) != entry.port:
        raise port.fail(f"{entry.port} has more than {entry.port_bits} leading bits")
    return entry


# -- rulesets -----------------------------------------------------------------------------


def _ruleset_json(ruleset: Ruleset) -> dict[str, object]:
    packed = base64.b64encode(zlib.compress(ruleset.tables)).decode() if ruleset.tables else ""
    return {
        "digest": ruleset.digest,
        "spec": asdict(ruleset.spec),
        "engine": ruleset.engine,
        "engine_reason": ruleset.engine_reason,
        "tier": ruleset.tier,
        "tables": packed,
    }


def _ruleset(value: Value) -> Ruleset:
    digest, spec, engine, engine_reason, tier, tables = value.fields(
        "digest", "spec", "engine", "engine_reason", "tier", "tables"
    )
    ruleset = Ruleset(
        digest=digest.text(64),
        spec=_spec(spec),
        engine=engine.one_of(Engine),
        engine_reason=engine_reason.text(),
        tier=tier.integer(0, len(TIER_SIZE) - 1),
        tables=_tables(tables, TIER_SIZE[tier.integer(0, len(TIER_SIZE) - 1)]),
    )
    if ruleset.spec.digest != ruleset.digest:
        raise digest.fail(f"the digest of its rules is {ruleset.spec.digest}")
    if ruleset.engine is Engine.KERNEL:
        _check_header(tables, ruleset)
    return ruleset


def _tables(value: Value, limit: int) -> bytes:
    packed = value.text(limit * 2)
    if not packed:
        return b""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(packed, validate=True), limit + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise value.fail(f"no compressed tables in base64: {error}") from None
    if len(data) > limit:
        raise value.fail(f"more than the {limit} bytes of their tier")
    if not inflate.eof:
        raise value.fail("cut short")
    return data


def _check_header(value: Value, ruleset: Ruleset) -> None:
    """The numbers that this loader itself relies on; the programs check their own bounds."""
    if len(ruleset.tables) < HEAD_SIZE:
        raise value.fail(f"{len(ruleset.tables)} bytes, the header alone has {HEAD_SIZE}")
    head = header(ruleset.tables)
    if head["abi"] != ABI_VERSION:
        raise value.fail(f"made for ABI version {head['abi']}, this loader's is {ABI_VERSION}")
    if head["id"] != ruleset_id(ruleset.digest):
        raise value.fail("made for another digest")
    if head["default_rule"] != len(ruleset.spec.rules):
        raise value.fail(f"their default rule is {head['default_rule']}, not {len(ruleset.spec.rules)}")


def ruleset_id(digest: str) -> int:
    """As in the header of its tables: the first 8 bytes of the digest, never 0."""
    return int.from_bytes(bytes.fromhex(digest[:16]), "big") or 1


def _spec(value: Value) -> RulesetSpec:
    rules, default_rule, audit, forbidden, chunk_extensions, trailers, engine = value.fields(
        "rules", "default_rule", "audit", "forbidden", "chunk_extensions", "trailers", "engine"
    )
    return RulesetSpec(
        rules=tuple(map(_rule, rules.items())),
        default_rule=default_rule.text(),
        audit=audit.flag(),
        forbidden=forbidden.flag(),
        chunk_extensions=chunk_extensions.flag(),
        trailers=trailers.flag(),
        engine=engine.text(16),
    )


def _rule(value: Value) -> HttpRule:
    ref, action, method, path, path_kind, host, headers, upgrades, tolerate, forbidden = value.fields(
        "ref",
        "action",
        "method",
        "path",
        "path_kind",
        "host",
        "headers",
        "upgrades",
        "tolerate",
        "forbidden",
    )
    return HttpRule(
        ref=ref.text(),
        action=action.one_of(RuleAction),
        method=method.optional_text(),
        path=path.optional_text(),
        path_kind=path_kind.one_of(PathKind),
        host=host.optional_text(),
        headers=tuple(map(_header_rule, headers.items())),
        upgrades=tuple(item.text(256) for item in upgrades.items()),
        tolerate=tuple(item.one_of(Reason) for item in tolerate.items()),
        forbidden=forbidden.flag(),
    )


def _header_rule(value: Value) -> HeaderRule:
    name, op, text = value.fields("name", "op", "value")
    return HeaderRule(name.text(256), op.one_of(HeaderOp), text.text())


# -- addresses, names, endpoints ----------------------------------------------------------


def _ipcache(value: Value) -> tuple[str, int]:
    prefix, identity = value.row(2)
    prefix.convert(Prefix.parse, "prefix such as 10.0.0.0/8 (with its host bits 0)")
    return prefix.text(), identity.integer(1, IDENTITY_MAX)


def _identity(value: Value) -> tuple[int, tuple[str, ...]]:
    number, labels = value.row(2)
    return number.integer(1, IDENTITY_MAX), tuple(item.text(1024) for item in labels.items(4096))


def _pod(value: Value) -> tuple[str, str, int, tuple[str, ...]]:
    namespace, name, identity, addresses = value.row(4)
    return namespace.text(253), name.text(253), identity.integer(1, IDENTITY_MAX), _addresses(addresses)


def _endpoint(value: Value) -> LocalEndpoint:
    namespace, pod, identity, addresses, ifindex = value.fields(
        "namespace", "pod", "identity", "addresses", optional=("ifindex",)
    )
    return LocalEndpoint(
        namespace=namespace.text(253),
        pod=pod.text(253),
        identity=identity.integer(1, IDENTITY_MAX),
        addresses=_addresses(addresses),
        ifindex=None if ifindex.raw is None else ifindex.integer(1, 2**31 - 1),
    )


def _addresses(value: Value) -> tuple[str, ...]:
    return tuple(str(item.convert(ip_address, "IP address")) for item in value.items(ADDRESSES_MAX))


def with_endpoints(wanted: Wanted, endpoints: Iterable[LocalEndpoint]) -> Wanted:
    """The same snapshot, other pods."""
    return Wanted(wanted.snapshot, tuple(endpoints))
