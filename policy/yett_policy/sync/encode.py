"""Messages as frames.

Documents and rulesets go in as the bytes that they were published as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from yett_policy.document import canonical
from yett_policy.service import Backends, Frontend
from yett_policy.sync.frame import DEFLATE_ONE_FROM, pack
from yett_policy.sync.message import (
    Ack,
    Begin,
    Commit,
    Counters,
    Failing,
    Hello,
    NodeChanges,
    NodePart,
    PlacedPod,
    PodName,
    Refusal,
    Renewal,
    SecretPart,
    Welcome,
)

T = TypeVar("T")


def hello(message: Hello) -> bytes:
    """Frame."""
    resume = message.resume
    return _frame(
        "hello",
        schema=message.schema,
        node=message.node,
        instance=message.instance,
        version=message.version,
        kernel=message.kernel,
        applied=_pairs(message.applied),
        failures=_failures(message.failures),
        documents=message.documents,
        rulesets=message.rulesets,
        resume=None if resume is None else {"epoch": resume.epoch, "revision": resume.revision},
    )


def ack(message: Ack) -> bytes:
    """Frame."""
    return _frame(
        "ack",
        seq=message.seq,
        applied=_pairs(message.applied),
        dropped=message.dropped,
        as_sent=message.as_sent,
        failures=_failures(message.failures),
    )


def refusal(message: Refusal) -> bytes:
    """Frame."""
    return _frame("refusal", seq=message.seq, problem=message.problem, message=message.message)


def counters(message: Counters) -> bytes:
    """Frame."""
    return _frame("counters", hits=dict(message.hits))


def renewal(message: Renewal) -> bytes:
    """Frame."""
    return _frame("renewal", token=message.token)


def welcome(message: Welcome) -> bytes:
    """Frame."""
    return _frame(
        "welcome",
        schema=message.schema,
        epoch=message.epoch,
        counters_seconds=message.counters_seconds,
    )


def begin(message: Begin) -> bytes:
    """Frame; by hand, for each loader gets another."""
    base = b"null" if message.base is None else b"%d" % message.base
    return pack(b'{"base":%b,"revision":%d,"seq":%d,"type":"begin"}' % (base, message.revision, message.seq))


def node(message: NodePart) -> bytes:
    """Frame."""
    return _frame("node", **_references(message), endpoints=message.endpoints)


def node_changes(message: NodeChanges) -> bytes:
    """Frame."""
    fields = {**_references(message), "endpoints": _pod_rows(message.endpoints.items())}
    return pack(canonical({"type": "node-changes", **fields}), DEFLATE_ONE_FROM)


def document(digest: str, body: bytes) -> bytes:
    """Frame; `body` is `Document.to_bytes()` and goes in as it is."""
    return pack(b'{"digest":"%b","document":%b,"type":"document"}' % (digest.encode(), body))


def ruleset(content: str, body: bytes) -> bytes:
    """Frame; `body` is the canonical JSON of `values.ruleset_json`, `content` its SHA-256."""
    return pack(b'{"content":"%b","ruleset":%b,"type":"ruleset"}' % (content.encode(), body))


def secret(message: SecretPart) -> bytes:
    """Frame; nobody keeps it."""
    return _frame("secret", name=message.name, version=message.version, value=message.value)


def addresses(rows: Iterable[tuple[str, int | None]]) -> bytes:
    """Frame."""
    return _frame("addresses", rows=list(rows))


def identities(rows: Iterable[tuple[int, tuple[str, ...] | None]]) -> bytes:
    """Frame."""
    return _frame("identities", rows=list(rows))


def pods(rows: Iterable[tuple[PodName, PlacedPod | None]]) -> bytes:
    """Frame."""
    return _frame("pods", rows=_pod_rows(rows))


def services(rows: Iterable[tuple[Frontend, Backends | None]]) -> bytes:
    """Frame."""
    return _frame("services", rows=[[*key, backends] for key, backends in rows])


def commit(message: Commit) -> bytes:
    """Frame; as `begin`."""
    return pack(
        b'{"identities":%d,"ipcache":%d,"pods":%d,"seq":%d,"services":%d,"type":"commit"}'
        % (message.identities, message.ipcache, message.pods, message.seq, message.services)
    )


def _references(message: NodePart | NodeChanges) -> dict[str, object]:
    return {
        "documents": _pairs(message.documents),
        "rulesets": dict(message.rulesets),
        "addresses": dict(message.addresses),
        "secrets": dict(message.secrets),
    }


def _frame(kind: str, **fields: object) -> bytes:
    return pack(canonical({"type": kind, **fields}))


def _pairs(mapping: Mapping[int, T]) -> list[tuple[int, T]]:
    return [(number, mapping[number]) for number in sorted(mapping)]


def _pod_rows(rows: Iterable[tuple[PodName, PlacedPod | None]]) -> list[list[object]]:
    return [[*key, *(value or (None, ()))] for key, value in rows]


def _failures(failures: Iterable[Failing]) -> list[tuple[int, str, str]]:
    return [(item.identity, item.reason, item.message) for item in failures]
