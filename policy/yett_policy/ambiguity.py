"""Request targets that servers read in different ways."""

from __future__ import annotations

from yett_policy.reason import Reason

_ESCAPES = {
    b"2e": (Reason.AMBIGUOUS_ENCODED_DOT, b"."),
    b"2f": (Reason.AMBIGUOUS_ENCODED_SLASH, b"/"),
    b"5c": (Reason.AMBIGUOUS_ENCODED_BACKSLASH, b"/"),
    b"25": (Reason.AMBIGUOUS_ENCODED_PERCENT, b"%"),
    b"00": (Reason.AMBIGUOUS_ENCODED_NUL, b"x"),
}
_BYTES = {
    ord(";"): (Reason.AMBIGUOUS_SEMICOLON, b";"),
    ord("\\"): (Reason.AMBIGUOUS_BACKSLASH, b"/"),
    ord("#"): (Reason.AMBIGUOUS_FRAGMENT, b"#"),
}
_HEX = frozenset(b"0123456789abcdefABCDEF")
_BLUNT = 0x7E
"""Highest byte that is text to every server."""


def ambiguities(target: bytes) -> set[Reason]:
    """Every ambiguity of a target in origin form; of its query only `#` and non-ASCII bytes."""
    path, _, query = target.partition(b"?")
    found: set[Reason] = set()
    seen = _as_the_bluntest_server_reads(path, found)
    segments = seen.split(b"/")[1:]
    if b"" in segments[:-1]:
        found.add(Reason.AMBIGUOUS_EMPTY_SEGMENT)
    if any(segment.partition(b";")[0].partition(b"#")[0] in {b".", b".."} for segment in segments):
        found.add(Reason.AMBIGUOUS_DOT_SEGMENT)
    if b"#" in query:
        found.add(Reason.AMBIGUOUS_FRAGMENT)
    if any(byte > _BLUNT for byte in query):
        found.add(Reason.AMBIGUOUS_NON_ASCII)
    return found


def _as_the_bluntest_server_reads(path: bytes, found: set[Reason]) -> bytes:
    """The path with encoded dots as dots and every kind of separator as `/`."""
    seen = b""
    at = 0
    while at < len(path):
        byte = path[at]
        escape = path[at + 1 : at + 3]
        if byte == ord("%"):
            if len(escape) < 2 or not _HEX.issuperset(escape):
                found.add(Reason.AMBIGUOUS_PERCENT)
                seen += b"%"
                at += 1
                continue
            reason, meaning = _ESCAPES.get(escape.lower(), (None, b"x"))
            if reason is not None:
                found.add(reason)
            seen += meaning
            at += 3
            continue
        reason, meaning = _BYTES.get(byte, (None, path[at : at + 1]))
        if byte > _BLUNT:
            reason = Reason.AMBIGUOUS_NON_ASCII
        if reason is not None:
            found.add(reason)
        seen += meaning
        at += 1
    return seen
