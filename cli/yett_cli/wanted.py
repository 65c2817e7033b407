"""Which flow records are wanted: the filters of `yettctl observe`.

Filters of different kinds all must hold; several values of one kind are alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from yett_cli.record import End, Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty: any."""

    from_pod: Sequence[str] = ()
    to_pod: Sequence[str] = ()
    pod: Sequence[str] = ()
    """Either end."""
    namespace: Sequence[str] = ()
    """Of either end."""
    verdict: Sequence[str] = ()
    reason: Sequence[str] = ()
    kind: Sequence[str] = ()
    """`flow` or `request`."""
    method: Sequence[str] = ()
    path: Sequence[re.Pattern[str]] = ()
    label: Sequence[str] = ()
    """`key=value` or `key`, of either end."""

    def __call__(self, record: Record) -> bool:
        """Whether a record is wanted."""
        ends = (record.source, record.destination)
        return (
            _any(self.from_pod, lambda pattern: _is_pod(record.source, pattern))
            and _any(self.to_pod, lambda pattern: _is_pod(record.destination, pattern))
            and _any(self.pod, lambda pattern: any(_is_pod(end, pattern) for end in ends))
            and _any(self.namespace, lambda name: any(end.namespace == name for end in ends))
            and _any(self.label, lambda label: any(_has_label(end, label) for end in ends))
            and _any(self.verdict, lambda verdict: record.verdict == verdict)
            and _any(self.reason, lambda reason: record.reason == reason.upper())
            and _any(self.kind, lambda kind: record.is_request is (kind == "request"))
            and _any(self.method, lambda method: record.is_request and record.method == method)
            and _any(self.path, lambda path: record.is_request and bool(path.search(record.target)))
        )


def _any(wanted: Sequence[T], holds: Callable[[T], bool]) -> bool:
    return not wanted or any(map(holds, wanted))


def _is_pod(end: End, pattern: str) -> bool:
    """`name`, `namespace/name`, `namespace/` (every pod there); `*` in a name stands for anything."""
    namespace, slash, name = pattern.rpartition("/")
    return (
        bool(end.pod)
        and fnmatchcase(end.namespace, namespace if slash else "default")
        and fnmatchcase(end.pod, name or "*")
    )


def _has_label(end: End, wanted: str) -> bool:
    for label in end.labels:
        plain = label.partition(":")[2] or label
        if wanted in {label, plain, plain.partition("=")[0]}:
            return True
    return False
