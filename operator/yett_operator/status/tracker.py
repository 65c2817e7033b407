"""Who is concerned by what: brings together policies, what is published, and what nodes say."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise, takewhile
from sys import intern

from yett_operator.compilation.batch import Judgement, Outcome
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.world import Taken
from yett_operator.kube.slim import SlimPolicy
from yett_operator.ports import Change
from yett_operator.status.nodes import Nodes
from yett_operator.status.rollup import NodeView, PolicyView, Wanted
from yett_policy.multimap import Multimap

_HISTORY = 10.0
"""Seconds for which versions of a document are remembered, to tell how far a node is behind: longer than
a node may take."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A version of a policy, and what the compiler said of it."""

    policy: SlimPolicy
    judgement: Judgement


class Tracker:
    """`changed` is called with the sources of policies whose status may be different."""

    def __init__(
        self,
        publisher: Publisher,
        changed: Callable[[Iterable[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.nodes = Nodes(self, clock)
        self.judged: dict[str, Judged] = {}
        self.identities_of: Multimap[str, int] = Multimap()
        """Source -> identities that it selects."""
        self.conflicts: Mapping[str, str] = {}
        """Source of a policy that gives way to an older one -> why."""
        self.waiting_since = clock()
        """Since when nodes could have connected: that we lead, and have something to tell them."""
        self.compiled_once = False
        """Something is published."""
        self.notes: Callable[[str], Iterable[str]] = lambda _: ()
        """What else must be said of an accepted policy, one sentence each."""
        self._publisher = publisher
        self._changed = changed
        self._clock = clock
        self._sources_of: dict[int, tuple[str, ...]] = {}
        self._versions: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        """Identity -> (when it was published, digest), oldest first."""
        self._placed_at: dict[tuple[str, int], float] = {}
        """(node, identity) -> since when pods there have it, oldest first; for as long as documents' versions."""

    def lead(self) -> None:
        """From now on nodes that say nothing are missed."""
        self.waiting_since = self._clock()

    # -- what the compile loop did

    def compiled(self, taken: Taken, outcome: Outcome, change: Change | None) -> None:
        """A batch is published."""
        now = self._clock()
        if not self.compiled_once:
            self.compiled_once, self.waiting_since = True, now
        dirty: set[str] = set()
        for source, policy in taken.policies.items():
            if policy is None:
                self.judged.pop(source, None)
                self.nodes.hits.forget(source)
            elif source in outcome.judgements:
                self.judged[source] = Judged(policy, outcome.judgements[source])
            dirty.add(source)
        dirty |= dict(self.conflicts.items() ^ outcome.conflicts.items()).keys()
        self.conflicts = outcome.conflicts
        touched: set[int] = set()
        for identity, sources in outcome.subjects.items():
            self._select(identity, sources, dirty)
        if change is not None:
            self._remember(change, now)
            touched |= change.documents.keys() | change.gone
            touched |= {pod.identity for pod in change.pods.values() if pod is not None}
            touched |= {identity for _, identity in change.left}
        for identity in change.gone if change is not None else ():
            self._select(identity, frozenset(), dirty)
            self._versions.pop(identity, None)
        self._changed(dirty)
        self.identities(touched)

    def _select(self, identity: int, sources: frozenset[str], dirty: set[str]) -> None:
        before, sources = frozenset(self._sources_of.get(identity, ())), frozenset(map(intern, sources))
        for source in before - sources:
            self.identities_of.discard(source, identity)
        for source in sources - before:
            self.identities_of.add(source, identity)
        if sources:
            self._sources_of[identity] = tuple(sources)  # a tuple takes a third of a set's room
        else:
            self._sources_of.pop(identity, None)
        dirty |= before ^ sources

    def _remember(self, change: Change, now: float) -> None:
        for identity, document in change.documents.items():
            versions = self._versions[identity]
            versions.append((now, document.digest))
            while len(versions) > 1 and versions[1][0] < now - _HISTORY:
                versions.pop(0)
        for place in change.left:
            self._placed_at.pop(place, None)
        self._placed_at |= dict.fromkeys(change.came, now)
        for place in list(takewhile(lambda place: self._placed_at[place] < now - _HISTORY, self._placed_at)):
            del self._placed_at[place]

    # -- what nodes say

    def identities(self, numbers: Iterable[int]) -> None:
        """See `Dirty`."""
        self._changed({source for number in numbers for source in self._sources_of.get(number, ())})

    def node(self, name: str) -> None:
        """See `Dirty`."""
        self.identities({pod.identity for pod in self._publisher.by_node.get(name, ())})

    def policies(self, sources: Iterable[str]) -> None:
        """See `Dirty`."""
        self._changed(sources)

    # -- what a status needs

    def view(self, policy: SlimPolicy) -> PolicyView:
        """Of a policy that is there."""
        judged = self.judged.get(policy.source)
        current = judged is not None and judged.policy.uid == policy.uid
        fresh = judged is not None and current and judged.policy.generation == policy.generation
        judgement = judged.judgement if judged is not None and fresh else None
        if judgement is not None and judgement.accepted:
            message = "; ".join((judgement.message, *self.notes(policy.source)))
            judgement = replace(judgement, message=message)
        return PolicyView(
            generation=policy.generation,
            judgement=judgement,
            nodes=self._wanted(policy.source),
            conflict=self.conflicts.get(policy.source, ""),
        )

    def node_views(self, names: Iterable[str]) -> dict[str, NodeView]:
        """Of nodes, whether they were heard of or not."""
        views = {}
        for name in names:
            state = self.nodes.states.get(name)
            views[name] = (
                NodeView(connected=False, changed_at=self.waiting_since, heard=False)
                if state is None
                else NodeView(
                    connected=state.connected,
                    changed_at=max(state.changed_at, self.waiting_since)
                    if not state.connected
                    else state.changed_at,
                    applied=state.applied,
                    failures=state.failures,
                )
            )
        return views

    def pods_of(self, source: str) -> int:
        """How many pods a policy selects."""
        nodes_of = self._publisher.nodes_of
        return sum(nodes_of[each].total() for each in self.identities_of.of(source) if each in nodes_of)

    def digest_of(self, source: str) -> str:
        """Over the documents of everything that a policy selects."""
        documents = self._publisher.documents
        digest = sha256()
        for identity in sorted(self.identities_of.of(source)):
            if identity in documents:
                digest.update(f"{identity} {documents[identity].digest}\n".encode())
        return digest.hexdigest()

    def engine_of(self, source: str) -> tuple[str, str]:
        """Who judges its HTTP requests, and why."""
        found: dict[str, str] = {}
        documents = self._publisher.documents
        digests = {
            digest
            for identity in self.identities_of.of(source)
            if identity in documents
            for digest in documents[identity].rulesets
        }
        for digest in sorted(digests):
            facts = self._publisher.ruleset_facts.get(digest)
            if facts is not None and source in facts.sources:
                found.setdefault(facts.engine, facts.reason)
        return "+".join(sorted(found)), "; ".join(found[engine] for engine in sorted(found, reverse=True))

    def _wanted(self, source: str) -> Mapping[str, Mapping[int, Wanted]]:
        wanted: defaultdict[str, dict[int, Wanted]] = defaultdict(dict)
        for identity in self.identities_of.of(source):
            document = self._publisher.documents.get(identity)
            if document is None:
                continue
            for node in self._publisher.nodes_of.get(identity, ()):
                if node:
                    since = self._behind_since(node, identity, document.digest)
                    wanted[node][identity] = Wanted(document.digest, since)
        return wanted

    def _behind_since(self, node: str, identity: int, digest: str) -> float:
        """When what the node has in force ceased to be right; of no meaning if it is."""
        state = self.nodes.states.get(node)
        applied = state.applied.get(identity) if state is not None else None
        if applied == digest:
            return 0.0
        versions = self._versions.get(identity, [])
        for (_, before), (after, _) in pairwise(versions):
            if before == applied:
                return after
        begin = versions[0][0] if versions else 0.0
        return max(begin, self._placed_at.get((node, identity), 0.0))
