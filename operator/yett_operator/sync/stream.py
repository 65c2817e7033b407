"""What one loader is sent: always the way from what it has to what is newest, one step at a time.

The next update is made when the one before has been answered.  So a slow loader never has more
than one under way, and gets everything that came meanwhile in one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import Protocol

from yett_operator.ports import Change, NodeSnapshot, PublishedDocument, SnapshotSource
from yett_operator.sync.counters import Counters
from yett_operator.sync.frames import Frames
from yett_operator.sync.sent import Sent
from yett_operator.sync.settings import Settings
from yett_policy.sync import encode
from yett_policy.sync.message import Begin, Commit, Hello, NodeChanges, SecretPart


class Send(Protocol):
    """Takes the frames of an update to the loader."""

    def __call__(self, frames: Sequence[bytes], *, whole: bool) -> Awaitable[None]:
        """`whole`: they are a snapshot."""


_identity = attrgetter("identity")


class Stream:
    """Updates of one loader."""

    def __init__(
        self,
        source: SnapshotSource,
        frames: Frames,
        counters: Counters,
        settings: Settings,
        node: str,
        hello: Hello,
    ) -> None:
        self._source = source
        self._frames = frames
        self._counters = counters
        self._settings = settings
        self._node = node
        self._kept = set(hello.documents), set(hello.rulesets)
        """That the loader has before it is sent a node's part: digests, and contents."""
        resume = hello.resume
        known = resume is not None and resume.epoch == source.epoch and resume.revision <= source.revision
        self._told = resume.revision if resume and known else 0
        """Revision that the loader was told last; 0: it needs a snapshot."""
        self._at = self._told
        """Revision up to which it lacks nothing: what changed since `_told` did not concern it."""
        self._sent: Sent | None = None
        """What the loader was sent last."""
        self._stale: set[int] = set()
        """Identities in it whose document changed."""
        self._touched = True
        """Something else in it may have changed."""
        self._wake = asyncio.Event()
        self._wake.set()
        self._own_wake = asyncio.Event()
        """What is new concerns the node itself."""
        self._begun = 0.0
        """When the last update was made."""
        self._answered = asyncio.Event()
        self.seq = 0
        """Of the last update."""
        self._outstanding = 0
        self._whole = False
        """The outstanding one is a snapshot."""
        self._refusals = 0
        """Snapshots that were refused one after the other."""

    # -- what happened ---------------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """The source has a new revision."""
        if self._sent is None or self._concerns(change):
            self._touched = True
        elif numbers := change.documents.keys() | change.gone:
            self._stale |= numbers.intersection(map(_identity, self._sent.documents))
        if self._touched or self._stale:
            self._own_wake.set()
        self._wake.set()

    def asked(self, seq: int) -> Mapping[int, str] | None:
        """Identity -> digest of all documents that the update asks for; None if its answer is not waited for."""
        if not seq or seq != self._outstanding or self._sent is None:
            return None
        return self._sent.digests

    def acked(self, seq: int) -> None:
        """The loader has taken an update."""
        if seq == self._outstanding:
            self._outstanding = self._refusals = 0
            self._answered.set()

    def refused(self, seq: int) -> None:
        """It has taken nothing of it: a snapshot is due."""
        if seq != self._outstanding:
            return
        self._refusals += self._whole
        self._told = self._at = 0
        self._sent = None
        self._touched = True
        self._kept = set(), set()
        self._outstanding = 0
        self._own_wake.set()
        self._wake.set()
        self._answered.set()

    # -- sending ---------------------------------------------------------------------------

    async def run(self, send: Send) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            await self._space()
            self._wake.clear()
            self._own_wake.clear()
            if self._source.revision == 0:
                continue
            if self._refusals:
                await asyncio.sleep(self._patience())
            begun = time.monotonic()
            frames = await self._next()
            if not frames:
                continue
            self._begun = begun
            self._answered.clear()
            await send(frames, whole=self._whole)
            loop.call_soon(self._counters.sent)  # uvloop has written it by its next round
            frames = []  # the next update may be hours away
            await self._answered.wait()

    async def _space(self) -> None:
        """Wait until the update before is old enough, and for a tick of everybody's clock: who is told the
        same changes at the same moment is sent the same bytes, which are made once.
        """
        if (rest := _tick(self._begun, self._settings.spread) - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._own_wake.wait()
        if (rest := _tick(self._begun, self._settings.spacing) - time.monotonic()) > 0:
            await asyncio.sleep(rest)

    def _patience(self) -> float:
        return min(self._settings.refused_first * 2.0 ** (self._refusals - 1), self._settings.refused_most)

    async def _next(self) -> list[bytes]:
        """The frames of the next update, empty if the loader lacks nothing."""
        while self._told == 0:
            # Its making takes a while; what changes meanwhile is added to it.
            task, made_at = self._frames.snapshot(self._source.snapshot(self._node))
            cluster = await asyncio.shield(task)
            now = self._source.revision
            more = self._frames.delta(made_at, now)
            if more is not None:
                return self._update(None, (*cluster, *more))
        delta = self._frames.delta(self._at, self._source.revision)
        if delta is None:
            self._told = 0
            return await self._next()
        return self._update(self._told, delta)

    def _update(self, base: int | None, cluster: Sequence[bytes]) -> list[bytes]:
        """Up to what is newest; empty if that does not concern the loader."""
        self._at = revision = self._source.revision
        own = self._own(whole=base is None)
        if not cluster and not own:
            return []
        self.seq += 1
        self._outstanding = self.seq
        self._whole = base is None
        self._told = revision
        self._counters.updates["snapshot" if base is None else "delta"] += 1
        return [
            encode.begin(Begin(self.seq, base, revision)),
            *own,
            *cluster,
            encode.commit(Commit(self.seq, *self._source.sizes)),
        ]

    def _own(self, *, whole: bool) -> list[bytes]:
        """The node's part, or what is different in it, with the bodies that the loader lacks."""
        if not whole and not self._touched and (frames := self._documents_alone()) is not None:
            return frames
        snapshot = self._source.snapshot(self._node)
        sent = Sent.of(snapshot)
        self._stale = set()
        known = set(map(_identity, sent.documents))
        self._touched = any(pod.identity not in known for pod in sent.endpoints)  # yet to come
        if whole or self._sent is None:
            frame = encode.node(sent.part)
        elif changes := self._sent.changes(sent):
            frame = encode.node_changes(changes)
        else:
            return []
        frames = [*self._bodies(snapshot), frame]
        self._sent = sent
        self._kept = set(), set()
        return frames

    def _documents_alone(self) -> list[bytes] | None:
        """As `_own` if nothing else is different, which is nearly always so and costs next to nothing."""
        stale, self._stale = self._stale, set()
        if self._sent is None or not stale:
            return []
        new: dict[int, PublishedDocument] = {}
        for old in self._sent.documents:
            if old.identity not in stale:
                continue
            document = self._source.document(old.identity)
            if document is None or old.rulesets != document.rulesets:
                return None
            if old.digest != document.digest:
                new[old.identity] = document
        if not new:
            return []
        digests = {number: document.digest for number, document in new.items()}
        documents = tuple(new.get(each.identity, each) for each in self._sent.documents)
        self._sent = replace(self._sent, documents=documents)
        changes = NodeChanges(digests, rulesets={}, addresses={}, endpoints={}, secrets={})
        return [*(document.frame for document in new.values()), encode.node_changes(changes)]

    def _bodies(self, snapshot: NodeSnapshot) -> Iterator[bytes]:
        """Secrets, documents and rulesets that the loader lacks."""
        documents, rulesets = self._kept
        secrets: Mapping[str, str] = {}
        if (sent := self._sent) is not None:
            documents = {document.digest for document in sent.documents}
            rulesets = {ruleset.content for ruleset in sent.rulesets}
            secrets = sent.secrets
        for name, secret in snapshot.secrets.items():
            if secrets.get(name) != secret.version:
                yield encode.secret(SecretPart(name, secret.version, secret.value))
        for ruleset in snapshot.rulesets.values():
            if ruleset.content not in rulesets:
                yield ruleset.frame
        for document in snapshot.documents.values():
            if document.digest not in documents:
                yield document.frame

    def _concerns(self, change: Change) -> bool:
        if self._node in change.node_addresses or self._node in change.moved.values():
            return True
        here = (pod is not None and pod.node == self._node for pod in change.pods.values())
        return bool(change.secrets) or any(here)


def _tick(after: float, every: float) -> float:
    return (after // every + 1) * every
