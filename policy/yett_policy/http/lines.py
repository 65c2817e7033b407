"""The rules' methods and paths as one automaton over `METHOD SP TARGET`.

Literal beginnings of paths share a trie, so that ten thousand literal rules cost what their
trie costs, in items and in time.
"""

from __future__ import annotations

from yett_policy.http.nfa import Items, Nfa, joined
from yett_policy.http.rule import HttpRule, PathKind
from yett_policy.http.syntax import parse
from yett_policy.http.tree import ALL_BYTES, EMPTY, Begin, Bytes, Node, Sequence

SPACE = 1 << ord(" ")


class _Trie:
    """Targets of the rules that share a method pattern; nodes by number, children after parents."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.tails: list[list[Items]] = [[]]

    def add(self, prefix: bytes, tail: Items) -> None:
        node = 0
        for byte in prefix:
            after = self.children[node].get(byte)
            if after is None:
                after = self.children[node][byte] = len(self.children)
                self.children.append({})
                self.tails.append([])
            node = after
        self.tails[node].append(tail)

    def items(self, nfa: Nfa) -> Items:
        built: list[Items] = [()] * len(self.children)
        for node in reversed(range(len(self.children))):
            steps = tuple(nfa.reads(1 << byte, built[child]) for byte, child in self.children[node].items())
            built[node] = joined(steps, *self.tails[node])
        return built[0]


def add_lines(nfa: Nfa, rules: tuple[HttpRule, ...]) -> Items:
    """The items before the first byte of a request; they report rule numbers."""
    tries: dict[str | None, _Trie] = {}
    for number, rule in enumerate(rules):
        trie = tries.setdefault(rule.method, _Trie())
        prefix, tail = _path(nfa, rule, nfa.reports(number))
        trie.add(prefix, tail)
    starts = []
    for method, trie in tries.items():
        space = (nfa.reads(SPACE, trie.items(nfa)),)
        starts.append(
            nfa.forever(space, ALL_BYTES ^ SPACE) if method is None else nfa.compile(parse(method), space)
        )
    return joined(*starts)


def _path(nfa: Nfa, rule: HttpRule, report: int) -> tuple[bytes, Items]:
    """A literal beginning, and the items for what may follow it."""
    if rule.path is None:
        return b"", nfa.forever((report,), ALL_BYTES)
    if rule.path_kind is PathKind.REGEX:
        prefix, rest = split_prefix(parse(rule.path))
        return prefix, nfa.compile(rest, (report,))
    path = rule.path.encode("latin-1")
    marks = b"?"
    if rule.path_kind is PathKind.PREFIX:
        path, marks = path.rstrip(b"/"), b"/?"
    rest_of_target = nfa.forever((report,), ALL_BYTES)
    return path, joined((report,), *((nfa.reads(1 << mark, rest_of_target),) for mark in marks))


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
    if not prefix:  # then the anchors of the whole may still mean something
        return b"", tree
    if any(_may_begin(part) for part in parts[index:]):
        return b"", tree
    rest = parts[index:]
    return bytes(prefix), (rest[0] if len(rest) == 1 else Sequence(rest) if rest else EMPTY)


def _may_begin(node: Node) -> bool:
    """Whether an anchor for the beginning hides in the tree."""
    match node:
        case Begin():
            return True
        case Bytes():
            return False
        case Sequence(nodes):
            return any(map(_may_begin, nodes))
        case _:
            return any(map(_may_begin, getattr(node, "branches", None) or (getattr(node, "node", EMPTY),)))
