"""Reading JSON from outside: every value is checked, every complaint names its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

TEXT_LIMIT = 65536
LIST_LIMIT = 1 << 20


class Malformed(ValueError):  # noqa: N818 - reads better
    """What was read is not what it should be; `str()` is one sentence that begins with the place."""


def parse(body: bytes, name: str) -> Value:
    """JSON text as a value to be read; Malformed if it is none."""
    try:
        return Value(_JSON.decode(body.decode()), name)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{name}: this is not JSON: {error or 'nested too deeply'}") from None


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value and where it stands."""

    raw: object
    path: str

    def fail(self, problem: str) -> Malformed:
        """The error to raise about this value."""
        return Malformed(f"{self.path}: {problem}")

    def fields(self, *names: str, optional: tuple[str, ...] = ()) -> list[Value]:
        """The values of exactly these keys, in this order; those of `optional` may be None."""
        if not isinstance(self.raw, dict):
            raise self.fail("an object is expected here")
        unknown = sorted(self.raw.keys() - {*names, *optional})
        if unknown:
            raise self.fail(f"unknown field {unknown[0][:64]!r}; its sender may be newer")
        missing = [name for name in names if name not in self.raw]
        if missing:
            raise self.fail(f"field {missing[0]!r} is missing")
        return [Value(self.raw.get(name), f"{self.path}.{name}") for name in (*names, *optional)]

    def items(self, limit: int = LIST_LIMIT) -> Iterator[Value]:
        """The values of a list."""
        if not isinstance(self.raw, list):
            raise self.fail("a list is expected here")
        if len(self.raw) > limit:
            raise self.fail(f"{len(self.raw)} items, at most {limit} are taken")
        return (Value(item, f"{self.path}[{index}]") for index, item in enumerate(self.raw))

    def mapping(self, limit: int = LIST_LIMIT) -> Iterator[tuple[str, Value]]:
        """The keys and values of an object whose keys are data."""
        if not isinstance(self.raw, dict):
            raise self.fail("an object is expected here")
        if len(self.raw) > limit:
            raise self.fail(f"{len(self.raw)} items, at most {limit} are taken")
        return ((key, Value(item, f"{self.path}[{key[:64]!r}]")) for key, item in self.raw.items())

    def row(self, count: int) -> list[Value]:
        """The values of a list of exactly `count`."""
        values = list(self.items())
        if len(values) != count:
            raise self.fail(f"a list of {count} is expected here, not of {len(values)}")
        return values

    def integer(self, low: int, high: int) -> int:
        """A whole number in low..high."""
        if not isinstance(self.raw, int) or isinstance(self.raw, bool):
            raise self.fail("a whole number is expected here")
        if not low <= self.raw <= high:
            raise self.fail(f"{str(self.raw)[:40]} is not in {low}..{high}")
        return self.raw

    def text(self, limit: int = TEXT_LIMIT) -> str:
        """A string."""
        if not isinstance(self.raw, str):
            raise self.fail("a string is expected here")
        if len(self.raw) > limit:
            raise self.fail(f"{len(self.raw)} characters, at most {limit} are taken")
        if not self.raw.isascii() and any("\ud800" <= char <= "\udfff" for char in self.raw):
            raise self.fail("half a surrogate pair is no character")
        return self.raw

    def optional_text(self) -> str | None:
        """A string or null."""
        return None if self.raw is None else self.text()

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.raw, bool):
            raise self.fail("true or false is expected here")
        return self.raw

    def one_of(self, kind: type[E]) -> E:
        """A member of an enum, by its value."""
        if isinstance(self.raw, int | str) and not isinstance(self.raw, bool):
            with suppress(ValueError):
                return kind(self.raw)
        raise self.fail(f"{str(self.raw)[:40]!r} is no {kind.__name__}")

    def convert(self, function: Callable[[str], T], what: str) -> T:
        """A string that `function` understands (it raises ValueError otherwise)."""
        text = self.text(256)
        try:
            return function(text)
        except ValueError:
            raise self.fail(f"{text[:64]!r} is no {what}") from None


def _constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


_JSON = json.JSONDecoder(parse_constant=_constant)
