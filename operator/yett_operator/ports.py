"""Where the operator's parts meet: what is published to loaders, and what loaders answer.

The sync stream reads a `SnapshotSource` and writes an `AckSink`; it knows neither compiler nor
API server, and they do not know it.  Everything here is called on the event loop and returns
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from yett_operator.standing import Standing
from yett_policy.cluster import PodKey
from yett_policy.prefix import Packed, packed_host
from yett_policy.service import Backends, Frontend


@dataclass(frozen=True, slots=True)
class PublishedDocument:
    """The policy of one identity, encoded once for every node."""

    identity: int
    digest: str
    """`Document.digest`: what a loader acknowledges."""
    rulesets: tuple[str, ...]
    """Digests of the rulesets that its entries name, sorted."""
    frame: bytes = field(repr=False)
    """As it is sent."""


@dataclass(frozen=True, slots=True)
class PublishedRuleset:
    """HTTP rules with their tables, encoded once for every node."""

    digest: str
    """Of the rules: `Ruleset.digest`."""
    content: str
    """SHA-256 of the canonical JSON, hex.  Another version of the compiler may make other tables of the
    same rules, so this, not `digest`, says whether a node has it already."""
    engine: str
    """`kernel` or `sidecar`."""
    frame: bytes = field(repr=False)
    """As it is sent."""
    secrets: tuple[str, ...] = ()
    """`namespace/name` of the Secrets that its rules name, sorted."""


@dataclass(frozen=True, slots=True)
class PublishedSecret:
    """A Secret that rules name and that is there."""

    version: str
    """Random, another one for each value."""
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod, the node that it runs on, its addresses and its identity: one record for all who speak of it."""

    key: PodKey
    claimed: Packed | tuple[Packed, ...]
    """See `prefixes`; alone if it is one, as nearly always, which saves a tuple for each pod."""
    node: str
    """That it runs on; empty: none yet."""
    uid_mark: int = 0
    """A byte of the hash of its UID, which as a small number takes no room: tells nearly every pod from a later one
    of the same name."""
    identity: int = field(default=0, compare=False)
    """Given once, when it is known; with another one it is another record."""

    @property
    def prefixes(self) -> tuple[Packed, ...]:
        """Its addresses as in `ipcache`, which so has the same objects."""
        return (self.claimed,) if isinstance(self.claimed, int) else self.claimed

    @property
    def addresses(self) -> tuple[str, ...]:
        """IPv4, IPv6 or both, without prefix length."""
        return tuple(map(packed_host, self.prefixes))

    @property
    def told(self) -> tuple[object, ...]:
        """All that somebody outside is told of it."""
        return self.identity, self.claimed, self.node


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """Everything that one node must have.

    The mappings are the publisher's own: read them before the next await, change nothing.
    """

    revision: int
    documents: Mapping[int, PublishedDocument]
    """By identity, of the node's pods."""
    rulesets: Mapping[str, PublishedRuleset]
    """By digest: those that the documents name."""
    ipcache: Mapping[Packed, int]
    """Prefix -> identity, as every node sees it that is none of `node_addresses`."""
    node_addresses: Mapping[str, int]
    """Prefix -> identity of the node's own addresses; they go before `ipcache`."""
    identities: Mapping[int, tuple[str, ...]]
    """Identity -> labels, for names in flows."""
    pods: Mapping[PodKey, PlacedPod]
    """All of the cluster, for names in flows."""
    endpoints: tuple[PlacedPod, ...]
    """Those on the node, in the order of their keys."""
    services: Mapping[Frontend, Backends] = field(default_factory=dict)
    """Who is behind the addresses that kube-proxy translates."""
    secrets: Mapping[str, PublishedSecret] = field(default_factory=dict)
    """By `namespace/name`: those that the rulesets name, as far as they are there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became different between revision - 1 and revision; empty parts did not change.

    A loader takes documents and rulesets that its endpoints need, `node_addresses` of its
    own node, and the rest whole.
    """

    revision: int
    documents: Mapping[int, PublishedDocument] = field(default_factory=dict)
    gone: frozenset[int] = frozenset()
    """Identities that no longer have a document."""
    rulesets: Mapping[str, PublishedRuleset] = field(default_factory=dict)
    """New ones.  Those that no document names any more just cease to be in snapshots."""
    ipcache: Mapping[Packed, int | None] = field(default_factory=dict)
    """None: no longer there."""
    node_addresses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Node -> all its prefixes."""
    identities: Mapping[int, tuple[str, ...] | None] = field(default_factory=dict)
    pods: Mapping[PodKey, PlacedPod | None] = field(default_factory=dict)
    services: Mapping[Frontend, Backends | None] = field(default_factory=dict)
    moved: Mapping[PodKey, str] = field(default_factory=dict)
    """Pods that left a node (gone, or a new pod of the same name elsewhere) -> that node."""
    came: frozenset[tuple[str, int]] = frozenset()
    """(node, identity) of pods on nodes where no pod had it, but for the first revision: all came then."""
    left: frozenset[tuple[str, int]] = frozenset()
    """(node, identity) that no pod there has any more."""
    secrets: frozenset[str] = frozenset()
    """Secrets that came, went or have another value."""


Listener = Callable[[Change], None]


class SnapshotSource(Protocol):
    """What loaders must have, as of now, and what changes."""

    @property
    def epoch(self) -> str:
        """Of this run of the operator; revisions of two epochs cannot be compared."""

    @property
    def revision(self) -> int:
        """Grows by 1 with each change.  0: nothing is known yet, and nothing may be sent."""

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How many addresses, identities, pods and services there are."""

    def snapshot(self, node: str) -> NodeSnapshot:
        """For one node, which need not be known; RuntimeError while `revision` is 0."""

    def document(self, identity: int) -> PublishedDocument | None:
        """For an endpoint that came to a node and brings an identity that was not there."""

    def ruleset(self, digest: str) -> PublishedRuleset | None:
        """One that a document names."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with each change, after `snapshot` shows it; returns what ends that.

        It must not block or raise; the first call may be for revision 1.
        """


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that a node was sent and could not put in force."""

    identity: int
    """0: nothing in particular; the whole node is concerned."""
    reason: str
    """CamelCase, for conditions: `MapFull`, `NotAttached`, `ProtocolError`, `KernelError`,
    `SidecarNACK`."""
    message: str
    """One sentence from the loader; not trusted, shown escaped and cut."""


@dataclass(frozen=True, slots=True)
class Ack:
    """What a node has in force."""

    applied: Mapping[int, str]
    """Identity -> digest of the document in force; changes only, unless `whole`."""
    dropped: frozenset[int] = frozenset()
    """Identities that no longer are in force there."""
    whole: bool = False
    """`applied` is everything; what was known before is forgotten."""
    failures: tuple[Failure, ...] = ()
    """All that stand now; empty: none any more."""
    standing: Standing | None = field(default=None, compare=False, repr=False)
    """All that is in force after it, from whom has it at hand."""

    def added_to(self, before: Mapping[int, str]) -> Standing:
        """All that is in force after it."""
        applied = dict(self.applied) if self.whole else {**before, **self.applied}
        for identity in self.dropped:
            applied.pop(identity, None)
        return Standing(applied)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a loader says of itself when it connects."""

    version: str = ""
    kernel: str = ""


class AckSink(Protocol):
    """Takes what loaders answer.

    Authentication has been done: `node` is the node of the token.  A connection that is
    silently dead must be reported as disconnected within 3 s, so that the status shows it
    within 5.
    """

    def connected(self, node: str, info: NodeInfo) -> None:
        """A loader opened its stream; one that was open for the node before is over."""

    def disconnected(self, node: str) -> None:
        """Its stream is over, and no other has taken its place."""

    def acked(self, node: str, ack: Ack) -> None:
        """What is in force there has changed."""

    def counted(self, node: str, hits: Mapping[str, int]) -> None:
        """Rule reference -> verdicts so far, since the node's maps were made; of some rules or all."""
