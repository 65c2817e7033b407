"""Which items of the request line can still come to a match, and to one that allows."""

from __future__ import annotations

from yett_policy.http.alternatives import RuleSets
from yett_policy.http.lines import ITEM, TAG_SHIFT
from yett_policy.http.nfa import Nfa


class Reach:
    """Computed once, backwards from the report of a match."""

    def __init__(self, nfa: Nfa, matched: int, sets: RuleSets) -> None:
        before: list[list[int]] = [[] for _ in nfa.bits]
        for item, follow in enumerate(nfa.follow):
            for after in follow:
                if after <= ITEM:
                    before[after].append(item)
        self.sets = sets
        self.matches = [item == matched for item in range(len(nfa.bits))]
        """Items of paths, without their tags, that lead to a match."""
        _spread(self.matches, before)
        self._live: list[list[bool]] = []
        for connect in (False, True):
            found = list(self.matches)
            for item, follow in enumerate(nfa.follow):
                # Above its last fork a path is not tagged yet.
                if any(
                    after > ITEM
                    and self.matches[after & ITEM]
                    and sets.allows(rule_of(after), connect=connect)
                    for after in follow
                ):
                    found[item] = True
            _spread(found, before)
            self._live.append(found)

    def allows(self, item: int, *, connect: bool) -> bool:
        """Whether an allow rule (that names CONNECT) can still be matched from the item."""
        if not self._live[connect][item & ITEM]:
            return False
        return item <= ITEM or self.sets.allows(rule_of(item), connect=connect)


def rule_of(item: int) -> int:
    """The rule of a tagged item; -1 without a tag."""
    return (item >> TAG_SHIFT) - 1


def _spread(found: list[bool], before: list[list[int]]) -> None:
    """Mark whatever leads to what is marked."""
    work = [item for item, is_found in enumerate(found) if is_found]
    while work:
        for previous in before[work.pop()]:
            if not found[previous]:
                found[previous] = True
                work.append(previous)
