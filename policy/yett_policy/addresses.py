"""Who holds which address, and so which identity is behind it."""

from __future__ import annotations

from collections.abc import Callable

from yett_policy.facts import Claims, Holder
from yett_policy.identity import WORLD, Labels
from yett_policy.prefix import Prefix, parse_prefix

NOTHING = Claims()


class Addresses:
    """Claims by holder; of several who claim one prefix the one that sorts first has it."""

    def __init__(self, number: Callable[[Labels], int]) -> None:
        """`number`: of labels that are claimed."""
        self.ipcache: dict[str, int] = {}
        """Prefix -> identity."""
        self._number = number
        self._claims: dict[Holder, Claims] = {}
        self._holders: dict[str, Holder | set[Holder]] = {}
        """Prefix -> its holder; a set where there are several, which is rare."""

    def claims(self, holder: Holder) -> Claims:
        """Of a holder; one that is not known has none."""
        return self._claims.get(holder, NOTHING)

    def first(self, prefix: str) -> Holder | None:
        """Who has a prefix, of those who claim it."""
        found = self._holders.get(prefix)
        return min(found) if isinstance(found, set) else found

    def replace(self, holder: Holder, new: Claims) -> set[str]:
        """Put claims in place of those that a holder had; the prefixes of both."""
        old = self._claims.get(holder, NOTHING)
        for prefix in old.prefixes:
            self._let_go(prefix, holder)
        for prefix in new.prefixes:
            self._hold(prefix, holder)
        if new == NOTHING:
            self._claims.pop(holder, None)
        else:
            self._claims[holder] = new
        return {*old.prefixes, *new.prefixes}

    def settle(self, prefix: str) -> bool:
        """Give a prefix to its first holder; whether that changed anything."""
        holder = self.first(prefix)
        if holder is None:
            return self.ipcache.pop(prefix, None) is not None
        claims = self._claims[holder]
        number = self._number(claims.labels[claims.prefixes.index(prefix)])
        if self.ipcache.get(prefix) == number:
            return False
        self.ipcache[prefix] = number
        return True

    def identities_at(self, prefix: str) -> set[int]:
        """Who has the address of a prefix, seen by the node itself and by all others."""
        address = parse_prefix(prefix)
        width = address.bits
        for bits in range(width, -1, -1):
            block = Prefix(address.version, address.first >> (width - bits) << (width - bits), bits)
            known = self.ipcache.get(str(block))
            if known is None:
                continue
            holder = self.first(prefix)
            claims = NOTHING if holder is None else self._claims[holder]
            local = zip(claims.prefixes, claims.as_local, strict=False)  # only nodes have any
            return {known, *(self._number(labels) for own, labels in local if own == prefix)}
        return {WORLD}

    def _hold(self, prefix: str, holder: Holder) -> None:
        found = self._holders.setdefault(prefix, holder)
        if isinstance(found, set):
            found.add(holder)
        elif found != holder:
            self._holders[prefix] = {found, holder}

    def _let_go(self, prefix: str, holder: Holder) -> None:
        found = self._holders.get(prefix)
        if isinstance(found, set):
            found.discard(holder)
            if len(found) == 1:
                self._holders[prefix] = found.pop()
        elif found == holder:
            del self._holders[prefix]
