"""Frames as messages: hostile input until every check has been passed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from yett_policy.document import SCHEMA, canonical
from yett_policy.http.change import VALUE_LIMIT, value_problem
from yett_policy.service import Backends, Frontend
from yett_policy.sync import rows_fast, values
from yett_policy.sync.frame import TO_LOADER_LIMIT, TO_OPERATOR_LIMIT, unpack
from yett_policy.sync.message import (
    FAILURES_MAX,
    HITS_MAX,
    LOCAL_MAX,
    ROWS_MAX,
    SECRETS_MAX,
    SEQUENCE_MAX,
    TOKEN_LIMIT,
    Ack,
    AddressesPart,
    Begin,
    Commit,
    Counters,
    DocumentPart,
    Failing,
    Hello,
    IdentitiesPart,
    NodeChanges,
    NodePart,
    PlacedPod,
    PodName,
    PodsPart,
    Problem,
    Refusal,
    Renewal,
    Resume,
    RulesetPart,
    SecretPart,
    ServicesPart,
    ToLoader,
    ToOperator,
    Welcome,
)
from yett_policy.sync.reader import Malformed, Value

T = TypeVar("T")

_DIGITS = frozenset("0123456789abcdef")


class UnknownRevision(Malformed):
    """The other side speaks another revision of documents."""


def from_loader(frame: bytes) -> ToOperator:
    """What a loader says; Malformed if it is nothing of it."""
    return _read(frame, TO_OPERATOR_LIMIT, _FROM_LOADER)


def from_operator(frame: bytes) -> ToLoader:
    """What the operator says; Malformed if it is nothing of it."""
    return _read(frame, TO_LOADER_LIMIT, _FROM_OPERATOR)


def _read(frame: bytes, limit: int, readers: Mapping[str, Callable[[Value], T]]) -> T:
    value = unpack(frame, limit)
    kind = value.raw.get("type") if isinstance(value.raw, dict) else None
    if not isinstance(kind, str) or kind not in readers:
        raise Malformed(f"message: its type is {str(kind)[:40]!r}, not one of {', '.join(readers)}")
    return readers[kind](Value(value.raw, kind))


def _hello(value: Value) -> Hello:
    schema = value.raw.get("schema") if isinstance(value.raw, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        # Another revision may have other fields: say that, not which of them is missing.
        raise UnknownRevision(
            f"hello.schema: revision {str(schema)[:40]} of documents is not the {SCHEMA} spoken here"
        )
    (
        _,
        _,
        name,
        instance,
        version,
        kernel,
        applied,
        failures,
        documents,
        rulesets,
        resume,
    ) = value.fields(
        "type",
        "schema",
        "node",
        "instance",
        "version",
        "kernel",
        "applied",
        "failures",
        "documents",
        "rulesets",
        "resume",
    )
    return Hello(
        node=name.text(values.NAME_LIMIT),
        instance=instance.text(64),
        version=version.text(64),
        kernel=kernel.text(256),
        applied=_digests(applied),
        failures=_read_failures(failures),
        documents=tuple(_digest(item) for item in documents.items(LOCAL_MAX)),
        rulesets=tuple(_digest(item) for item in rulesets.items(ROWS_MAX)),
        resume=None if resume.raw is None else _resume(resume),
    )


def _resume(value: Value) -> Resume:
    epoch, revision = value.fields("epoch", "revision")
    return Resume(epoch.text(64), revision.integer(1, SEQUENCE_MAX))


def _ack(value: Value) -> Ack:
    if (plain := rows_fast.ack(value.raw)) is not None:
        seq, applied = plain
        if seq <= SEQUENCE_MAX and len(applied) <= LOCAL_MAX:
            return Ack(seq, applied)
    _, number, in_force, dropped, as_sent, failures = value.fields(
        "type", "seq", "applied", "dropped", "as_sent", "failures"
    )
    if as_sent.flag() and (in_force.raw or dropped.raw):
        raise as_sent.fail("documents are named beside it")
    return Ack(
        seq=number.integer(0, SEQUENCE_MAX),
        applied=_digests(in_force),
        dropped=tuple(item.integer(1, values.IDENTITY_MAX) for item in dropped.items(LOCAL_MAX)),
        as_sent=as_sent.flag(),
        failures=_read_failures(failures),
    )


def _refusal(value: Value) -> Refusal:
    _, seq, problem, message = value.fields("type", "seq", "problem", "message")
    return Refusal(seq.integer(0, SEQUENCE_MAX), problem.one_of(Problem), message.text(1024))


def _counters(value: Value) -> Counters:
    _, hits = value.fields("type", "hits")
    return Counters(
        {_short(hits, rule, 4096): count.integer(0, 2**64 - 1) for rule, count in hits.mapping(HITS_MAX)}
    )


def _renewal(value: Value) -> Renewal:
    _, token = value.fields("type", "token")
    return Renewal(token.text(TOKEN_LIMIT))


def _welcome(value: Value) -> Welcome:
    schema = value.raw.get("schema") if isinstance(value.raw, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        raise UnknownRevision(
            f"welcome.schema: revision {str(schema)[:40]} of documents is not the {SCHEMA} spoken here"
        )
    _, _, epoch, seconds = value.fields("type", "schema", "epoch", "counters_seconds")
    return Welcome(epoch.text(64), seconds.integer(1, 3600))


def _begin(value: Value) -> Begin:
    _, seq, base, revision = value.fields("type", "seq", "base", "revision")
    return Begin(
        seq.integer(1, SEQUENCE_MAX),
        None if base.raw is None else base.integer(1, SEQUENCE_MAX),
        revision.integer(1, SEQUENCE_MAX),
    )


def _node(value: Value) -> NodePart:
    _, documents, rulesets, own, endpoints, secrets = value.fields(
        "type", "documents", "rulesets", "addresses", "endpoints", "secrets"
    )
    return NodePart(
        documents=_digests(documents),
        rulesets=_contents(rulesets),
        addresses={
            _prefix(Value(text, own.path)): identity.integer(1, values.IDENTITY_MAX)
            for text, identity in own.mapping(ROWS_MAX)
        },
        endpoints=tuple(_local(item) for item in endpoints.items(LOCAL_MAX)),
        secrets={
            _secret_name(Value(name, secrets.path)): _version(version)
            for name, version in secrets.mapping(SECRETS_MAX)
        },
    )


def _contents(value: Value) -> dict[str, str]:
    rows = value.mapping(ROWS_MAX)
    return rows_fast.contents(value.raw) or {
        _digest(Value(digest, f"{value.path}[{index}]")): _digest(content)
        for index, (digest, content) in enumerate(rows)
    }


def _local(value: Value) -> values.PodRow:
    quick = rows_fast.pod(value.raw)
    return (*quick[0], *quick[1]) if quick and quick[1] else values.pod_row(value)


def _node_changes(value: Value) -> NodeChanges:
    _, documents, rulesets, own, endpoints, secrets = value.fields(
        "type", "documents", "rulesets", "addresses", "endpoints", "secrets"
    )
    pods = _rows(endpoints, rows_fast.pod, _pod_row, LOCAL_MAX)
    made = NodeChanges(
        documents=dict(_changed_document(item.row(2)) for item in documents.items(LOCAL_MAX)),
        rulesets={
            _digest(Value(digest, rulesets.path)): _or_none(_digest)(content)
            for digest, content in rulesets.mapping(ROWS_MAX)
        },
        addresses={
            _prefix(Value(text, own.path)): _or_none(_identity)(identity)
            for text, identity in own.mapping(ROWS_MAX)
        },
        endpoints=dict(pods),
        secrets={
            _secret_name(Value(name, secrets.path)): _or_none(_version)(version)
            for name, version in secrets.mapping(SECRETS_MAX)
        },
    )
    if len(made.endpoints) != len(pods):
        raise endpoints.fail("an endpoint occurs twice")
    return made


def _changed_document(row: list[Value]) -> tuple[int, str | None]:
    return _identity(row[0]), _or_none(_digest)(row[1])


def _or_none(read: Callable[[Value], T]) -> Callable[[Value], T | None]:
    return lambda value: None if value.raw is None else read(value)


def _identity(value: Value) -> int:
    return value.integer(1, values.IDENTITY_MAX)


def _secret(value: Value) -> SecretPart:
    _, name, version, text = value.fields("type", "name", "version", "value")
    made = SecretPart(_secret_name(name), _version(version), text.text(VALUE_LIMIT))
    if problem := value_problem(made.value):
        raise text.fail(problem)
    return made


def _secret_name(value: Value) -> str:
    text = value.text(values.SECRET_LIMIT)
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise value.fail(f"{text[:64]!r} is no namespace/name")
    return text


def _version(value: Value) -> str:
    text = value.text(32)
    if len(text) != 32 or not _DIGITS.issuperset(text):
        raise value.fail("a version has 32 hexadecimal digits")
    return text


def _document(value: Value) -> DocumentPart:
    _, digest, body = value.fields("type", "digest", "document")
    made = values.published_document(body)
    if made.digest != _digest(digest):
        raise digest.fail(f"the digest of the document is {made.digest}")
    return DocumentPart(made.digest, made)


def _ruleset(value: Value) -> RulesetPart:
    _, content, body = value.fields("type", "content", "ruleset")
    made = values.ruleset(body)
    found = hashlib.sha256(canonical(body.raw)).hexdigest()
    if found != _digest(content):
        raise content.fail(f"the digest of the ruleset's bytes is {found}")
    return RulesetPart(found, made)


def _addresses(value: Value) -> AddressesPart:
    _, rows = value.fields("type", "rows")
    return AddressesPart(_rows(rows, rows_fast.address, _address_row))


def _rows(
    value: Value, fast: Callable[[object], T | None], checked: Callable[[Value], T], limit: int = ROWS_MAX
) -> tuple[T, ...]:
    """Rows as they mostly are in a fraction of the time; all others in the way that can complain."""
    value.items(limit)
    raw = value.raw if isinstance(value.raw, list) else []
    found: list[T] = []
    for index, item in enumerate(raw):
        row = fast(item)
        found.append(checked(Value(item, f"{value.path}[{index}]")) if row is None else row)
    return tuple(found)


def _address_row(value: Value) -> tuple[str, int | None]:
    text, identity = value.row(2)
    return _prefix(text), None if identity.raw is None else identity.integer(1, values.IDENTITY_MAX)


def _prefix(value: Value) -> str:
    """Spelled in the one way, so that two texts are two prefixes."""
    if not value.convert(rows_fast.one_spelling, "prefix such as 10.0.0.0/8 (with its host bits 0)"):
        raise value.fail(f"{value.text()[:64]!r} is spelled in another way than the operator does")
    return value.text()


def _identities(value: Value) -> IdentitiesPart:
    _, rows = value.fields("type", "rows")
    return IdentitiesPart(tuple(map(_identity_row, rows.items(ROWS_MAX))))


def _identity_row(value: Value) -> tuple[int, tuple[str, ...] | None]:
    number, listed = value.row(2)
    return (
        number.integer(1, values.IDENTITY_MAX),
        None if listed.raw is None else values.labels(listed),
    )


def _pods(value: Value) -> PodsPart:
    _, rows = value.fields("type", "rows")
    return PodsPart(_rows(rows, rows_fast.pod, _pod_row))


def _pod_row(value: Value) -> tuple[PodName, PlacedPod | None]:
    namespace, name, identity, listed = value.row(4)
    key = namespace.text(values.NAME_LIMIT), name.text(values.NAME_LIMIT)
    if identity.raw is None:
        return key, None
    return key, (identity.integer(1, values.IDENTITY_MAX), values.addresses(listed))


def _services(value: Value) -> ServicesPart:
    _, rows = value.fields("type", "rows")
    return ServicesPart(tuple(map(_service_row, rows.items(ROWS_MAX))))


def _service_row(value: Value) -> tuple[Frontend, Backends | None]:
    address, proto, port, listed = value.row(4)
    key = values.frontend(address, proto, port)
    return key, None if listed.raw is None else values.backends(listed)


def _commit(value: Value) -> Commit:
    _, seq, *counts = value.fields("type", "seq", "ipcache", "identities", "pods", "services")
    return Commit(seq.integer(1, SEQUENCE_MAX), *(item.integer(0, SEQUENCE_MAX) for item in counts))


def _digests(value: Value) -> dict[int, str]:
    listed = value.items(LOCAL_MAX)
    if quick := rows_fast.digests(value.raw):
        return quick
    rows = [item.row(2) for item in listed]
    found = {_identity(identity): _digest(digest) for identity, digest in rows}
    if len(found) != len(rows):
        raise value.fail("an identity occurs twice")
    return found


def _digest(value: Value) -> str:
    text = value.text(64)
    if len(text) != 64 or not _DIGITS.issuperset(text):
        raise value.fail(f"{text[:64]!r} is no SHA-256 in hex")
    return text


def _read_failures(value: Value) -> tuple[Failing, ...]:
    rows = [item.row(3) for item in value.items(FAILURES_MAX)]
    return tuple(
        Failing(identity.integer(0, values.IDENTITY_MAX), reason.text(64), message.text(1024))
        for identity, reason, message in rows
    )


def _short(value: Value, text: str, limit: int) -> str:
    return Value(text, value.path).text(limit)


_FROM_LOADER: dict[str, Callable[[Value], ToOperator]] = {
    "hello": _hello,
    "ack": _ack,
    "refusal": _refusal,
    "counters": _counters,
    "renewal": _renewal,
}
_FROM_OPERATOR: dict[str, Callable[[Value], ToLoader]] = {
    "welcome": _welcome,
    "begin": _begin,
    "node": _node,
    "node-changes": _node_changes,
    "document": _document,
    "ruleset": _ruleset,
    "secret": _secret,
    "addresses": _addresses,
    "identities": _identities,
    "pods": _pods,
    "services": _services,
    "commit": _commit,
}
