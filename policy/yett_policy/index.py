"""Which identities a selector selects, kept up to date as identities come and go.

A selector that is wanted has a live set.  A new identity is shown only to the selectors that
could select it: each is filed under one of its own requirements.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable

from yett_policy.identity import Labels, parse_labels
from yett_policy.multimap import Multimap
from yett_policy.prefix import Prefix, parse_prefix
from yett_policy.selector import (
    CLUSTER,
    NAMESPACE,
    NAMESPACE_LABELS,
    CidrSelector,
    LabelSelector,
    Op,
    Requirement,
    Selector,
)

_Anchor = tuple[str, str | None]
"""A label key and one value, or None: any value."""


class SelectorIndex:
    """Identities by label and by address; selectors by what they require."""

    def __init__(self) -> None:
        self.labels: dict[int, dict[str, str]] = {}
        self._by_value: Multimap[tuple[str, str], int] = Multimap()
        self._by_address: dict[int, list[tuple[int, int, int, bool]]] = {4: [], 6: []}
        """IP version -> sorted (first address, prefix length, identity, inside the cluster)."""
        self._selected: dict[Selector, set[int]] = {}
        self._wanted: dict[Selector, int] = {}
        self._anchored: defaultdict[_Anchor, dict[LabelSelector, None]] = defaultdict(dict)
        self._loose: dict[LabelSelector, None] = {}
        self._blocks: dict[CidrSelector, None] = {}

    def selected(self, selector: Selector) -> set[int]:
        """The live set of a wanted selector; not to be changed."""
        return self._selected[selector]

    def labelled(self, key: str, value: str) -> Collection[int]:
        """Identities with a label; not to be changed."""
        return self._by_value.of((key, value))

    def want(self, selector: Selector) -> None:
        """Begin to follow a selector, or count one more who wants it."""
        count = self._wanted.get(selector, 0)
        self._wanted[selector] = count + 1
        if count:
            return
        self._selected[selector] = self._find(selector)
        if isinstance(selector, CidrSelector):
            self._blocks[selector] = None
        else:
            for place in self._shelves(selector):
                place[selector] = None

    def release(self, selector: Selector) -> None:
        """One less who wants it; the last one ends following it."""
        self._wanted[selector] -= 1
        if self._wanted[selector]:
            return
        del self._wanted[selector], self._selected[selector]
        if isinstance(selector, CidrSelector):
            del self._blocks[selector]
        else:
            for place in self._shelves(selector):
                del place[selector]

    def add(self, number: int, labels: Labels) -> list[Selector]:
        """A new identity; returns the selectors that now select it."""
        known = self.labels[number] = parse_labels(labels)
        for key, value in known.items():
            self._by_value.add((key, value), number)
        changed: list[Selector] = []
        candidates = dict(self._loose)
        for key, value in known.items():
            candidates |= self._anchored.get((key, value), {})
            candidates |= self._anchored.get((key, None), {})
        changed += [selector for selector in candidates if selector.holds(known)]
        for prefix, inside in _addresses(known):
            insort(self._by_address[prefix.version], (prefix.first, prefix.bits, number, inside))
            changed += [
                selector
                for selector in self._blocks
                if (selector.everyone or not inside) and selector.covers(prefix)
            ]
        for selector in changed:
            self._selected[selector].add(number)
        return changed

    def remove(self, number: int) -> list[Selector]:
        """An identity is gone; returns the selectors that selected it."""
        known = self.labels.pop(number)
        for key, value in known.items():
            self._by_value.discard((key, value), number)
        for prefix, inside in _addresses(known):
            places = self._by_address[prefix.version]
            del places[bisect_left(places, (prefix.first, prefix.bits, number, inside))]
        changed = [selector for selector, numbers in self._selected.items() if number in numbers]
        for selector in changed:
            self._selected[selector].discard(number)
        return changed

    def _find(self, selector: Selector) -> set[int]:
        if isinstance(selector, CidrSelector):
            return set(self._inside(selector))
        found: set[int] | None = None
        rest: list[Requirement] = []
        for requirement in selector.requirements:
            if requirement.op is Op.EXISTS:
                numbers = {number for number, known in self.labels.items() if requirement.key in known}
            elif requirement.op is Op.IN:
                numbers = set().union(
                    *(self.labelled(requirement.key, value) for value in requirement.values)
                )
            else:
                rest.append(requirement)
                continue
            found = numbers if found is None else found & numbers
        if found is None:
            found = set(self.labels)
        return {number for number in found if all(r.holds(self.labels[number]) for r in rest)}

    def _inside(self, selector: CidrSelector) -> Iterable[int]:
        network = selector.network
        places = self._by_address[network.version]
        for at in range(bisect_left(places, (network.first,)), len(places)):
            first, bits, number, inside = places[at]
            if first > network.last:
                return
            if (selector.everyone or not inside) and selector.covers(Prefix(network.version, first, bits)):
                yield number

    def _shelves(self, selector: LabelSelector) -> list[dict[LabelSelector, None]]:
        anchors = _anchors(selector)
        return [self._anchored[anchor] for anchor in anchors] if anchors else [self._loose]


def _anchors(selector: LabelSelector) -> list[_Anchor]:
    """The requirement that few identities meet, best a label that says what a pod is."""
    best: Requirement | None = None
    for requirement in selector.requirements:
        if requirement.op in {Op.IN, Op.EXISTS} and (best is None or _weight(requirement) < _weight(best)):
            best = requirement
    if best is None:
        return []
    if best.op is Op.EXISTS:
        return [(best.key, None)]
    return [(best.key, value) for value in best.values]


def _weight(requirement: Requirement) -> int:
    common = requirement.key in {NAMESPACE, CLUSTER} or requirement.key.startswith(NAMESPACE_LABELS)
    return 2 * common + (requirement.op is Op.EXISTS) + 2 * (requirement.key == CLUSTER)


def _addresses(labels: Iterable[str]) -> list[tuple[Prefix, bool]]:
    """The blocks that an identity stands for, and whether for pods or nodes in them."""
    found = []
    for key in labels:
        source, _, rest = key.partition(":")
        if source in {"cidr", "block"}:
            found.append((parse_prefix(rest), source == "block"))
    return found
