"""Ranges of ports as the policy map wants them: aligned powers of two."""

from __future__ import annotations

from collections.abc import Iterator

from yett_policy.policy import PORT_MAX

WIDTH = 16


def blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest (port, significant bits) that cover first..last, both included."""
    if not 0 <= first <= last <= PORT_MAX:
        raise ValueError(f"{first}-{last} is not a range of ports")
    while first <= last:
        size = first & -first or 1 << WIDTH
        while first + size - 1 > last:
            size >>= 1
        yield first, WIDTH - (size.bit_length() - 1)
        first += size
