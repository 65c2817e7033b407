"""What admission says to a policy.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yett_policy.errors import PolicyError, Severity
from yett_policy.lint import lint
from yett_policy.source.parse import parse_policy

MORE = 5
"""Errors that are named; of the others only the number."""
_WARNINGS = 16
_WARNING_MAX = 256
"""The API server cuts warnings that are longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a review."""

    error: str = ""
    """Why it is refused; empty if it is not."""
    warnings: tuple[str, ...] = ()


def review(obj: dict[str, Any]) -> Answer:
    """Of an object that is about to be stored."""
    plain = {key: obj[key] for key in ("apiVersion", "kind", "metadata", "spec", "specs") if key in obj}
    try:
        parse_policy(plain)
    except PolicyError as error:
        errors = [error, *error.others]
        text = "; ".join(str(each) for each in errors[:MORE])
        more = f"; and {len(errors) - MORE} more" if len(errors) > MORE else ""
        return Answer(error=text + more)
    findings = [finding for finding in lint(plain) if finding.severity is not Severity.ERROR]
    texts = [f"{each.field}: {each.message} ({each.code})" for each in findings]
    if len(texts) > _WARNINGS:
        texts = [*texts[: _WARNINGS - 1], f"and {len(texts) - _WARNINGS + 1} more; see `yettctl lint`"]
    return Answer(warnings=tuple(_cut(text) for text in texts))


def _cut(text: str) -> str:
    return text if len(text) <= _WARNING_MAX else text[: _WARNING_MAX - 3] + "..."
