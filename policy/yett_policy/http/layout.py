"""Numbers and struct formats of the kernel tables: `struct ruleset` and what it points to.

The one mirror of bpf_src/include/yett_abi.h on this side of the compiler; a test of the
loader compares it through cffi.
"""

from __future__ import annotations

from enum import IntEnum

ABI_VERSION = 2
TRACKED_HEADERS = 32
CONDITIONS = 64
HEAD_MAX = 65536
CHUNK_DIGITS = 8
CHUNK_MAX = 2**31 - 1
LENGTH_MAX = 2**63 - 1

TIER_SIZE = (1 << 16, 1 << 18, 1 << 20, 1 << 22)
"""Bytes of a ruleset's value, by tier."""
TIER_SHIFT = (0, 2, 4, 6)
"""Row of a state in the u16 view: state << shift."""
MAX_STATE = 0x7FFF

EVENT = 0x8000
ROW_OPERAND = 0
ROW_ACTION = 1
ROW_NEXT = 2
ACTION_MASK = 0x00FF
REASON_SHIFT = 8
SET_KNOWN = 0xFFFF


class Action(IntEnum):
    """As `enum http_action`."""

    NONE = 0
    DENY = 1
    TARGET_END = 2
    VERSION = 3
    HEADER = 4
    VALUE_END = 5
    LENGTH_DIGIT = 6
    CHUNKED = 7
    AMBIGUOUS = 8
    HEAD_END = 9
    CHUNK_DIGIT = 10
    CHUNK_LINE_END = 11
    BODY_END = 12
    RULE_SET = 13


class Header(IntEnum):
    """As `enum tracked_header`."""

    HOST = 0
    CONTENT_LENGTH = 1
    TRANSFER_ENCODING = 2
    UPGRADE = 3
    FIRST_RULE = 4


class Kind(IntEnum):
    """As `enum alternative_kind`."""

    ALLOW = 0
    DENY = 1
    AUDIT_DENY = 2


class AlternativeFlag(IntEnum):
    """As `enum alternative_flags`."""

    FORBIDDEN = 1
    CONNECT = 2


class RulesetFlag(IntEnum):
    """As `enum ruleset_flags`."""

    AUDIT = 1
    FORBIDDEN = 2
    DENIES = 4


HEAD_FORMAT = "<IIQIII6HIIII"
"""struct ruleset up to `condition_count`; the kernel's host order on every platform we ship
for is little-endian."""
HEAD_FIELDS = (
    "abi", "size", "id", "flags", "rule_base", "default_rule",
    "start", "chunk", "chunk_end", "trailer", "skip", "classes",
    "sets", "set_count", "conditions", "condition_count",
)  # fmt: skip
INITIALLY_OFFSET = 56
ON_HEADER_OFFSET = 64
OFF_HEADER_OFFSET = ON_HEADER_OFFSET + 8 * TRACKED_HEADERS
CLASS_OF_OFFSET = OFF_HEADER_OFFSET + 8 * TRACKED_HEADERS
HEAD_SIZE = CLASS_OF_OFFSET + 256

SET_FORMAT = "<II"
ALTERNATIVE_FORMAT = "<IBBHQQ"
