"""What the reflectors see, collected until the compiler is free to take it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from yett_operator.compilation.batch import Batch, PolicyText
from yett_operator.kube.slim import SlimPod, SlimPolicy
from yett_policy.cluster import Namespace, Node, PodKey, Service, Slice
from yett_policy.identity import Labels

K = TypeVar("K")
V = TypeVar("V")
Fallback = Callable[[SlimPolicy], bytes]
"""The version of a policy that was last accepted, as its PolicyStatus has it; empty if it has none."""

_API_SERVER = ("default", "kubernetes")
"""The Service of the API servers."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch, and the pods and policies in it as they are here."""

    batch: Batch
    pods: Mapping[PodKey, SlimPod | None]
    policies: Mapping[str, SlimPolicy | None]


@dataclass(slots=True)
class World:
    """Everything as it is now, and what of it the compiler has not seen."""

    fallback: Fallback
    policies: dict[str, SlimPolicy] = field(default_factory=dict)
    pods: dict[PodKey, SlimPod] = field(default_factory=dict)
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    services: dict[tuple[str, str], Service] = field(default_factory=dict)
    slices: dict[tuple[str, str], Slice] = field(default_factory=dict)
    numbers: dict[Labels, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _api_slices: dict[tuple[str, str], Slice] = field(default_factory=dict)
    _batch: Batch = field(default_factory=Batch)
    _touched_pods: dict[PodKey, SlimPod | None] = field(default_factory=dict)
    """As the compiler knows them."""
    _ended_pods: set[PodKey] = field(default_factory=set)
    """Of those, the ones that were seen to be gone, if only for a moment."""
    _touched_policies: set[str] = field(default_factory=set)

    # -- what the reflectors say

    def policy(self, source: str, policy: SlimPolicy | None) -> None:
        """A policy is new, has changed, or is gone."""
        _put(self.policies, source, policy)
        self._touched_policies.add(source)
        self.changed.set()

    def pod(self, key: PodKey, pod: SlimPod | None) -> None:
        """As `policy`; `pods` has not changed before."""
        self._touched_pods.setdefault(key, self.pods.get(key))
        if pod is None:
            self._ended_pods.add(key)
        _put(self.pods, key, pod)
        self.changed.set()

    def namespace(self, name: str, namespace: Namespace | None) -> None:
        """As `policy`."""
        _put(self.namespaces, name, namespace)
        self._batch.namespaces[name] = namespace
        self.changed.set()

    def node(self, name: str, node: Node | None) -> None:
        """As `policy`."""
        _put(self.nodes, name, node)
        self._batch.nodes[name] = self._told(node)
        self._batch.api_servers = self._outer_api_servers()
        self.changed.set()

    def service(self, key: tuple[str, str], service: Service | None) -> None:
        """As `policy`."""
        _put(self.services, key, service)
        self._batch.services[key] = service
        self.changed.set()

    def slice(self, key: tuple[str, str], item: Slice | None) -> None:
        """As `policy`; some are of the API servers."""
        _put(self.slices, key, item)
        self._batch.slices[key] = item
        ours = item is not None and (item.namespace, item.service) == _API_SERVER
        if ours or key in self._api_slices:
            _put(self._api_slices, key, item if ours else None)
            self._batch.nodes |= {name: self._told(node) for name, node in self.nodes.items()}
            self._batch.api_servers = self._outer_api_servers()
        self.changed.set()

    def number(self, labels: Labels, number: int) -> None:
        """An identity that is written down."""
        self._batch.forgotten.discard(labels)
        if self.numbers.get(labels) != number:
            self.numbers[labels] = number
            self._batch.numbers[labels] = number
            self.changed.set()

    def forget_number(self, labels: Labels) -> None:
        """An identity that is not written down any more, or will not be."""
        self._batch.forgotten.add(labels)
        self.changed.set()

    # -- what the compiler gets

    def take(self) -> Taken:
        """What is new since the last time."""
        batch, self._batch = self._batch, Batch()
        self.changed.clear()
        pods: dict[PodKey, SlimPod | None] = {}
        again: dict[PodKey, SlimPod | None] = {}
        for key, known in self._touched_pods.items():
            pod = self.pods.get(key)
            if pod is not None and known is not None and self._is_another(known, pod):
                # Another pod of the same name: the old one's addresses must be free before
                # anything waits for a number of the new one.
                pod = again[key] = None
            pods[key] = pod
        batch.pods = {**pods}
        policies = {source: self.policies.get(source) for source in self._touched_policies}
        batch.policies = {source: self._text(policy) for source, policy in policies.items()}
        self._touched_pods, self._touched_policies, self._ended_pods = again, set(), set()
        if again:
            self.changed.set()
        return Taken(batch, pods, policies)

    def take_all(self) -> Taken:
        """Everything, for a compiler that knows nothing."""
        self._batch, self._touched_pods, self._touched_policies = Batch(), {}, set()
        self._ended_pods = set()
        self.changed.clear()
        batch = Batch(
            policies={source: self._text(policy) for source, policy in self.policies.items()},
            pods={**self.pods},
            namespaces=dict(self.namespaces),
            nodes={name: self._told(node) for name, node in self.nodes.items()},
            services=dict(self.services),
            slices=dict(self.slices),
            api_servers=self._outer_api_servers(),
            numbers=dict(self.numbers),
        )
        return Taken(batch, dict(self.pods), dict(self.policies))

    def _is_another(self, known: SlimPod, pod: SlimPod) -> bool:
        """Where the end of the old one was not seen (it fell into a gap of the watch), the mark tells 255 of 256."""
        return known.key in self._ended_pods or known.uid_mark != pod.uid_mark

    def _text(self, policy: SlimPolicy | None) -> PolicyText | None:
        return None if policy is None else PolicyText(policy.body, self.fallback(policy))

    def _told(self, node: Node | None) -> Node | None:
        """With the word whether an API server runs there."""
        if node is None:
            return None
        servers = self._api_servers()
        return Node(node.name, node.addresses, not servers.isdisjoint(node.addresses))

    def _api_servers(self) -> set[str]:
        return {address for item in self._api_slices.values() for address in item.addresses}

    def _outer_api_servers(self) -> tuple[str, ...]:
        inner = {address for node in self.nodes.values() for address in node.addresses}
        servers = self._api_servers()
        return tuple(sorted(servers - inner))


def _put(held: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value
