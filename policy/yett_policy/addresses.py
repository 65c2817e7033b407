"""Who holds which address, and so which identity is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from yett_policy.facts import Claims, ClaimsOf, Holder, is_pod
from yett_policy.identity import WORLD, Labels
from yett_policy.multimap import Multimap
from yett_policy.prefix import Packed, Prefix, packed_text, unpacked

NOTHING = Claims()


class Addresses:
    """Claims by holder; of several who claim one prefix the one that sorts first has it."""

    def __init__(self, number: Callable[[Labels], int]) -> None:
        """`number`: of labels that are claimed."""
        self._number = number
        self._claims = ClaimsOf()
        self._holders: Multimap[Packed, Holder] = Multimap()
        """Prefix -> who claims it."""
        self._before: dict[Packed, int | None] = {}
        """Prefix whose claims were replaced -> identity that it had."""

    def claims(self, holder: Holder) -> Claims:
        """Of a holder; one that is not known has none."""
        return self._claims.get(holder, NOTHING)

    def first(self, prefix: Packed) -> Holder | None:
        """Who has a prefix, of those who claim it."""
        return min(self._holders.of(prefix), default=None)

    def pods(self) -> Iterable[Holder]:
        """Holders that are pods."""
        return (holder for holder in self._claims if is_pod(holder))

    def at(self, prefix: Packed) -> int | None:
        """The identity behind a prefix; None: nobody claims it."""
        holder = self.first(prefix)
        if holder is None:
            return None
        return next(self._number(labels) for own, labels in self._claims[holder].by_prefix if own == prefix)

    @property
    def ipcache(self) -> dict[str, int]:
        """Prefix as text -> identity, sorted."""
        found = ((packed_text(prefix), self.at(prefix)) for prefix in self._holders)
        return {text: number for text, number in sorted(found) if number is not None}

    def replace(self, holder: Holder, new: Claims) -> None:
        """Put claims in place of those that a holder had, whose labels must still have their numbers."""
        old = self._claims.get(holder, NOTHING)
        for prefix in (*old.prefixes, *new.prefixes):
            if prefix not in self._before:
                self._before[prefix] = self.at(prefix)
        for prefix in old.prefixes:
            self._holders.discard(prefix, holder)
        for prefix in new.prefixes:
            self._holders.add(prefix, holder)
        if new == NOTHING:
            self._claims.pop(holder, None)
        else:
            self._claims[holder] = new

    def changed(self) -> set[Packed]:
        """Prefixes behind which another identity is than at the last call."""
        before, self._before = self._before, {}
        return {prefix for prefix, number in before.items() if number != self.at(prefix)}

    def identities_at(self, prefix: Packed) -> set[int]:
        """Who has the address of a prefix, seen by the node itself and by all others."""
        address = unpacked(prefix)
        width = address.bits
        for bits in range(width, -1, -1):
            block = Prefix(address.version, address.first >> (width - bits) << (width - bits), bits)
            known = self.at(block.packed)
            if known is None:
                continue
            holder = self.first(prefix)
            claims = NOTHING if holder is None else self._claims[holder]
            return {known, *(self._number(labels) for own, labels in claims.as_local if own == prefix)}
        return {WORLD}
