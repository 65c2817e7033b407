"""Regular expressions of policies: check a pattern, match a whole value.

Semantics: RE2's, over bytes (Latin-1), for the subset of `syntax.py`.
"""

from __future__ import annotations

from functools import lru_cache

from yett_policy.http.errors import TooComplex
from yett_policy.http.nfa import Items, Nfa
from yett_policy.http.syntax import RegexError, parse

__all__ = ["RegexError", "check", "matches"]

_MAX_CACHED_STEPS = 20_000
"""Steps that one pattern remembers; then it forgets them all and goes on."""


def check(pattern: str) -> None:
    """Raise RegexError, with what and where, unless the pattern is in the subset."""
    try:
        _Matcher(pattern)  # and forget it: a policy is checked when it changes, and there may be thousands
    except TooComplex as error:
        raise RegexError(str(error), 0) from error


def matches(pattern: str, data: bytes) -> bool:
    """Whether the pattern matches the whole value."""
    return _matcher(pattern).matches(data)


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> _Matcher:
    return _Matcher(pattern)


class _Matcher:
    """Determinises lazily, one (state, byte) at a time."""

    def __init__(self, pattern: str) -> None:
        self.nfa = Nfa()
        self.accept = self.nfa.reports(0)
        self.start = self.nfa.compile(parse(pattern), (self.accept,))
        self.steps: dict[tuple[Items, int], Items] = {}

    def matches(self, data: bytes) -> bool:
        state = self.start
        for byte in data:
            key = (state, byte)
            after = self.steps.get(key)
            if after is None:
                if len(self.steps) >= _MAX_CACHED_STEPS:
                    self.steps.clear()
                after = self.steps[key] = self.step(state, byte)
            if not after:
                return False
            state = after
        return self.accept in state

    def step(self, state: Items, byte: int) -> Items:
        found: set[int] = set()
        for item in state:
            if self.nfa.bits[item] >> byte & 1:
                found.update(self.nfa.follow[item])
        return tuple(sorted(found))
