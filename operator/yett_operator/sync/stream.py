"""What one loader is sent: always the way from what it has to what is newest, one step at a time.

The next update is made when the one before has been answered.  So a slow loader never has more
than one under way, and gets everything that came meanwhile in one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from yett_operator.ports import Change, NodeSnapshot, SnapshotSource
from yett_operator.sync.counters import Counters
from yett_operator.sync.frames import Frames
from yett_operator.sync.settings import Settings
from yett_policy.sync import encode
from yett_policy.sync.message import Begin, Commit, Hello, NodeChanges, NodePart, SecretPart

Send = Callable[[Sequence[bytes]], Awaitable[None]]


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
        self._part: NodePart | None = None
        """As the loader was sent it last."""
        self._touched = True
        """The node's part may have changed."""
        self._wake = asyncio.Event()
        self._wake.set()
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
        if not self._touched:
            self._touched = self._concerns(change)
        self._wake.set()

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
        self._part = None
        self._touched = True
        self._kept = set(), set()
        self._outstanding = 0
        self._wake.set()
        self._answered.set()

    # -- sending ---------------------------------------------------------------------------

    async def run(self, send: Send) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._source.revision == 0:
                continue
            if self._refusals:
                await asyncio.sleep(self._patience())
            begun = time.monotonic()
            frames = await self._next()
            if not frames:
                continue
            self._answered.clear()
            await send(frames)
            await self._answered.wait()
            rest = begun + self._settings.spacing - time.monotonic()
            if rest > 0:
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
        if not (self._touched or whole or self._part is None):
            return []
        snapshot = self._source.snapshot(self._node)
        part = node_part(snapshot)
        if whole or self._part is None:
            frame = encode.node(part)
        elif changes := NodeChanges.between(self._part, part):
            frame = encode.node_changes(changes)
        else:
            self._touched = False
            return []
        frames = [*self._bodies(snapshot), frame]
        self._touched = False
        self._part = part
        self._kept = set(), set()
        return frames

    def _bodies(self, snapshot: NodeSnapshot) -> Iterator[bytes]:
        """Secrets, documents and rulesets that the loader lacks."""
        documents, rulesets = self._kept
        secrets: Mapping[str, str] = {}
        if (part := self._part) is not None:
            documents, rulesets = set(part.documents.values()), set(part.rulesets.values())
            secrets = part.secrets
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
        if change.secrets or any(pod is not None and pod.node == self._node for pod in change.pods.values()):
            return True
        if self._part is None:
            return True
        numbers = change.documents.keys() | change.gone
        return bool(numbers) and any(identity in numbers for _, _, identity, _ in self._part.endpoints)


def node_part(snapshot: NodeSnapshot) -> NodePart:
    """The node's part as it is sent."""
    return NodePart(
        documents={identity: item.digest for identity, item in snapshot.documents.items()},
        rulesets={digest: item.content for digest, item in snapshot.rulesets.items()},
        addresses=dict(snapshot.node_addresses),
        endpoints=tuple(
            sorted((*key, pod.identity, pod.addresses) for key, pod in snapshot.endpoints.items())
        ),
        secrets={name: secret.version for name, secret in sorted(snapshot.secrets.items())},
    )
