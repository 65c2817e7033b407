r"""The request target: origin form, and the places where servers read it in different ways.

In the path these are ambiguous: `.` and `..` segments, `//`, `;`, `\`, `#`, bytes above
0x7e, `%2e %2f %5c %25 %00`, and `%` without two hex digits.  In the query only `#` and bytes
above 0x7e are, for servers do not walk directories there.

An ambiguity that no rule tolerates is denied at the byte that completes it.  One that some
rule tolerates is noted (ACTION_AMBIGUOUS), and the segment goes on as the bluntest server
reads it: an encoded dot is a dot, an encoded slash or a backslash ends a segment.  Where one
byte completes two ambiguities (`/..;`), only one of which can be noted, it is denied.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import pairwise

from yett_policy.http.grammar import (
    CONTROL,
    CR,
    DIGIT,
    HEX,
    HIGH,
    LF,
    SP,
    VISIBLE,
    Edge,
    Grammar,
    Match,
    Op,
    State,
)
from yett_policy.http.layout import Action
from yett_policy.http.tree import byte_set
from yett_policy.reason import Reason

BEYOND_ASCII = HIGH | 1 << 0x7F
PLAIN_AMBIGUOUS = {
    b";": Reason.AMBIGUOUS_SEMICOLON,
    b"\\": Reason.AMBIGUOUS_BACKSLASH,
    b"#": Reason.AMBIGUOUS_FRAGMENT,
}
ESCAPES = {
    b"2e": Reason.AMBIGUOUS_ENCODED_DOT,
    b"2f": Reason.AMBIGUOUS_ENCODED_SLASH,
    b"5c": Reason.AMBIGUOUS_ENCODED_BACKSLASH,
    b"25": Reason.AMBIGUOUS_ENCODED_PERCENT,
    b"00": Reason.AMBIGUOUS_ENCODED_NUL,
}
SEPARATORS = {
    Reason.AMBIGUOUS_BACKSLASH,
    Reason.AMBIGUOUS_ENCODED_SLASH,
    Reason.AMBIGUOUS_ENCODED_BACKSLASH,
}
"""Ambiguous ways to end a segment."""


class Segment(Enum):
    """What the current path segment is so far."""

    EMPTY = "empty"
    DOT = "dot"
    DOTS = "dots"
    NAME = "name"


AFTER_DOT = {
    Segment.EMPTY: Segment.DOT,
    Segment.DOT: Segment.DOTS,
    Segment.DOTS: Segment.NAME,
    Segment.NAME: Segment.NAME,
}
DOT_SEGMENTS = {Segment.DOT, Segment.DOTS}


class _Target:
    def __init__(self, grammar: Grammar, version: int, tolerated: frozenset[Reason]) -> None:
        self.grammar = grammar
        self.version = version
        self.tolerated = tolerated
        self.path = {segment: self.state() for segment in Segment}
        self.query = self.state()
        escapes_matter = tolerated & {Reason.AMBIGUOUS_ENCODED_DOT, *SEPARATORS}
        self.escaped = {segment for segment in Segment if escapes_matter} | {Segment.NAME}
        self.percent = {segment: self.state() for segment in self.escaped}
        for segment in Segment:
            self.add_segment(segment)
        for segment in self.percent:
            self.add_escape(segment)
        self.add_query()

    def state(self) -> int:
        """With what holds everywhere in a target."""
        state = self.grammar.state(Reason.HTTP_TARGET, State(Match.TARGET))
        self.grammar.on(state, CR | LF, Reason.HTTP_VERSION)
        return state

    def end(self, ambiguity: Reason | None = None) -> Edge | Reason:
        """The space after the target; the ambiguity is one that it completes."""
        if ambiguity is not None and ambiguity not in self.tolerated:
            return ambiguity
        return Edge(self.version, Op.TARGET_END, Action.TARGET_END, ambiguity or 0)

    def noted(self, reason: Reason, target: int) -> Edge | Reason:
        """The edge of an ambiguity."""
        if reason not in self.tolerated:
            return reason
        return Edge(target, Op.ADVANCE, Action.AMBIGUOUS, reason)

    def ambiguous(self, reason: Reason, segment: Segment) -> Edge | Reason:
        """A byte or escape that is ambiguous by itself, at this point of a segment."""
        if reason in self.tolerated:
            ends_segment = reason in SEPARATORS
            if segment in DOT_SEGMENTS and reason in SEPARATORS | set(PLAIN_AMBIGUOUS.values()):
                return Reason.AMBIGUOUS_DOT_SEGMENT
            if segment is Segment.EMPTY and ends_segment:
                return Reason.AMBIGUOUS_EMPTY_SEGMENT
            if ends_segment:
                return self.noted(reason, self.path[Segment.EMPTY])
            if reason is Reason.AMBIGUOUS_ENCODED_DOT:
                return self.noted(reason, self.path[AFTER_DOT[segment]])
        return self.noted(reason, self.path[Segment.NAME])

    def add_segment(self, segment: Segment) -> None:
        state, on = self.path[segment], self.grammar.on
        on(state, VISIBLE, Edge(self.path[Segment.NAME], Op.ADVANCE))
        on(state, BEYOND_ASCII, self.ambiguous(Reason.AMBIGUOUS_NON_ASCII, segment))
        for byte, reason in PLAIN_AMBIGUOUS.items():
            on(state, byte_set(byte), self.ambiguous(reason, segment))
        on(state, byte_set(b"."), Edge(self.path[AFTER_DOT[segment]], Op.ADVANCE))
        on(state, byte_set(b"%"), Edge(self.percent[self.escape_of(segment)], Op.ADVANCE))
        slash: Edge | Reason = Edge(self.path[Segment.EMPTY], Op.ADVANCE)
        query: Edge | Reason = Edge(self.query, Op.ADVANCE)
        end = self.end()
        if segment in DOT_SEGMENTS:
            slash = self.noted(Reason.AMBIGUOUS_DOT_SEGMENT, self.path[Segment.EMPTY])
            query = self.noted(Reason.AMBIGUOUS_DOT_SEGMENT, self.query)
            end = self.end(Reason.AMBIGUOUS_DOT_SEGMENT)
        elif segment is Segment.EMPTY:
            slash = self.noted(Reason.AMBIGUOUS_EMPTY_SEGMENT, self.path[Segment.EMPTY])
        on(state, byte_set(b"/"), slash)
        on(state, byte_set(b"?"), query)
        on(state, SP, end)

    def escape_of(self, segment: Segment) -> Segment:
        return segment if segment in self.escaped else Segment.NAME

    def add_escape(self, segment: Segment) -> None:
        """`%`, one hex digit, another."""
        name = Edge(self.path[Segment.NAME], Op.ADVANCE)
        firsts: dict[int, int] = {}
        for first in b"0123456789abcdefABCDEF":
            known = {escape[1]: reason for escape, reason in ESCAPES.items() if escape[0] == first}
            key = first if known else 0
            if key not in firsts:
                firsts[key] = self.state()
                self.add_cut_escape(firsts[key])
                self.grammar.on(firsts[key], HEX, name)
                for second, reason in known.items():
                    both_cases = {second, *chr(second).upper().encode()}
                    self.grammar.on(firsts[key], byte_set(both_cases), self.ambiguous(reason, segment))
            self.grammar.on(self.percent[segment], 1 << first, Edge(firsts[key], Op.ADVANCE))
        rest = [byte for byte in range(256) if not HEX >> byte & 1]
        self.add_cut_escape(self.percent[segment], rest)

    def add_cut_escape(self, state: int, bytes_: list[int] | range = range(256)) -> None:
        """Edges for bytes that leave an escape incomplete: as after it, and ambiguous."""
        name = self.path[Segment.NAME]
        for byte in bytes_:
            edge = self.grammar.edge(name, byte)
            if edge.op is Op.TARGET_END:
                self.grammar.on(state, 1 << byte, self.end(Reason.AMBIGUOUS_PERCENT))
            elif edge.operand in {Reason.HTTP_TARGET, Reason.HTTP_VERSION}:
                self.grammar.on(state, 1 << byte, edge)
            elif Reason.AMBIGUOUS_PERCENT not in self.tolerated or edge.action is Action.AMBIGUOUS:
                self.grammar.on(state, 1 << byte, Reason.AMBIGUOUS_PERCENT)
            elif edge.target < 0:
                self.grammar.on(state, 1 << byte, edge)
            else:
                self.grammar.on(state, 1 << byte, self.noted(Reason.AMBIGUOUS_PERCENT, edge.target))

    def add_query(self) -> None:
        on = self.grammar.on
        on(self.query, VISIBLE, Edge(self.query, Op.ADVANCE))
        on(self.query, BEYOND_ASCII, self.noted(Reason.AMBIGUOUS_NON_ASCII, self.query))
        on(self.query, byte_set(b"#"), self.noted(Reason.AMBIGUOUS_FRAGMENT, self.query))
        on(self.query, SP, self.end())


def add_target(grammar: Grammar, version: int, tolerated: frozenset[Reason]) -> tuple[int, int]:
    """Origin form; returns the state before it, and the same after `PRI `."""
    first_segment = _Target(grammar, version, tolerated).path[Segment.EMPTY]
    starts = []
    for spared in (False, True):
        start = grammar.state(Reason.HTTP_TARGET_FORM, State(Match.TARGET, spared=spared))
        grammar.on(start, CONTROL | SP, Reason.HTTP_TARGET)
        grammar.on(start, byte_set(b"/"), Edge(first_segment, Op.ADVANCE))
        starts.append(start)
    grammar.on(starts[1], byte_set(b"*"), Reason.HTTP2_PREFACE)
    return starts[0], starts[1]


def add_authority(grammar: Grammar, version: int) -> int:
    """The target of CONNECT: `host:port`; returns the state before it."""
    connect = State(Match.CONNECT)

    def state() -> int:
        new = grammar.state(Reason.HTTP_TARGET_FORM, connect)
        grammar.on(new, CONTROL, Reason.HTTP_TARGET)
        grammar.on(new, CR | LF, Reason.HTTP_VERSION)
        return new

    start, port = state(), [state() for _ in range(6)]
    add_host(grammar, start, port[0], state)
    grammar.on(start, SP | CR | LF, Reason.HTTP_TARGET)
    for before, after in pairwise(port):
        grammar.on(before, DIGIT, Edge(after, Op.ADVANCE))
        grammar.on(after, SP, Edge(version, Op.TARGET_END, Action.TARGET_END))
    return start


NAME_BYTES = DIGIT | byte_set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~")


def add_host(grammar: Grammar, start: int, port: int, state: Callable[[], int]) -> tuple[int, int]:
    """A name, an IPv4 address or `[IPv6]` from `start` on, and the colon to `port`.

    Returns the states in which the host is complete.  Narrower than RFC 3986: no percent
    escapes, no sub-delimiters, no user information, which no real host has.
    """
    name, inside, closed = state(), state(), state()
    for before in (start, name):
        grammar.on(before, NAME_BYTES, Edge(name, Op.ADVANCE))
    grammar.on(start, byte_set(b"["), Edge(inside, Op.ADVANCE))
    grammar.on(inside, HEX | byte_set(b":."), Edge(inside, Op.ADVANCE))
    grammar.on(inside, byte_set(b"]"), Edge(closed, Op.ADVANCE))
    for before in (name, closed):
        grammar.on(before, byte_set(b":"), Edge(port, Op.ADVANCE))
    return name, closed
