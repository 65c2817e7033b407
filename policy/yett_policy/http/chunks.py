"""Chunked bodies: the size line, the CRLF after the data, the trailer section."""

from __future__ import annotations

from collections.abc import Sequence

from yett_policy.http.fields import add_line_start, add_names, add_skip
from yett_policy.http.grammar import CONTROL, CR, HEX, LF, OWS, TOKEN, VISIBLE, Edge, Grammar, deny
from yett_policy.http.layout import Action
from yett_policy.http.tree import byte_set
from yett_policy.reason import Reason


def add_size(grammar: Grammar, *, extensions: bool) -> int:
    """`1a CRLF`; the engine counts the digits."""
    start, digits, end = (
        grammar.state(reason) for reason in (Reason.HTTP_CHUNK, Reason.HTTP_CHUNK, Reason.HTTP_BARE_CR)
    )
    for before in (start, digits):
        grammar.on(before, HEX, Edge(digits, action=Action.CHUNK_DIGIT))
    grammar.on(digits, LF, Reason.HTTP_BARE_LF)
    grammar.on(digits, OWS | byte_set(b";"), Reason.HTTP_CHUNK_EXTENSION)
    grammar.on(digits, CR, Edge(end))
    grammar.on(end, LF, Edge(start, action=Action.CHUNK_LINE_END))
    if extensions:
        extension, space = (
            grammar.state(Reason.HTTP_CHUNK_EXTENSION),
            grammar.state(Reason.HTTP_CHUNK_EXTENSION),
        )
        for state in (extension, space):
            grammar.on(state, CONTROL, Reason.HTTP_CONTROL_BYTE)
            grammar.on(state, LF, Reason.HTTP_BARE_LF)
        grammar.on(space, CR, Reason.HTTP_CHUNK_EXTENSION)
        grammar.on(extension, VISIBLE | OWS, Edge(extension))
        grammar.on(extension, CR, Edge(end))
        for before in (digits, space):
            grammar.on(before, OWS, Edge(space))
            grammar.on(before, byte_set(b";"), Edge(extension))
    return start


def add_data_end(grammar: Grammar, size: int) -> int:
    """The CRLF after a chunk's data, and back to the next size."""
    start, end = grammar.state(Reason.HTTP_CHUNK), grammar.state(Reason.HTTP_CHUNK)
    grammar.on(start, CR, Edge(end))
    grammar.on(end, LF, Edge(size))
    return start


def add_trailer(grammar: Grammar, names: Sequence[bytes], after: int, *, fields: bool) -> int:
    """What follows the last chunk; with `fields`, lines whose names nobody cares about."""
    line = add_line_start(grammar, Edge(after, action=Action.BODY_END))
    refused = deny(Reason.HTTP_TRAILER)
    if not fields:
        grammar.on(line, TOKEN, refused)
        return line
    skip = add_skip(grammar, line)
    add_names(grammar, names, line, tracked=lambda _: refused, alias=refused, other=Edge(skip))
    return line
