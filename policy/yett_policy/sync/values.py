"""Documents, rulesets and addresses as JSON values, and back with every check.

What arrives is hostile input: numbers are bounded, unknown fields refused, digests computed
again, tables inflated no further than their tier.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import pairwise

from yett_policy.document import (
    ANY_PEER,
    ANY_PROTO,
    SCHEMA,
    Direction,
    Document,
    Engine,
    Entry,
    Group,
    Ruleset,
    Verdict,
)
from yett_policy.http.change import ChangeOp, HeaderChange, name_problem, value_problem
from yett_policy.http.layout import ABI_VERSION, HEAD_FIELDS, HEAD_FORMAT, HEAD_SIZE, TIER_SIZE
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction, RulesetSpec
from yett_policy.identity import LABEL_LIMIT, LABELS_MAX
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX, Backends, Frontend
from yett_policy.sync.reader import LIST_LIMIT, Value

IDENTITY_MAX = 2**32 - 1
ADDRESSES_MAX = 8
NAME_LIMIT = 253
SECRET_LIMIT = 63 + 1 + NAME_LIMIT

PodRow = tuple[str, str, int, tuple[str, ...]]
"""(namespace, name, identity, addresses)."""

_DOCUMENT = ("identity", "entries", "rules", "rulesets")

# -- documents ----------------------------------------------------------------------------


def document(value: Value) -> Document:
    """The inverse of `Document.to_json`."""
    return _document(*value.fields(*_DOCUMENT))


def published_document(value: Value) -> Document:
    """The inverse of `Document.to_bytes`."""
    schema, *rest = value.fields("schema", *_DOCUMENT)
    check_schema(schema)
    return _document(*rest)


def check_schema(value: Value) -> None:
    """Malformed unless it is the revision of these values."""
    if value.integer(0, IDENTITY_MAX) != SCHEMA:
        raise value.fail(f"revision {value.raw} is not the {SCHEMA} that is spoken here")


def _document(identity: Value, entries: Value, rules: Value, rulesets: Value) -> Document:
    references = tuple(item.text() for item in rules.items())
    digests = tuple(item.text(64) for item in rulesets.items())
    if digests != tuple(sorted({*digests} - {""})):
        raise rulesets.fail("the digests are not sorted, or one occurs twice")
    places = ("", *digests)
    groups = tuple(_group(item, len(references), places) for item in entries.items())
    if (count := sum(len(group.peers) for group in groups)) > LIST_LIMIT:
        raise entries.fail(f"{count} for one peer each, at most {LIST_LIMIT} are taken")
    if any(after.entry <= before.entry for before, after in pairwise(groups)):
        raise entries.fail("not sorted, or an entry occurs twice")
    if {group.entry.ruleset for group in groups} - {""} != {*digests}:
        raise rulesets.fail("a ruleset is listed that no entry names")
    spoken_of: dict[tuple[int, ...], set[int]] = {}
    for entry, peers in groups:
        known = spoken_of.setdefault((entry.direction, entry.proto, entry.port, entry.port_bits), set())
        if not known.isdisjoint(peers):
            raise entries.fail("a key occurs twice")
        known.update(peers)
    for direction in Direction:
        if ANY_PEER not in spoken_of.get((direction, ANY_PROTO, 0, 0), ()):
            raise entries.fail(f"there is no default for {direction.name.lower()}")
    return Document(identity.integer(1, IDENTITY_MAX), groups, references)


def _group(value: Value, rules: int, rulesets: Sequence[str]) -> Group:
    direction, peers, proto, port, port_bits, verdict, reason, rule, ruleset, forbidden = value.row(10)
    entry = Entry(
        direction=direction.one_of(Direction),
        peer=ANY_PEER,
        proto=proto.integer(0, 255),
        port=port.integer(0, 65535),
        port_bits=port_bits.integer(0, 16),
        verdict=verdict.one_of(Verdict),
        reason=reason.one_of(Reason),
        rule=rule.integer(0, rules - 1),
        ruleset=rulesets[ruleset.integer(0, len(rulesets) - 1)],
        forbidden=bool(forbidden.integer(0, 1)),
    )
    if entry.port & (0xFFFF >> entry.port_bits):
        raise port.fail(f"{entry.port} has more than {entry.port_bits} leading bits")
    return Group(entry, _peers(peers))


def _peers(value: Value) -> tuple[int, ...]:
    """At least one, sorted, each once."""
    found = tuple(item.integer(0, IDENTITY_MAX) for item in value.items())
    if not found or any(after <= before for before, after in pairwise(found)):
        raise value.fail("empty, not sorted, or one occurs twice")
    return found


# -- rulesets -----------------------------------------------------------------------------


def ruleset_json(item: Ruleset) -> dict[str, object]:
    """What `canonical` makes the bytes of; its tables packed."""
    packed = base64.b64encode(zlib.compress(item.tables)).decode() if item.tables else ""
    return {
        "digest": item.digest,
        "spec": asdict(item.spec),
        "engine": item.engine,
        "engine_reason": item.engine_reason,
        "tier": item.tier,
        "tables": packed,
    }


def ruleset(value: Value) -> Ruleset:
    """The inverse; the digest is computed again."""
    digest, spec, engine, engine_reason, tier, tables = value.fields(
        "digest", "spec", "engine", "engine_reason", "tier", "tables"
    )
    number = tier.integer(0, len(TIER_SIZE) - 1)
    made = Ruleset(
        digest=digest.text(64),
        spec=_spec(spec),
        engine=engine.one_of(Engine),
        engine_reason=engine_reason.text(),
        tier=number,
        tables=_tables(tables, TIER_SIZE[number]),
    )
    if made.spec.digest != made.digest:
        raise digest.fail(f"the digest of its rules is {made.spec.digest}")
    if made.engine is Engine.KERNEL:
        _check_header(tables, made)
    return made


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


def _check_header(value: Value, item: Ruleset) -> None:
    """The numbers that this loader itself relies on; the programs check their own bounds."""
    if len(item.tables) < HEAD_SIZE:
        raise value.fail(f"{len(item.tables)} bytes, the header alone has {HEAD_SIZE}")
    head = table_header(item.tables)
    if head["abi"] != ABI_VERSION:
        raise value.fail(f"made for ABI version {head['abi']}, this loader's is {ABI_VERSION}")
    if head["id"] != ruleset_id(item.digest):
        raise value.fail("made for another digest")
    if head["default_rule"] != len(item.spec.rules):
        raise value.fail(f"their default rule is {head['default_rule']}, not {len(item.spec.rules)}")


def table_header(tables: bytes) -> dict[str, int]:
    """The numbers at the start of a ruleset's tables."""
    return dict(zip(HEAD_FIELDS, struct.unpack_from(HEAD_FORMAT, tables), strict=True))


def ruleset_id(digest: str) -> int:
    """As in the header of its tables: the first 8 bytes of the digest, never 0."""
    return int.from_bytes(bytes.fromhex(digest[:16]), "big") or 1


def _spec(value: Value) -> RulesetSpec:
    rules, default_rule, audit, forbidden, chunk_extensions, trailers, engine, app_protocol = value.fields(
        *("rules", "default_rule", "audit", "forbidden", "chunk_extensions", "trailers"),
        *("engine", "app_protocol"),
    )
    return RulesetSpec(
        rules=tuple(map(_rule, rules.items())),
        default_rule=default_rule.text(),
        audit=audit.flag(),
        forbidden=forbidden.flag(),
        chunk_extensions=chunk_extensions.flag(),
        trailers=trailers.flag(),
        engine=engine.text(16),
        app_protocol=app_protocol.text(),
    )


def _rule(value: Value) -> HttpRule:
    ref, action, method, path, path_kind, host, headers, upgrades, tolerate, forbidden, changes = (
        value.fields(
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
            "changes",
        )
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
        changes=tuple(map(_header_change, changes.items())),
    )


def _header_change(value: Value) -> HeaderChange:
    """Checked as at admission: what the sidecar is told to write comes from here."""
    name, op, text, secret = value.fields("name", "op", "value", "secret")
    made = HeaderChange(name.text(256), op.one_of(ChangeOp), text.optional_text(), secret.text(SECRET_LIMIT))
    if problem := name_problem(made.name):
        raise name.fail(problem)
    if made.value is not None and (problem := value_problem(made.value)):
        raise text.fail(problem)
    if made.value is None and not made.secret and made.op is not ChangeOp.LOG:
        raise text.fail("a change needs a value or a secret")
    return made


def _header_rule(value: Value) -> HeaderRule:
    name, op, text = value.fields("name", "op", "value")
    return HeaderRule(name.text(256), op.one_of(HeaderOp), text.text())


# -- addresses and names -------------------------------------------------------------------


def prefix_row(value: Value) -> tuple[str, int]:
    """[prefix, identity]"""
    text, identity = value.row(2)
    return prefix(text), identity.integer(1, IDENTITY_MAX)


def prefix(value: Value) -> str:
    """`10.0.0.0/8`, with its host bits 0."""
    value.convert(map_key, "prefix such as 10.0.0.0/8 (with its host bits 0)")
    return value.text()


@lru_cache(1 << 17)  # every snapshot names mostly the same ones
def map_key(text: str) -> tuple[int, int]:
    """A prefix as the kernel compares it: an address of 16 bytes, and how many bits count."""
    network = ip_network(text)
    if isinstance(network, IPv4Network):
        return 0xFFFF << 32 | int(network.network_address), 96 + network.prefixlen
    return int(network.network_address), network.prefixlen


def identity_row(value: Value) -> tuple[int, tuple[str, ...]]:
    """[identity, labels]"""
    number, listed = value.row(2)
    return number.integer(1, IDENTITY_MAX), labels(listed)


def service_row(value: Value) -> tuple[Frontend, Backends]:
    """[address, protocol, port, backends]"""
    address, proto, port, listed = value.row(4)
    return frontend(address, proto, port), backends(listed)


def frontend(address: Value, proto: Value, port: Value) -> Frontend:
    """The address of a Service, spelled in one way."""
    text = str(address.convert(ip_address, "IP address"))
    if text != address.raw or text.startswith("::ffff:"):
        raise address.fail(f"{text[:64]!r} is spelled in another way than the operator does")
    return Frontend(text, proto.integer(1, 255), port.integer(1, 65535))


def backends(value: Value) -> Backends:
    """[[identity, port]...], sorted, each once."""
    rows = [item.row(2) for item in value.items(BACKENDS_MAX + 1)]
    found = tuple((identity.integer(1, IDENTITY_MAX), port.integer(1, 65535)) for identity, port in rows)
    if list(found) != sorted(set(found)):
        raise value.fail("not sorted, or one occurs twice")
    return found


def labels(value: Value) -> tuple[str, ...]:
    """`source:key=value` each."""
    return tuple(item.text(LABEL_LIMIT) for item in value.items(LABELS_MAX))


def pod_row(value: Value) -> PodRow:
    """[namespace, name, identity, addresses]"""
    namespace, name, identity, listed = value.row(4)
    return (
        namespace.text(NAME_LIMIT),
        name.text(NAME_LIMIT),
        identity.integer(1, IDENTITY_MAX),
        addresses(listed),
    )


def addresses(value: Value) -> tuple[str, ...]:
    """Of one pod, spelled in one way."""
    return tuple(str(item.convert(ip_address, "IP address")) for item in value.items(ADDRESSES_MAX))
