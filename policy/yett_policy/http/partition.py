"""The bytes, by edge of the grammar and by the sets of bytes that items read."""

from __future__ import annotations

from collections.abc import Callable

from yett_policy.http.grammar import Edge, Grammar, Op

Block = tuple[Edge, int, tuple[int, ...]]
"""Edge of the grammar, bytes, and the sets of bytes that hold them, of those asked for."""


class Partitions:
    """Each computed once: a ruleset has thousands of states, but few kinds of them."""

    def __init__(self, grammar: Grammar, spend: Callable[[int], None]) -> None:
        self.grammar = grammar
        self.spend = spend
        self._edges: dict[int, list[tuple[Edge, int]]] = {}
        self._found: dict[tuple[int, tuple[int, ...]], list[Block]] = {}

    def of(self, place: int, readers: tuple[int, ...]) -> list[Block]:
        """The blocks of a grammar state under these sets; always the same list object."""
        found = self._found.get((place, readers))
        if found is None:
            edges = self._edges.get(place)
            if edges is None:
                edges = self._edges[place] = list(self.grammar.blocks(place))
            found = [block for edge, bits in edges for block in _split(edge, bits, readers)]
            self.spend(len(found))
            self._found[place, readers] = found
        return found


def _split(edge: Edge, bits: int, readers: tuple[int, ...]) -> list[Block]:
    if edge.op not in {Op.ADVANCE, Op.HOLD}:
        return [(edge, bits, ())]  # the items do not read this byte
    parts: list[tuple[int, tuple[int, ...]]] = [(bits, ())]
    for reader in readers:
        split = []
        for part, inside in parts:
            if part & reader:
                split.append((part & reader, (*inside, reader)))
            if part & ~reader:
                split.append((part & ~reader, inside))
        parts = split
    return [(edge, part, inside) for part, inside in parts]
