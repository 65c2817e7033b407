"""Which pod with which identity is where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from yett_operator.kube.slim import SlimPod
from yett_operator.ports import PlacedPod
from yett_policy.cluster import PodKey


@dataclass(frozen=True, slots=True)
class Moves:
    """What an update of places did; as in `Change`."""

    pods: dict[PodKey, PlacedPod | None] = field(default_factory=dict)
    moved: dict[PodKey, str] = field(default_factory=dict)
    came: frozenset[tuple[str, int]] = frozenset()
    left: frozenset[tuple[str, int]] = frozenset()


class Places:
    """All pods that have an identity, and those that wait for one."""

    def __init__(self) -> None:
        self.pods: dict[PodKey, PlacedPod] = {}
        self.by_node: dict[str, tuple[PlacedPod, ...]] = {}
        """In the order of their keys; another tuple after each change."""
        self.nodes_of: defaultdict[int, Counter[str]] = defaultdict(Counter)
        """Identity -> node -> its pods there."""
        self.waiting: dict[PodKey, SlimPod] = {}
        """Pods without an identity."""
        self._numbers: dict[int, int] = {}

    def one(self, number: int) -> int:
        """One object for equal identities: from another process each comes as an object of its own."""
        return self._numbers.setdefault(number, number)

    def update(
        self, seen: Mapping[PodKey, SlimPod | None], numbers: Mapping[PodKey, int | None], *, first: bool
    ) -> Moves:
        """Pods that are new, different or gone, and identities of pods; `first`: there was nothing before."""
        pods: dict[PodKey, PlacedPod | None] = {}
        moved: dict[PodKey, str] = {}
        here: defaultdict[str, dict[PodKey, PlacedPod | None]] = defaultdict(dict)
        held: dict[tuple[str, int], bool] = {}
        for key in seen.keys() | numbers.keys():
            old, new = self.pods.get(key), self._place(key, seen, numbers)
            if old is new:
                continue
            for pod in filter(None, (old, new)):
                here[pod.node][key] = pod if pod is new else None
                if not first:
                    held.setdefault((pod.node, pod.identity), self._is_on(pod.node, pod.identity))
            self._move(key, old, new)
            if old is None or new is None or old.told != new.told:
                pods[key] = new
            if old is not None and old.node and (new is None or new.node != old.node):
                moved[key] = old.node
        for node, changes in here.items():
            self._regroup(node, changes)
        came = frozenset(place for place, before in held.items() if not before and self._is_on(*place))
        left = frozenset(place for place, before in held.items() if before and not self._is_on(*place))
        return Moves(pods, moved, came, left)

    def _place(
        self, key: PodKey, seen: Mapping[PodKey, SlimPod | None], numbers: Mapping[PodKey, int | None]
    ) -> PlacedPod | None:
        """Where a pod is now, by what is new and by what is known of it."""
        old, slim = self.pods.get(key), self.waiting.pop(key, None)
        if key in seen:
            slim = seen[key]
            if slim is None:
                return None
        number = numbers.get(key, None if old is None else old.identity)
        if number is None:
            if slim is not None:
                self.waiting[slim.key] = slim
            return None
        pod = old if slim is None else slim
        return None if pod is None else _with(pod, self.one(number))

    def _is_on(self, node: str, identity: int) -> bool:
        return node in self.nodes_of.get(identity, ())

    def _move(self, key: PodKey, old: PlacedPod | None, new: PlacedPod | None) -> None:
        if old is not None:
            counted = self.nodes_of[old.identity]
            counted[old.node] -= 1
            if not counted[old.node]:
                del counted[old.node]
            if not counted:
                del self.nodes_of[old.identity]
        if new is None:
            self.pods.pop(key, None)
        else:
            self.pods[new.key] = new
            self.nodes_of[new.identity][new.node] += 1

    def _regroup(self, node: str, changes: Mapping[PodKey, PlacedPod | None]) -> None:
        held = {**{pod.key: pod for pod in self.by_node.get(node, ())}, **changes}
        kept = tuple(pod for _, pod in sorted(held.items()) if pod is not None)
        if kept:
            self.by_node[node] = kept
        else:
            self.by_node.pop(node, None)


def _with(pod: PlacedPod, number: int) -> PlacedPod:
    """The same record, if it has no other identity yet: nobody was told of it."""
    if not pod.identity:
        object.__setattr__(pod, "identity", number)
    return pod if pod.identity == number else replace(pod, identity=number)
