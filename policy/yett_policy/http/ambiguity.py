"""Where servers read a target in different ways: the readable twin of `target.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from yett_policy.reason import Reason

_UNIT = re.compile(rb"%[0-9A-Fa-f]{2}|%[0-9A-Fa-f]?|.", re.DOTALL)
_BY_ITSELF = {
    b";": Reason.AMBIGUOUS_SEMICOLON,
    b"\\": Reason.AMBIGUOUS_BACKSLASH,
    b"#": Reason.AMBIGUOUS_FRAGMENT,
    b"%2e": Reason.AMBIGUOUS_ENCODED_DOT,
    b"%2f": Reason.AMBIGUOUS_ENCODED_SLASH,
    b"%5c": Reason.AMBIGUOUS_ENCODED_BACKSLASH,
    b"%25": Reason.AMBIGUOUS_ENCODED_PERCENT,
    b"%00": Reason.AMBIGUOUS_ENCODED_NUL,
}
_SLASHES = {b"/", b"\\", b"%2f", b"%5c"}
_MAY_END_SEGMENT = _SLASHES | {b";", b"#", b"?", b""}
_DOTS = {b".", b"%2e"}


def ambiguities(target: bytes) -> frozenset[Reason]:
    """What is ambiguous about an origin-form target, read as the bluntest server would.

    An encoded dot counts as a dot, a backslash or an encoded slash as a slash.  A rule allows
    the target only if it tolerates all of it.  HTTP_TARGET, which no rule can tolerate, is
    among them where one byte completes two ambiguities: the engine can note only one.
    """
    found: set[Reason] = set()
    for _, reasons in places(target):
        found.update(reasons)
        if len(reasons) > 1:
            found.add(Reason.HTTP_TARGET)
    return frozenset(found)


def places(target: bytes) -> Iterator[tuple[int, tuple[Reason, ...]]]:
    """(index of a byte, the ambiguities it completes: its own, then what it does to the segment).

    The index of the end is the length of the target.
    """
    path, _, query = target.partition(b"?")
    yield from _in_path(path, target)
    for index, byte in enumerate(query, len(path) + 1):
        if byte == ord("#"):
            yield index, (Reason.AMBIGUOUS_FRAGMENT,)
        elif byte > 0x7E:
            yield index, (Reason.AMBIGUOUS_NON_ASCII,)


def _in_path(path: bytes, target: bytes) -> Iterator[tuple[int, tuple[Reason, ...]]]:
    segment: list[bytes] = []
    cut = False
    units = [(match.start(), match[0].lower()) for match in _UNIT.finditer(path)][
        1:
    ]  # without the first slash
    for start, unit in [*units, (len(path), target[len(path) : len(path) + 1])]:
        complete = len(unit) == 3
        reasons: list[Reason] = []
        if cut:
            reasons.append(Reason.AMBIGUOUS_PERCENT)
        if cut and complete:  # the escape itself ends two bytes later
            yield start, tuple(reasons)
            reasons = []
        if unit in _BY_ITSELF:
            reasons.append(_BY_ITSELF[unit])
        elif len(unit) == 1 and unit[0] > 0x7E:
            reasons.append(Reason.AMBIGUOUS_NON_ASCII)
        if unit in _MAY_END_SEGMENT and len(segment) in {1, 2} and all(part in _DOTS for part in segment):
            reasons.append(Reason.AMBIGUOUS_DOT_SEGMENT)
        if unit in _SLASHES:
            if not segment:
                reasons.append(Reason.AMBIGUOUS_EMPTY_SEGMENT)
            segment = []
        else:
            segment.append(unit)
        if reasons:
            yield start + (2 if complete else 0), tuple(reasons)
        cut = unit.startswith(b"%") and not complete
