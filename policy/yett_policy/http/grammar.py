"""The strict HTTP/1.x request grammar as an automaton; the rules ride on its edges.

A grammar state is a number, an edge says where a byte leads, what the engine does there
(`action`), and what becomes of the rules' items (`op`).  This module holds the frame, the
request line's method and version; `target.py`, `fields.py`, `chunks.py` add theirs, and
`request.py` joins them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from yett_policy.http.layout import Action
from yett_policy.http.tree import byte_set
from yett_policy.reason import Reason

TOKEN = byte_set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGIT = byte_set(b"0123456789")
HEX = byte_set(b"0123456789abcdefABCDEF")
CR, LF, TAB, SP = (1 << byte for byte in b"\r\n\t ")
OWS = SP | TAB
CONTROL = byte_set(range(0x20)) | 1 << 0x7F
VISIBLE = byte_set(range(0x21, 0x7F))
HIGH = byte_set(range(0x80, 0x100))
TLS_HANDSHAKE = 1 << 0x16


class Op(IntEnum):
    """What an edge does with the items of the rules."""

    DROP = 0
    """No rule looks at what follows."""
    ADVANCE = 1
    """The rules read the byte too."""
    KEEP = 2
    """The rules do not see the byte (leading spaces of a value)."""
    HOLD = 3
    """They read it, but what matched before it is remembered: a space that may be the last."""
    HOLD_LAST = 4
    """It is remembered and the items go: only spaces may follow."""
    ENTER = 5
    """The conditions on tracked header `operand` begin."""
    TARGET_END = 6
    """Method and target are complete; `operand` is the ambiguity that the end completes, or 0."""
    VALUE_END = 7
    """A tracked header's value is complete."""


class Match(Enum):
    """What the items of a state are about."""

    NOTHING = "nothing"
    TARGET = "target"
    CONNECT = "connect"
    """As TARGET, in the authority form."""
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Edge:
    """To grammar state `target`; -1: denied, `operand` says why."""

    target: int
    op: Op = Op.DROP
    action: Action = Action.NONE
    operand: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Properties of a grammar state beside its edges."""

    match: Match = Match.NOTHING
    spared: bool = False
    """Policy may not deny here: the grammar is about to recognise something."""
    held: bool = False
    """What has matched was remembered on the way in."""


def deny(reason: Reason) -> Edge:
    """The edge that ends the scan."""
    return Edge(-1, action=Action.DENY, operand=reason)


class Grammar:
    """States by number, each with an edge for every byte."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self._edges: list[Edge] = []
        self._numbers: dict[Edge, int] = {}
        self._rows: list[array[int]] = []
        """Of each state the edge of every byte, by number: a grammar is kept, and as objects it takes four
        times the room."""

    def state(self, otherwise: Reason | Edge, state: State | None = None) -> int:
        """A new state whose edges all are `otherwise`."""
        edge = deny(otherwise) if isinstance(otherwise, Reason) else otherwise
        self.states.append(state or State())
        self._rows.append(array("H", [self._number(edge)]) * 256)
        return len(self.states) - 1

    def on(self, state: int, bits: int, edge: Reason | Edge) -> None:
        """Replace the edges of a state for a set of bytes."""
        new = deny(edge) if isinstance(edge, Reason) else edge
        row, number = self._rows[state], self._number(new)
        while bits:
            low = bits & -bits
            row[low.bit_length() - 1] = number
            bits ^= low

    def edge(self, state: int, byte: int) -> Edge:
        """Where a byte leads."""
        return self._edges[self._rows[state][byte]]

    def blocks(self, state: int) -> Iterable[tuple[Edge, int]]:
        """The edges of a state with the bytes that take each."""
        found: dict[int, int] = {}
        for byte, number in enumerate(self._rows[state]):
            found[number] = found.get(number, 0) | 1 << byte
        return [(self._edges[number], bits) for number, bits in found.items()]

    def _number(self, edge: Edge) -> int:
        number = self._numbers.setdefault(edge, len(self._edges))
        if number == len(self._edges):
            self._edges.append(edge)
        return number


def add_version(grammar: Grammar, lines: int) -> int:
    """`HTTP/1.0 CRLF` or `HTTP/1.1 CRLF`; ends at the state `lines`."""
    first = at = grammar.state(Reason.HTTP_VERSION)
    for byte in b"HTTP/1.":
        after = grammar.state(Reason.HTTP_VERSION)
        grammar.on(at, 1 << byte, Edge(after))
        at = after
    for minor in (0, 1):
        digit = grammar.state(Reason.HTTP_VERSION)
        grammar.on(at, 1 << ord("0") + minor, Edge(digit))
        end = grammar.state(Reason.HTTP_BARE_CR)
        grammar.on(digit, CR, Edge(end))
        grammar.on(digit, LF, Reason.HTTP_BARE_LF)
        grammar.on(end, LF, Edge(lines, action=Action.VERSION, operand=minor))
    return first


def add_start(grammar: Grammar) -> int:
    """The state before a request."""
    start = grammar.state(Reason.HTTP_METHOD, State(Match.TARGET, spared=True))
    grammar.on(start, CR | LF, Reason.HTTP_LEADING_CRLF)
    grammar.on(start, TLS_HANDSHAKE, Reason.TLS_ON_HTTP_PORT)
    return start


def add_method(grammar: Grammar, start: int, *, target: int, preface: int, connect: int | None) -> None:
    """A method and its space; `connect` None: no rule names CONNECT."""
    token = grammar.state(Reason.HTTP_METHOD, State(Match.TARGET))
    for state in (start, token):
        grammar.on(state, TOKEN, Edge(token, Op.ADVANCE))
    grammar.on(token, SP, Edge(target, Op.ADVANCE))
    for word, spared in ((b"PRI", True), (b"CONNECT", False)):
        at = start
        for byte in word:
            after = grammar.state(Reason.HTTP_METHOD, State(Match.TARGET, spared=spared))
            grammar.on(after, TOKEN, Edge(token, Op.ADVANCE))
            grammar.on(after, SP, Edge(target, Op.ADVANCE))
            grammar.on(at, 1 << byte, Edge(after, Op.ADVANCE))
            at = after
        if word == b"PRI":
            grammar.on(at, SP, Edge(preface, Op.ADVANCE))
        else:
            grammar.on(at, SP, Reason.CONNECT_DENIED if connect is None else Edge(connect, Op.ADVANCE))
