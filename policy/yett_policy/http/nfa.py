"""A nondeterministic automaton over bytes, built backwards: an item is "about to read".

`compile(tree, rest)` returns the items with which to go on when `tree` comes first and `rest`
after it.  An item reads one byte, or reports a match (then it reads nothing).
"""

from __future__ import annotations

from yett_policy.http.errors import TooComplex
from yett_policy.http.tree import Begin, Bytes, Either, End, Node, Repeat, Sequence

Items = tuple[int, ...]
"""Sorted, without duplicates."""

CLASS, REPORTS = -1, -2
"""In `Nfa.byte`: the item reads one of several bytes; it reads none, but reports."""

MAX_ITEMS = 200_000
"""Of one automaton; bounds memory for repetitions of repetitions."""


class Nfa:
    """Items by number; lists run in parallel."""

    def __init__(self) -> None:
        self.bits: list[int] = []
        """Bytes that the item reads; 0 for an item that reports."""
        self.byte: list[int] = []
        """The byte, if it reads exactly one; else CLASS or REPORTS."""
        self.follow: list[Items] = []
        """Items after the byte."""
        self.report: list[int] = []
        """What a reporting item reports; -1 for the others."""
        self._reports: dict[int, int] = {}

    def reads(self, bits: int, follow: Items) -> int:
        """A new item that reads one byte of the set."""
        if len(self.bits) >= MAX_ITEMS:
            raise TooComplex(
                f"over {MAX_ITEMS:,} positions in the regular expressions, counted repetitions unrolled"
            )
        self.bits.append(bits)
        self.byte.append(bits.bit_length() - 1 if bits.bit_count() == 1 else CLASS)
        self.follow.append(follow)
        self.report.append(-1)
        return len(self.bits) - 1

    def reports(self, value: int) -> int:
        """The item that reports `value`."""
        item = self._reports.get(value)
        if item is None:
            item = self._reports[value] = self.reads(0, ())
            self.byte[item] = REPORTS
            self.report[item] = value
        return item

    def compile(self, node: Node, rest: Items) -> Items:
        """The items of `node` followed by `rest`; anchors in `node` speak of its own ends."""
        return _Compiler(self, rest).run(node)

    def forever(self, rest: Items, bits: int) -> Items:
        """Any number of bytes of the set, then `rest`."""
        item = self.reads(bits, ())
        self.follow[item] = joined((item,), rest)
        return self.follow[item]


def joined(*parts: Items) -> Items:
    """The union."""
    return tuple(sorted(set().union(*parts)))


_REST, _BEGIN, _END = -1, -2, -3
"""Kinds of the compiler's nodes that read nothing, beside plain jumps."""


class _Compiler:
    """Compiles one tree; nodes that read nothing live here and are resolved at the end.

    A position is an item (>= 0) or -(index of a silent node) - 1.
    """

    def __init__(self, nfa: Nfa, rest: Items) -> None:
        self.nfa = nfa
        self.rest = rest
        self.silent: list[tuple[int, tuple[int, ...]]] = []  # (kind or 0 for a jump, onward)
        self.items: list[tuple[int, tuple[int, ...]]] = []  # (item, follow before resolution)

    def run(self, node: Node) -> Items:
        start = self.go(node, (self.node(_REST),))
        memo: dict[tuple[int, ...], Items] = {}
        for item, follow in self.items:
            found = memo.get(follow)
            if found is None:
                found = memo[follow] = self.resolve(follow, at_begin=False)
            self.nfa.follow[item] = found
        return self.resolve(start, at_begin=True)

    def node(self, kind: int, onward: tuple[int, ...] = ()) -> int:
        self.silent.append((kind, onward))
        return -len(self.silent)

    def go(self, node: Node, rest: tuple[int, ...]) -> tuple[int, ...]:
        match node:
            case Bytes(bits):
                if not bits:
                    return ()
                item = self.nfa.reads(bits, ())
                self.items.append((item, rest))
                return (item,)
            case Sequence(parts):
                for part in reversed(parts):
                    rest = self.go(part, rest)
                return rest
            case Either(branches):
                return tuple(
                    dict.fromkeys(position for branch in branches for position in self.go(branch, rest))
                )
            case Repeat(inner, least, most):
                return self.repeat(inner, least, most, rest)
            case Begin():
                return (self.node(_BEGIN, rest),)
            case End():
                return (self.node(_END, rest),)

    def repeat(self, inner: Node, least: int, most: int | None, rest: tuple[int, ...]) -> tuple[int, ...]:
        if most is None:
            loop = self.node(0)
            entry = self.go(inner, (loop,))
            self.silent[-loop - 1] = (0, tuple(dict.fromkeys(entry + rest)))
            rest = entry if least else (loop,)
            least -= 1
        else:
            after = rest
            for _ in range(most - least):
                rest = tuple(dict.fromkeys(self.go(inner, rest) + after))
        for _ in range(least):
            rest = self.go(inner, rest)
        return rest

    def resolve(self, positions: tuple[int, ...], *, at_begin: bool) -> Items:
        """The items reachable without reading, under the anchors on the way."""
        found: set[int] = set()
        seen: set[tuple[int, bool]] = set()
        work = [(position, False) for position in positions]
        while work:
            entry = work.pop()
            position, at_end = entry
            if position >= 0:
                if not at_end:
                    found.add(position)
                continue
            if entry in seen:
                continue
            seen.add(entry)
            kind, onward = self.silent[-position - 1]
            if kind == _REST:
                found.update(self.rest)
            elif kind != _BEGIN or at_begin:
                work.extend((next_, at_end or kind == _END) for next_ in onward)
        return tuple(sorted(found))
