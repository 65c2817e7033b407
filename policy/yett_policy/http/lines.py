"""The rules' methods and paths as one automaton over `METHOD SP TARGET`.

Paths share what they have in common, so that ten thousand rules cost what their differences
cost, in items and in time.  Common beginnings, part by part of the expression, are a trie.
Below its last fork a path is compiled without saying whose it is, equal ends of different
paths to the same items; the rule is a tag on the item (`tagged`), which its followers inherit.
"""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.http.errors import TooComplex
from yett_policy.http.nfa import Items, Nfa, joined
from yett_policy.http.rule import HttpRule, PathKind
from yett_policy.http.syntax import parse
from yett_policy.http.tree import (
    ALL_BYTES,
    Begin,
    Bytes,
    Either,
    End,
    Node,
    Repeat,
    Sequence,
    byte_set,
    literal,
)

SPACE = 1 << ord(" ")
ANYTHING = Repeat(Bytes(ALL_BYTES), 0, None)

MAX_LENGTH = 1_500_000
"""Characters of all paths together; an object in Kubernetes holds no more."""
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


class _Tails:
    """Ends of paths, compiled once."""

    def __init__(self, nfa: Nfa) -> None:
        self.nfa = nfa
        self.matched = nfa.reports(MATCHED)
        self.compiled: dict[tuple[Node, Items], Items] = {}

    def items(self, parts: tuple[Node, ...]) -> Items:
        """The items of these parts, one after the other, and the report."""
        items: Items = (self.matched,)
        for part in reversed(parts):
            key = (part, items)
            found = self.compiled.get(key)
            if found is None:
                found = self.compiled[key] = self.nfa.compile(part, items)
            items = found
        return items


class _Trie:
    """The paths of the rules that share a method, up to where they fork.

    A child is the number of a node, or ~rule: a path that nothing forks from any more.
    """

    def __init__(self, paths: dict[int, tuple[Node, ...]]) -> None:
        self.paths = paths
        self.children: list[dict[Node, int]] = [{}]
        self.ends: list[list[int]] = [[]]
        self.depth = [0]
        for rule, parts in paths.items():
            self.add(rule, parts)

    def add(self, rule: int, parts: tuple[Node, ...]) -> None:
        node = 0
        for part in parts:
            child = self.children[node].get(part)
            if child is None:
                self.children[node][part] = ~rule
                return
            if child < 0:
                child = self.children[node][part] = self.fork(~child, self.depth[node] + 1)
            node = child
        self.ends[node].append(rule)

    def fork(self, rule: int, depth: int) -> int:
        """A new node on the path of a rule that had none there."""
        parts = self.paths[rule]
        ends_here = len(parts) == depth
        self.children.append({} if ends_here else {parts[depth]: ~rule})
        self.ends.append([rule] if ends_here else [])
        self.depth.append(depth)
        return len(self.children) - 1

    def items(self, nfa: Nfa, tails: _Tails) -> Items:
        """From the leaves up: children are numbered after their parents."""
        built: list[Items] = [()] * len(self.children)
        for node in reversed(range(len(self.children))):
            parts = [tagged(tails.items(()), rule) for rule in self.ends[node]]
            for part, child in self.children[node].items():
                if child < 0:
                    parts.append(tagged(tails.items(self.paths[~child][self.depth[node] :]), ~child))
                else:
                    parts.append(nfa.compile(part, built[child]))
            built[node] = joined(*parts)
        return built[0]


MATCHED = 0
"""What the item of a complete target reports; the rule is its tag."""


def add_lines(nfa: Nfa, rules: tuple[HttpRule, ...]) -> Lines:
    """The items of all rules' request lines."""
    tails = _Tails(nfa)
    by_method: dict[str | None, dict[int, tuple[Node, ...]]] = {}
    length = sum(len(rule.path or "") for rule in rules)
    if length > MAX_LENGTH:
        raise TooComplex(f"paths of {length:,} characters together, over the budget of {MAX_LENGTH:,}")
    for number, rule in enumerate(rules):
        by_method.setdefault(rule.method, {})[number] = path_parts(path_tree(rule))
    starts = []
    for method, paths in by_method.items():
        space = (nfa.reads(SPACE, _Trie(paths).items(nfa, tails)),)
        starts.append(
            nfa.forever(space, ALL_BYTES ^ SPACE) if method is None else nfa.compile(parse(method), space)
        )
    return Lines(joined(*starts), tails.matched)


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
    return Sequence((*literal(path).parts, Repeat(more, 0, 1)))


def path_parts(tree: Node) -> tuple[Node, ...]:
    """The tree as parts that may be compiled one by one, without the anchors at its ends."""
    parts = tree.parts if isinstance(tree, Sequence) else (tree,)
    first, last = 0, len(parts)
    while first < last and isinstance(parts[first], Begin):
        first += 1
    while last > first and isinstance(parts[last - 1], End):
        last -= 1
    if any(map(_has_anchor, parts[first:last])):
        return (tree,)  # an anchor means something only in its whole tree
    return parts[first:last]


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
