"""The grammar of a whole request, joined from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from yett_policy.http.chunks import add_data_end, add_size, add_trailer
from yett_policy.http.fields import add_fields, add_line_start
from yett_policy.http.grammar import Edge, Grammar, add_method, add_start, add_version
from yett_policy.http.layout import Action
from yett_policy.http.target import add_authority, add_target
from yett_policy.reason import Reason


@dataclass(frozen=True, slots=True)
class RequestGrammar:
    """The grammar and its named places, as in `struct ruleset`."""

    grammar: Grammar
    start: int
    chunk: int
    chunk_end: int
    trailer: int
    skip: int


@lru_cache(maxsize=16)
def request_grammar(
    names: tuple[bytes, ...],
    tolerated: frozenset[Reason],
    *,
    connect: bool,
    chunk_extensions: bool,
    trailers: bool,
) -> RequestGrammar:
    """`names`: tracked headers by number; `tolerated`: ambiguities to note, not to deny.

    Most rulesets of a cluster have the same one; it is never changed.
    """
    grammar = Grammar()
    start = add_start(grammar)
    line = add_line_start(grammar, Edge(start, action=Action.HEAD_END))
    version = add_version(grammar, line)
    target, preface = add_target(grammar, version, tolerated)
    authority = add_authority(grammar, version) if connect else None
    add_method(grammar, start, target=target, preface=preface, connect=authority)
    skip = add_fields(grammar, line, names)
    chunk = add_size(grammar, extensions=chunk_extensions)
    chunk_end = add_data_end(grammar, chunk)
    trailer = add_trailer(grammar, names, start, fields=trailers)
    return RequestGrammar(grammar, start, chunk, chunk_end, trailer, skip)
