"""The bytes of a ruleset as the kernel reads them; the layout is told in yett_abi.h."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from yett_policy.http import layout
from yett_policy.http.alternatives import Alternative
from yett_policy.http.conditions import Conditions
from yett_policy.http.errors import TooComplex
from yett_policy.http.layout import Action
from yett_policy.http.product import DENIED
from yett_policy.http.rows import Rows


def encode(
    rows: Rows,
    sets: Sequence[tuple[Alternative, ...]],
    words: Sequence[int],
    conditions: Conditions,
    *,
    digest: str,
    flags: int,
    default_rule: int,
) -> tuple[int, bytes]:
    """(tier, bytes) of the smallest tier that fits."""
    if max(len(sets), len(words)) > layout.SET_KNOWN:
        raise TooComplex(f"{max(len(sets), len(words)):,} outcomes over the budget of {layout.SET_KNOWN:,}")
    tail_size = 8 * len(sets) + 24 * sum(map(len, sets)) + 8 * len(words)
    classes = len(rows.rows[0])
    reasons = sorted({DENIED - target for row in rows.rows for target in row if target < 0})
    tier = 0
    while not (plan := _Plan.of(tier, len(rows.rows), len(reasons), classes, tail_size)).fits:
        tier += 1
        if tier == len(layout.TIER_SIZE):
            raise TooComplex(
                f"{len(rows.rows):,} states of {classes} byte classes need {plan.size:,} bytes,"
                f" over the budget of {layout.TIER_SIZE[-1]:,}"
            )
    unit, first, stride, deny_stride, end = plan.unit, plan.first, plan.stride, plan.deny_stride, plan.end
    number = [first + stride * state for state in range(len(rows.rows))]
    denial = {reason: first + stride * len(rows.rows) + deny_stride * at for at, reason in enumerate(reasons)}
    value = bytearray(_align(2 * end * unit))
    cells = _cells(rows, number, denial, unit * end, unit)
    value[: len(cells) * 2] = cells.tobytes()
    sets_at, conditions_at = _append_sets(value, sets, words)
    value += bytes(max(plan.size - len(value), 0))
    struct.pack_into(
        layout.HEAD_FORMAT, value, 0,
        layout.ABI_VERSION, len(value), int.from_bytes(bytes.fromhex(digest)[:8], "big") or 1, flags, 0, default_rule,
        *(number[place] for place in rows.places), classes,
        sets_at, len(sets), conditions_at, len(words),
    )  # fmt: skip
    struct.pack_into("<Q", value, layout.INITIALLY_OFFSET, conditions.initially)
    struct.pack_into(f"<{layout.TRACKED_HEADERS}Q", value, layout.ON_HEADER_OFFSET, *conditions.on_header)
    struct.pack_into(f"<{layout.TRACKED_HEADERS}Q", value, layout.OFF_HEADER_OFFSET, *conditions.off_header)
    value[layout.CLASS_OF_OFFSET : layout.HEAD_SIZE] = bytes(rows.class_of)
    return tier, bytes(value)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the rows of a tier lie, in units of its state numbers."""

    unit: int
    """Cells."""
    first: int
    stride: int
    deny_stride: int
    end: int
    size: int
    """Bytes of the whole value."""
    fits: bool

    @classmethod
    def of(cls, tier: int, states: int, denials: int, classes: int, tail_size: int) -> _Plan:
        unit = 1 << layout.TIER_SHIFT[tier]
        first = -(-layout.HEAD_SIZE // 2 // unit)
        stride = -(-(layout.ROW_NEXT + classes) // unit)
        deny_stride = -(-layout.ROW_NEXT // unit)
        end = first + stride * states + deny_stride * denials
        # Whatever class the engine looks up in the last row must lie inside the value.
        size = max(_align(2 * end * unit) + tail_size, 2 * (end * unit + layout.ROW_NEXT + classes))
        fits = end - 1 <= layout.MAX_STATE and size <= layout.TIER_SIZE[tier]
        return cls(unit, first, stride, deny_stride, end, size, fits)


def _align(size: int) -> int:
    return -(-size // 8) * 8


def _cells(rows: Rows, number: list[int], denial: dict[int, int], count: int, unit: int) -> array[int]:
    """The u16 view, the head left empty."""
    cells = array("H", bytes(2 * count))
    reached = [
        state | (layout.EVENT if action else 0)
        for state, (_, action) in zip(number, rows.labels, strict=True)
    ]
    # Denials are negative targets: python's index from the end finds them.
    denied = [0] * (max(denial, default=0) - DENIED)
    for reason, state in denial.items():
        denied[DENIED - reason] = state | layout.EVENT
    reached += denied
    for state, (operand, action), row in zip(number, rows.labels, rows.rows, strict=True):
        at = state * unit
        cells[at], cells[at + 1] = operand, action
        cells[at + 2 : at + 2 + len(row)] = array("H", [reached[target] for target in row])
    for reason, state in denial.items():
        cells[state * unit], cells[state * unit + 1] = reason, Action.DENY
    return cells


def _append_sets(
    value: bytearray, sets: Sequence[tuple[Alternative, ...]], words: Sequence[int]
) -> tuple[int, int]:
    """Rule sets, alternatives and condition words; returns the offsets of the first and the last."""
    sets_at = len(value) // 8
    at = sets_at + len(sets)
    for alternatives in sets:
        value += struct.pack(layout.SET_FORMAT, at, len(alternatives))
        at += 3 * len(alternatives)
    for alternatives in sets:
        for found in alternatives:
            value += struct.pack(
                layout.ALTERNATIVE_FORMAT,
                found.rule, found.kind, found.flags, found.tolerates, found.needs, found.upgrade,
            )  # fmt: skip
    conditions_at = len(value) // 8
    value += struct.pack(f"<{len(words)}Q", *words)
    return sets_at, conditions_at
