"""The rules' methods and paths as one automaton over `METHOD SP TARGET`.

Paths share what they have in common, so that ten thousand rules cost what their differences
cost, in items and in time.  Common beginnings of literals are a trie.  Below its last fork a
path is compiled without saying whose it is, equal ends of different paths to the same items;
the rule is a tag on the item (`tagged`), which its followers inherit.
"""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.http.nfa import Items, Nfa, joined
from yett_policy.http.rule import HttpRule, PathKind
from yett_policy.http.syntax import parse
from yett_policy.http.tree import (
    ALL_BYTES,
    EMPTY,
    Begin,
    Bytes,
    Either,
    End,
    Node,
    Repeat,
    Sequence,
    byte_set,
)

SPACE = 1 << ord(" ")
ANYTHING = Repeat(Bytes(ALL_BYTES), 0, None)

TAG_SHIFT = 24
"""A tagged item is rule + 1 above the item's number."""
ITEM = (1 << TAG_SHIFT) - 1


def tagged(items: Items, rule: int) -> Items:
    """The items as those of a rule."""
    tag = rule + 1 << TAG_SHIFT
    return tuple([item | tag for item in items])


@dataclass(frozen=True, slots=True)
class Lines:
    """The items before the first byte of a request, and the one that reports a match."""

    start: Items
    matched: int


class _Builder:
    def __init__(self, nfa: Nfa) -> None:
        self.nfa = nfa
        self.matched = nfa.reports(MATCHED)
        self.compiled: dict[tuple[Node, Items], Items] = {}

    def tail(self, tree: Node) -> Items:
        """The items of a path's rest; equal ends give the same items."""
        items: Items = (self.matched,)
        parts = tree.parts if isinstance(tree, Sequence) and not _has_anchor(tree) else (tree,)
        for part in reversed(parts):
            key = (part, items)
            found = self.compiled.get(key)
            if found is None:
                found = self.compiled[key] = self.nfa.compile(part, items)
            items = found
        return items

    def trie(self, rules: list[tuple[int, bytes, Node]], depth: int = 0) -> Items:
        """Rules (number, literal beginning, rest) that agree in the first `depth` bytes."""
        # Not recursive per byte: a chain of nodes without a fork is built in one go.
        if len(rules) == 1:
            number, prefix, rest = rules[0]
            return tagged(self.tail(_joined_tree(prefix[depth:], rest)), number)
        shortest = min(len(prefix) for _, prefix, _ in rules)
        first = rules[0][1]
        end = depth
        while end < shortest and all(prefix[end] == first[end] for _, prefix, _ in rules):
            end += 1
        parts: list[Items] = []
        forks: dict[int, list[tuple[int, bytes, Node]]] = {}
        for rule in rules:
            if len(rule[1]) == end:
                parts.append(tagged(self.tail(rule[2]), rule[0]))
            else:
                forks.setdefault(rule[1][end], []).append(rule)
        for byte, below in forks.items():
            parts.append((self.nfa.reads(1 << byte, self.trie(below, end + 1)),))
        items = joined(*parts)
        for byte in reversed(first[depth:end]):
            items = (self.nfa.reads(1 << byte, items),)
        return items


MATCHED = 0
"""What the item of a complete target reports; the rule is its tag."""


def add_lines(nfa: Nfa, rules: tuple[HttpRule, ...]) -> Lines:
    """The items of all rules' request lines."""
    builder = _Builder(nfa)
    by_method: dict[str | None, list[tuple[int, bytes, Node]]] = {}
    for number, rule in enumerate(rules):
        by_method.setdefault(rule.method, []).append((number, *split_prefix(path_tree(rule))))
    starts = []
    for method, paths in by_method.items():
        space = (nfa.reads(SPACE, builder.trie(paths)),)
        starts.append(
            nfa.forever(space, ALL_BYTES ^ SPACE) if method is None else nfa.compile(parse(method), space)
        )
    return Lines(joined(*starts), builder.matched)


def path_tree(rule: HttpRule) -> Node:
    """The targets that a rule asks for."""
    if rule.path is None:
        return ANYTHING
    if rule.path_kind is PathKind.REGEX:
        return parse(rule.path)
    path, marks = rule.path.encode("latin-1"), b"?"
    if rule.path_kind is PathKind.PREFIX:
        path, marks = path.rstrip(b"/"), b"/?"
    more = Sequence((Bytes(byte_set(marks)), ANYTHING))
    return _joined_tree(path, Repeat(more, 0, 1))


def _joined_tree(prefix: bytes, rest: Node) -> Node:
    parts = rest.parts if isinstance(rest, Sequence) else (rest,)
    return Sequence((*(Bytes(1 << byte) for byte in prefix), *parts))


def split_prefix(tree: Node) -> tuple[bytes, Node]:
    """The bytes with which every match begins, as far as they are plain, and the rest."""
    parts = tree.parts if isinstance(tree, Sequence) else (tree,)
    index, prefix = 0, bytearray()
    while index < len(parts) and isinstance(parts[index], Begin):
        index += 1
    while index < len(parts):
        part = parts[index]
        if not isinstance(part, Bytes) or part.bits.bit_count() != 1:
            break
        prefix.append(part.bits.bit_length() - 1)
        index += 1
    rest = parts[index:]
    if (
        not prefix
        or any(_has_anchor(part) for part in rest[:-1])
        or (rest and _has_anchor(rest[-1]) and not isinstance(rest[-1], End))
    ):
        return b"", tree  # an anchor means something only in its whole tree
    if rest and isinstance(rest[-1], End):
        rest = rest[:-1]
    return bytes(prefix), (rest[0] if len(rest) == 1 else Sequence(rest) if rest else EMPTY)


def _has_anchor(node: Node) -> bool:
    match node:
        case Begin() | End():
            return True
        case Sequence(nodes) | Either(nodes):
            return any(map(_has_anchor, nodes))
        case Repeat(inner, _, _):
            return _has_anchor(inner)
        case _:
            return False
