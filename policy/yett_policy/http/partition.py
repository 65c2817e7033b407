"""The bytes, by edge of the grammar and by the sets of bytes that items read."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from yett_policy.http.grammar import Edge, Grammar, Op
from yett_policy.http.tree import members

Block = tuple[Edge, int, tuple[int, ...]]
"""Edge of the grammar, bytes, and the sets of bytes that hold them, of those asked for."""


class Partition:
    """The bytes in blocks."""

    __slots__ = ("block_of", "blocks")

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        self.block_of = bytearray(256)
        """Block of each byte."""
        for number, (_, bits, _) in enumerate(blocks):
            for byte in members(bits):
                self.block_of[byte] = number


class Partitions:
    """Each computed once: a ruleset has thousands of states, but few kinds of them.

    Those without sets belong to the grammar, and so to every ruleset that has it.
    """

    def __init__(self, grammar: Grammar, spend: Callable[[int], None]) -> None:
        self._plain = _plain(grammar)
        self._spend = spend
        self._found: dict[tuple[int, tuple[int, ...]], Partition] = {}

    def of(self, place: int, readers: tuple[int, ...]) -> Partition:
        """The blocks of a grammar state under these sets; always the same object."""
        found = self._found.get((place, readers))
        if found is None:
            found = plain = self._plain[place]
            if readers:
                split = [part for edge, bits, _ in plain.blocks for part in _split(edge, bits, readers)]
                found = Partition(split)
            self._spend(len(found.blocks))
            self._found[place, readers] = found
        return found


@lru_cache(maxsize=16)
def _plain(grammar: Grammar) -> list[Partition]:
    """By grammar state."""
    places = range(len(grammar.states))
    return [Partition([(edge, bits, ()) for edge, bits in grammar.blocks(place)]) for place in places]


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
