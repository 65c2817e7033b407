"""The messages of the sync stream as values.

loader -> operator    Hello, Ack, Refusal, Counters, Renewal
operator -> loader    Welcome, then updates: Begin, parts, Commit
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TypeVar

from yett_policy.document import SCHEMA, Document, Ruleset
from yett_policy.service import Backends, Frontend
from yett_policy.sync import values

SEQUENCE_MAX = 2**53
"""Whole numbers that every JSON reader takes."""
ROWS_MAX = 65536
"""Rows of one part; senders make smaller ones."""
LOCAL_MAX = 4096
"""Pods of one node, and documents."""
NAMED_MAX = 8
"""Documents that an answer names though all that was asked for are in force: the operator compares the fewer."""
HITS_MAX = 8192
FAILURES_MAX = 256
TOKEN_LIMIT = 16384
SECRETS_MAX = 1024


class Close(IntEnum):
    """Why a stream was ended: websocket close codes, from 4000 on our own."""

    OVERSIZE = 1009
    PROTOCOL_ERROR = 4400
    NOT_AUTHENTICATED = 4401
    """The token that kept the stream alive is no longer valid."""
    WRONG_NODE = 4403
    """The hello names another node than the token."""
    UNKNOWN_REVISION = 4406
    SILENT = 4408
    REPLACED = 4409
    """A newer stream of the same node took its place."""
    TOO_MUCH = 4429
    """More messages than any loader has reason to send."""


class Problem(StrEnum):
    """Why a loader took nothing of an update."""

    GAP = "Gap"
    """It is no change to what the loader has."""
    REPLAYED = "Replayed"
    """It has been taken before."""
    MALFORMED = "Malformed"
    """A bound, a digest or a reference is wrong."""


PodName = tuple[str, str]
"""(namespace, name)."""
PlacedPod = tuple[int, tuple[str, ...]]
"""(identity, addresses)."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Failing:
    """Something that the node was sent and has not in force."""

    identity: int
    """0: the whole node."""
    reason: str
    message: str


# -- from the loader -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resume:
    """Up to where the loader has what the operator's run `epoch` sent."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The loader's first message."""

    node: str
    instance: str
    """Of this run of the loader."""
    version: str
    kernel: str
    applied: Mapping[int, str]
    """Identity -> digest of the document in force."""
    failures: tuple[Failing, ...] = ()
    documents: tuple[str, ...] = ()
    """Digests of documents that need not be sent."""
    rulesets: tuple[str, ...] = ()
    """`content` of rulesets that need not be sent."""
    resume: Resume | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Ack:
    """What is in force now; also without an update, when that changed."""

    seq: int
    """The last update that was taken, 0: none of this stream."""
    applied: Mapping[int, str]
    dropped: tuple[int, ...] = ()
    as_sent: bool = False
    """The first answer to that update, and exactly the documents that it asks for are in force: none is named."""
    failures: tuple[Failing, ...] = ()
    """All that stand."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing of an update was taken."""

    seq: int
    problem: Problem
    message: str


@dataclass(frozen=True, slots=True)
class Counters:
    """Rule reference -> verdicts since the node's maps were made; those that changed."""

    hits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Renewal:
    """A newer token: the stream may live on."""

    token: str = field(repr=False)


ToOperator = Hello | Ack | Refusal | Counters | Renewal


# -- from the operator ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a hello."""

    epoch: str
    """Of this run of the operator."""
    counters_seconds: int
    """How often counters are wanted."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Begin:
    """An update follows; nothing of it counts before its Commit."""

    seq: int
    base: int | None
    """Revision that the cluster's parts change; None: they are everything."""
    revision: int


@dataclass(frozen=True, slots=True)
class NodePart:
    """All that this node must have; bodies that it lacks go before."""

    documents: Mapping[int, str]
    """Identity -> digest."""
    rulesets: Mapping[str, str]
    """Digest -> content."""
    addresses: Mapping[str, int]
    """Prefix -> identity of the node's own addresses."""
    endpoints: tuple[values.PodRow, ...]
    secrets: Mapping[str, str] = field(default_factory=dict)
    """`namespace/name` of a Secret that the rulesets name and that is there -> its version."""

    def changed(self, changes: NodeChanges) -> NodePart:
        """With these changes made."""
        endpoints = self.endpoints
        if changes.endpoints:
            placed = _put(_by_name(endpoints), changes.endpoints)
            endpoints = tuple(sorted((*key, *pod) for key, pod in placed.items()))
        return NodePart(
            documents=_put(self.documents, changes.documents),
            rulesets=_put(self.rulesets, changes.rulesets),
            addresses=_put(self.addresses, changes.addresses),
            endpoints=endpoints,
            secrets=_put(self.secrets, changes.secrets),
        )


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """What of the node's part is different; None: no longer there."""

    documents: Mapping[int, str | None]
    rulesets: Mapping[str, str | None]
    addresses: Mapping[str, int | None]
    endpoints: Mapping[PodName, PlacedPod | None]
    secrets: Mapping[str, str | None]

    def __bool__(self) -> bool:
        return bool(self.documents or self.rulesets or self.addresses or self.endpoints or self.secrets)


def _by_name(endpoints: Iterable[values.PodRow]) -> dict[PodName, PlacedPod]:
    return {row[:2]: row[2:] for row in endpoints}


def _put(held: Mapping[K, V], changes: Mapping[K, V | None]) -> Mapping[K, V]:
    if not changes:
        return held
    there = {**held, **changes}
    return {key: value for key, value in there.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SecretPart:
    """The value of a Secret."""

    name: str
    version: str
    """Another one for another value; says nothing of it."""
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A document; its digest has been checked."""

    digest: str
    document: Document


@dataclass(frozen=True, slots=True)
class RulesetPart:
    """A ruleset; both digests have been checked."""

    content: str
    ruleset: Ruleset


@dataclass(frozen=True, slots=True)
class AddressesPart:
    """Prefix -> identity; None: no longer there."""

    rows: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class IdentitiesPart:
    """Identity -> labels; None: no longer in use."""

    rows: tuple[tuple[int, tuple[str, ...] | None], ...]


@dataclass(frozen=True, slots=True)
class PodsPart:
    """(namespace, name) -> (identity, addresses); None: gone."""

    rows: tuple[tuple[PodName, PlacedPod | None], ...]


@dataclass(frozen=True, slots=True)
class ServicesPart:
    """Frontend -> backends; None: no longer there."""

    rows: tuple[tuple[Frontend, Backends | None], ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """The update is complete, and this is how much there must be of everything now."""

    seq: int
    ipcache: int
    identities: int
    pods: int
    services: int


Part = (
    NodePart
    | NodeChanges
    | DocumentPart
    | RulesetPart
    | SecretPart
    | AddressesPart
    | IdentitiesPart
    | PodsPart
    | ServicesPart
)
ToLoader = Welcome | Begin | Part | Commit
