"""The syntax tree of a regular expression over bytes; a set of bytes is an int of 256 bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ALL_BYTES = (1 << 256) - 1


def byte_set(members: Iterable[int]) -> int:
    """The set that holds these byte values."""
    bits = 0
    for member in members:
        bits |= 1 << member
    return bits


def members(bits: int) -> list[int]:
    """The byte values of a set, ascending."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte out of a set; the empty set matches nothing."""

    bits: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after the other; no parts: the empty string."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Any one of the branches."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` copies; `most` None: no limit."""

    node: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Begin:
    """Nothing of the value has been read yet."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing of the value is left."""


Node = Bytes | Sequence | Either | Repeat | Begin | End
EMPTY = Sequence(())


def literal(data: bytes) -> Sequence:
    """Exactly these bytes."""
    return Sequence(tuple(Bytes(1 << byte) for byte in data))


def map_bytes(node: Node, change: dict[int, int]) -> Node:
    """The tree in which every set of bytes is replaced by `change[set]`; see `byte_sets`."""
    match node:
        case Bytes(bits):
            return Bytes(change[bits])
        case Sequence(parts):
            return Sequence(tuple(map_bytes(part, change) for part in parts))
        case Either(branches):
            return Either(tuple(map_bytes(branch, change) for branch in branches))
        case Repeat(inner, least, most):
            return Repeat(map_bytes(inner, change), least, most)
        case _:
            return node


def byte_sets(node: Node) -> set[int]:
    """Every set of bytes in the tree."""
    match node:
        case Bytes(bits):
            return {bits}
        case Sequence(nodes) | Either(nodes):
            return set().union(*(byte_sets(inner) for inner in nodes))
        case Repeat(inner, _, _):
            return byte_sets(inner)
        case _:
            return set()


def strings(node: Node, limit: int) -> set[bytes] | None:
    """Every string of a tree that spells out at most `limit` strings; None for any other tree.

    Repetitions, assertions and sets of more than one byte do not count as spelled out.
    """
    match node:
        case Bytes(bits) if bits.bit_count() == 1:
            return {bytes([bits.bit_length() - 1])}
        case Sequence(parts):
            found = {b""}
            for part in parts:
                tails = strings(part, limit)
                if tails is None or len(found) * len(tails) > limit:
                    return None
                found = {head + tail for head in found for tail in tails}
            return found
        case Either(branches):
            found = set()
            for branch in branches:
                more = strings(branch, limit)
                if more is None:
                    return None
                found |= more
            return found if len(found) <= limit else None
        case _:
            return None
