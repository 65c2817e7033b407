"""What goes to the compiling process, and what comes back; everything can be pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, TypeVar

from yett_operator.ports import PublishedDocument, PublishedRuleset
from yett_policy.cluster import Namespace, Node, PodFacts, PodKey, Service, Slice, Workload
from yett_policy.identity import Labels
from yett_policy.prefix import Packed
from yett_policy.service import Backends, Frontend

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy as it is stored."""

    body: bytes = field(repr=False)
    """JSON."""
    fallback: bytes = field(default=b"", repr=False)
    """An older version that was accepted, for the case that this one is not."""


class Facts(Protocol):
    """What there is of a `PodFacts` in whatever is kept of a pod."""

    @property
    def workload(self) -> Workload:
        """See `PodFacts`."""

    @property
    def prefixes(self) -> tuple[Packed, ...]:
        """See `PodFacts`."""


def cut(mapping: Mapping[K, V], size: int) -> Iterator[dict[K, V]]:
    """In pieces of at most so many items, each made when it is due."""
    items = iter(mapping.items())
    while piece := dict(islice(items, size)):
        yield piece


def _bare(pods: Mapping[PodKey, Facts | None]) -> dict[PodKey, Facts | None]:
    return {key: None if pod is None else PodFacts(pod.workload, pod.prefixes) for key, pod in pods.items()}


@dataclass(slots=True)
class Batch:
    """Changes; None: gone."""

    policies: dict[str, PolicyText | None] = field(default_factory=dict)
    """By source."""
    pods: dict[PodKey, Facts | None] = field(default_factory=dict)
    namespaces: dict[str, Namespace | None] = field(default_factory=dict)
    nodes: dict[str, Node | None] = field(default_factory=dict)
    services: dict[tuple[str, str], Service | None] = field(default_factory=dict)
    slices: dict[tuple[str, str], Slice | None] = field(default_factory=dict)
    api_servers: tuple[str, ...] | None = None
    """None: no change."""
    numbers: dict[Labels, int] = field(default_factory=dict)
    """Identities that exist now."""
    forgotten: set[Labels] = field(default_factory=set)
    """Identities to be given up, unless they are in use."""

    def pieces(self, size: int) -> Iterator[Batch]:
        """The same in batches of at most so many pods, with no more of them than the compiler must know;
        all but pods is in the first.
        """
        pieces = cut(self.pods, size)
        yield replace(self, pods=_bare(next(pieces, {})))
        for pods in pieces:
            yield Batch(pods=_bare(pods))

    def __bool__(self) -> bool:
        return bool(
            self.policies
            or self.pods
            or self.namespaces
            or self.nodes
            or self.services
            or self.slices
            or self.api_servers is not None
            or self.numbers
            or self.forgotten
        )


Rows = tuple[Mapping[Packed, int | None], Mapping[PodKey, int | None]]
"""`ipcache` and `pods` of an outcome, or some of them."""


KEPT_MAX = 700_000
"""Bytes of a policy that its PolicyStatus keeps; etcd takes 1.5 MiB of an object."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the compiler makes of a policy as it is stored."""

    reason: str = "Accepted"
    """Of the condition Accepted: Accepted, Invalid, UnsupportedField or RegexTooComplex."""
    message: str = "the policy is valid"
    """One sentence; begins with the field if something is wrong."""
    kept: bool = False
    """It is refused, and an older version is in force in its place."""
    audit: bool = False
    """The version in force only records."""
    secrets: tuple[tuple[str, bool], ...] = ()
    """Secrets that the version in force names, and whether its rules have a value to use without it."""

    @property
    def accepted(self) -> bool:
        """Whether it is in force as it is stored."""
        return self.reason == "Accepted"


@dataclass(frozen=True, slots=True)
class RulesetFacts:
    """What the status of policies says of a ruleset."""

    engine: str
    reason: str
    sources: tuple[str, ...]
    """Policies that have rules in it, sorted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch led to."""

    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    """Of the policies in the batch."""
    missing: frozenset[Labels] = frozenset()
    """Label sets that need a number.  Whoever needs one keeps what he had until it is there."""
    stalled: bool = False
    """Nothing was worked out: addresses that a policy names have no number yet, and without
    them the policy would mean something else."""
    forgotten: frozenset[Labels] = frozenset()
    documents: Mapping[int, PublishedDocument] = field(default_factory=dict)
    gone: frozenset[int] = frozenset()
    rulesets: Mapping[str, PublishedRuleset] = field(default_factory=dict)
    """Those that `documents` name and that were not sent before."""
    rulesets_gone: frozenset[str] = frozenset()
    """Those that no document names any more."""
    ruleset_facts: Mapping[str, RulesetFacts] = field(default_factory=dict)
    """Of `rulesets`."""
    ipcache: Mapping[Packed, int | None] = field(default_factory=dict)
    node_addresses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    identities: Mapping[int, Labels | None] = field(default_factory=dict)
    services: Mapping[Frontend, Backends | None] = field(default_factory=dict)
    pods: Mapping[PodKey, int | None] = field(default_factory=dict)
    """Identity of pods for which it, or an address, changed."""
    subjects: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Identity -> sources of the policies that select it, where that may have changed."""
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Source of a policy that gives way to an older one -> a sentence about it; all there are."""
    more: bool = False
    """`ipcache` and `pods` come apart."""
    seconds: float = 0
    """CPU-bound time in the compiling process."""
