"""Reading a manifest's fields: each error names file, field and what to write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from yett_lab.errors import InputError
from yett_lab.manifest import Manifest

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Field:
    """A value in a manifest and the path to it."""

    __slots__ = ("manifest", "path", "value")

    def __init__(self, manifest: Manifest, value: object, path: str = "") -> None:
        self.manifest = manifest
        self.value = value
        self.path = path

    def __getitem__(self, key: str) -> Field:
        """A member; of value None when it is not there."""
        value = self.value if self.value is not None else {}
        if not isinstance(value, dict):
            raise self.error("expected a mapping")
        return Field(self.manifest, value.get(key), f"{self.path}.{key}" if self.path else key)

    def __iter__(self) -> Iterator[Field]:
        """The items of a list; none when it is not there."""
        value = self.value if self.value is not None else []
        if not isinstance(value, list):
            raise self.error("expected a list")
        for index, item in enumerate(value):
            yield Field(self.manifest, item, f"{self.path}[{index}]")

    def __bool__(self) -> bool:
        return self.value is not None

    def error(self, problem: str) -> InputError:
        """The exception to raise; it shows the value."""
        return self.refusal(problem if self.value is None else f"{problem}, got {str(self.value)[:60]!r}")

    def refusal(self, sentence: str) -> InputError:
        """The exception to raise about a value that is well-formed."""
        return InputError(f"{self.manifest.place(self.path)}: {sentence}")

    def string(self, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.error("expected a string (put quotes around numbers)")
        if "\0" in self.value:
            raise self.error("a NUL byte is not possible here; remove it")
        return self.value

    def integer(self, low: int, high: int, default: int | None = None) -> int:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            raise self.error(f"expected a whole number from {low} to {high}")
        return self.value

    def strings(self) -> tuple[str, ...]:
        return tuple(item.string() for item in self)

    def mapping(self) -> tuple[tuple[str, str], ...]:
        """A mapping of strings, sorted."""
        value: Any = self.value if self.value is not None else {}
        if not isinstance(value, dict):
            raise self.error("expected a mapping of strings")
        pairs = []
        for key, item in value.items():
            if not isinstance(key, str) or not isinstance(item, str):
                raise Field(self.manifest, item, f"{self.path}.{key}").error(
                    "expected a string (put quotes around numbers and yes/no)"
                )
            pairs.append((key, item))
        return tuple(sorted(pairs))

    def choice(self, *choices: str) -> str:
        """One of the choices; the first when it is not there."""
        value = self.string(choices[0])
        if value not in choices:
            raise self.error(f"expected one of {', '.join(choices)}")
        return value

    def object_name(self, *, dots: bool = True) -> str:
        """A name as Kubernetes allows it, so that it is safe in paths and commands."""
        value = self.string()
        pattern, limit = (_NAME, 253) if dots else (_LABEL, 63)
        if len(value) > limit or not pattern.fullmatch(value):
            allowed = "letters, digits, hyphens and dots" if dots else "letters, digits and hyphens"
            raise self.error(f"expected at most {limit} lower-case {allowed}, a letter or digit at both ends")
        return value
