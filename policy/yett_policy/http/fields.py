"""Header lines: names that the rules or the framing care about, and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from yett_policy.http.grammar import (
    CONTROL,
    CR,
    DIGIT,
    HIGH,
    LF,
    OWS,
    TAB,
    TOKEN,
    VISIBLE,
    Edge,
    Grammar,
    Match,
    Op,
    State,
)
from yett_policy.http.layout import Action, Header
from yett_policy.http.target import add_host
from yett_policy.http.tree import byte_set
from yett_policy.reason import Reason

FRAMING = (b"host", b"content-length", b"transfer-encoding", b"upgrade")
"""Names by number, as Header; a ruleset's own follow."""
VALUE = VISIBLE | HIGH
MAX_PORT_DIGITS = 5

_Candidates = frozenset[tuple[int, int, bool]]
"""(header, bytes of its name read, all exactly)."""


def add_names(
    grammar: Grammar,
    names: Sequence[bytes],
    line: int,
    *,
    tracked: Callable[[int], Edge],
    alias: Edge,
    other: Edge,
) -> None:
    """A field name and its colon, from `line` (the start of a line) on.

    `tracked` gives the edge of the colon after a known name, `alias` is the one after a name
    that differs from a known one in `_` for `-` (some servers fold them), `other` the rest.
    """
    made: dict[_Candidates, int] = {}

    def name_state(candidates: _Candidates) -> int:
        if candidates in made:
            return made[candidates]
        state = made[candidates] = grammar.state(Reason.HTTP_HEADER_NAME)
        grammar.on(state, OWS, Reason.HTTP_SPACE_BEFORE_COLON)
        complete = {(number, exact) for number, at, exact in sorted(candidates) if at == len(names[number])}
        colon = other
        for number, exact in sorted(complete, key=lambda found: found[1]):
            colon = tracked(number) if exact else alias
        grammar.on(state, byte_set(b":"), colon)
        add_steps(state, candidates)
        return state

    def add_steps(state: int, candidates: _Candidates) -> None:
        if not candidates:
            grammar.on(state, TOKEN, Edge(state))
            return
        grammar.on(state, TOKEN, Edge(name_state(frozenset())))
        steps: dict[int, set[tuple[int, int, bool]]] = {}
        for number, at, exact in sorted(candidates):
            if at == len(names[number]):
                continue
            char = names[number][at]
            for byte in {*b"-_"} if char in b"-_" else {char, *chr(char).upper().encode()}:
                same = exact and (char not in b"-_" or byte == char)
                steps.setdefault(byte, set()).add((number, at + 1, same))
        for byte, after in sorted(steps.items()):
            grammar.on(state, 1 << byte, Edge(name_state(frozenset(after))))

    add_steps(line, frozenset((number, 0, True) for number in range(len(names))))


class _Values:
    """The values of tracked headers; each begins at `first[number]`."""

    def __init__(self, grammar: Grammar, lines: int, names: Sequence[bytes]) -> None:
        self.grammar = grammar
        self.end = grammar.state(Reason.HTTP_BARE_CR)
        grammar.on(self.end, LF, Edge(lines))
        self.first = [self.host(), self.content_length(), self.transfer_encoding()]
        self.first += [self.anything() for _ in names[len(self.first) :]]

    def state(self, otherwise: Reason, *, held: bool = False) -> int:
        state = self.grammar.state(otherwise, State(Match.VALUE, held=held))
        self.grammar.on(state, CONTROL & ~(TAB | CR), Reason.HTTP_CONTROL_BYTE)
        self.grammar.on(state, LF, Reason.HTTP_BARE_LF)
        return state

    def lead(self, otherwise: Reason) -> int:
        """Spaces before the value."""
        state = self.state(otherwise)
        self.grammar.on(state, OWS, Edge(state, Op.KEEP))
        return state

    def complete(self, state: int, trail: int, *, last: bool = True) -> None:
        """The value may end after this state."""
        self.grammar.on(state, OWS, Edge(trail, Op.HOLD_LAST if last else Op.HOLD))
        self.grammar.on(state, CR, Edge(self.end, Op.VALUE_END, Action.VALUE_END))

    def trail(self, otherwise: Reason) -> int:
        """Spaces after a value that cannot hold any."""
        state = self.state(otherwise, held=True)
        self.complete(state, state)
        return state

    def host(self) -> int:
        why = Reason.HTTP_HOST
        lead, trail = self.lead(why), self.trail(why)
        port = [self.state(why) for _ in range(MAX_PORT_DIGITS + 1)]
        for complete in (*add_host(self.grammar, lead, port[0], lambda: self.state(why)), *port[1:]):
            self.complete(complete, trail)
        for before, after in pairwise(port):
            self.grammar.on(before, DIGIT, Edge(after, Op.ADVANCE))
        return lead

    def content_length(self) -> int:
        why = Reason.HTTP_CONTENT_LENGTH
        lead, digits = self.lead(why), self.state(why)
        for before in (lead, digits):
            self.grammar.on(before, DIGIT, Edge(digits, Op.ADVANCE, Action.LENGTH_DIGIT))
        self.complete(digits, self.trail(why))
        return lead

    def transfer_encoding(self) -> int:
        why = Reason.HTTP_TRANSFER_ENCODING
        lead = at = self.lead(why)
        word = b"chunked"
        for index, char in enumerate(word):
            after = self.state(why)
            action = Action.CHUNKED if index == len(word) - 1 else Action.NONE
            self.grammar.on(at, 1 << char | 1 << char - 0x20, Edge(after, Op.ADVANCE, action))
            at = after
        self.complete(at, self.trail(why))
        return lead

    def anything(self) -> int:
        lead, inside = self.lead(Reason.HTTP_CONTROL_BYTE), self.state(Reason.HTTP_CONTROL_BYTE)
        trail = self.state(Reason.HTTP_CONTROL_BYTE, held=True)
        for state in (lead, inside, trail):
            self.grammar.on(state, VALUE, Edge(inside, Op.ADVANCE))
        self.complete(inside, trail, last=False)
        self.complete(trail, trail, last=False)
        self.grammar.on(lead, CR, Edge(self.end, Op.VALUE_END, Action.VALUE_END))
        return lead


def add_skip(grammar: Grammar, lines: int) -> int:
    """The value of a header that nobody looks at, its CRLF included."""
    skip, end = grammar.state(Reason.HTTP_CONTROL_BYTE), grammar.state(Reason.HTTP_BARE_CR)
    grammar.on(skip, VALUE | OWS, Edge(skip))
    grammar.on(skip, LF, Reason.HTTP_BARE_LF)
    grammar.on(skip, CR, Edge(end))
    grammar.on(end, LF, Edge(lines))
    return skip


def add_line_start(grammar: Grammar, after: Edge) -> int:
    """The start of a line: a field (to be added), or the empty line, whose LF is `after`."""
    line = grammar.state(Reason.HTTP_HEADER_NAME)
    end = grammar.state(Reason.HTTP_BARE_CR)
    grammar.on(line, OWS, Reason.HTTP_OBS_FOLD)
    grammar.on(line, LF, Reason.HTTP_BARE_LF)
    grammar.on(line, CR, Edge(end))
    grammar.on(end, LF, after)
    return line


def add_fields(grammar: Grammar, line: int, names: Sequence[bytes]) -> int:
    """The fields of a head, from `line` on; returns the state that skips a value."""
    skip = add_skip(grammar, line)
    first = _Values(grammar, line, names).first
    add_names(
        grammar,
        names,
        line,
        tracked=lambda number: Edge(first[number], Op.ENTER, Action.HEADER, number),
        alias=Edge(-1, action=Action.DENY, operand=Reason.HTTP_HEADER_UNDERSCORE),
        other=Edge(skip),
    )
    return skip


assert len(FRAMING) == Header.FIRST_RULE  # noqa: S101 - two lists that must not drift apart
