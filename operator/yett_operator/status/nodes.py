"""What nodes say: behind the `AckSink` of the sync stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from yett_operator.metrics import NODES
from yett_operator.ports import Ack, Failure, NodeInfo
from yett_operator.standing import Standing
from yett_operator.status.hits import Hits


class Dirty(Protocol):
    """Hears what might show in a status."""

    def identities(self, numbers: Iterable[int]) -> None:
        """Something about these identities is different on some node."""

    def node(self, name: str) -> None:
        """Something about a node is different."""

    def policies(self, sources: Iterable[str]) -> None:
        """Counters of these policies have grown."""


@dataclass(slots=True)
class NodeState:
    """What is known of one node."""

    connected: bool = False
    changed_at: float = 0
    """When it connected or disconnected; seconds of the clock given."""
    applied: Standing = field(default_factory=lambda: Standing({}))
    failures: tuple[Failure, ...] = ()
    info: NodeInfo = field(default_factory=NodeInfo)
    source: str = ""
    """The replica that it is connected to; empty: this one."""


class Nodes:
    """All nodes that a loader spoke for, to this replica or to another that tells us.

    A loader that changes replicas is heard from both for a moment: the one that it connected
    to last counts.
    """

    def __init__(self, dirty: Dirty, clock: Callable[[], float] = time.monotonic) -> None:
        self.states: dict[str, NodeState] = {}
        self.hits = Hits()
        self._dirty = dirty
        self._clock = clock

    def via(self, source: str) -> NodesVia:
        """The sink for what is heard through one replica; `` is this one."""
        return NodesVia(self, source)

    def connected(self, node: str, info: NodeInfo, source: str) -> None:
        """What was in force before stays known until the node says more."""
        state = self.states.setdefault(node, NodeState())
        state.connected, state.changed_at, state.info, state.source = True, self._clock(), info, source
        self._changed(node)

    def disconnected(self, node: str, source: str) -> None:
        """It is not connected through that replica any more."""
        state = self.states.get(node)
        if state is not None and state.connected and state.source == source:
            state.connected, state.changed_at = False, self._clock()
            self._changed(node)

    def acked(self, node: str, ack: Ack, source: str) -> None:
        """What is in force there has changed."""
        state = self.states.get(node)
        if state is None or state.source != source:
            return
        before, after = state.applied, ack.standing
        if after is None:
            after = ack.added_to(before)
        touched = before.keys() | after.keys() if ack.whole else ack.applied.keys() | ack.dropped
        state.applied = after
        differing = {each for each in touched if before.get(each) != after.get(each)}
        if ack.failures != state.failures:
            state.failures = ack.failures
            self._dirty.node(node)
        self._dirty.identities(differing)

    def counted(self, node: str, hits: Mapping[str, int]) -> None:
        """Rule reference -> verdicts so far."""
        self._dirty.policies(self.hits.counted(node, hits))

    def forget(self, node: str) -> None:
        """A node that the cluster no longer has."""
        state = self.states.get(node)
        if state is not None and not state.connected:
            del self.states[node]
            self._count()

    def through(self, source: str) -> list[str]:
        """Nodes that are connected through a replica."""
        return [name for name, state in self.states.items() if state.connected and state.source == source]

    def _changed(self, node: str) -> None:
        self._count()
        self._dirty.node(node)

    def _count(self) -> None:
        connected = sum(state.connected for state in self.states.values())
        NODES.labels("connected").set(connected)
        NODES.labels("disconnected").set(len(self.states) - connected)


class NodesVia:
    """An `AckSink`: what is heard through one replica."""

    def __init__(self, nodes: Nodes, source: str) -> None:
        self._nodes = nodes
        self._source = source

    def connected(self, node: str, info: NodeInfo) -> None:
        """See `AckSink`."""
        self._nodes.connected(node, info, self._source)

    def disconnected(self, node: str) -> None:
        """See `AckSink`."""
        self._nodes.disconnected(node, self._source)

    def acked(self, node: str, ack: Ack) -> None:
        """See `AckSink`."""
        self._nodes.acked(node, ack, self._source)

    def counted(self, node: str, hits: Mapping[str, int]) -> None:
        """See `AckSink`."""
        self._nodes.counted(node, hits)
