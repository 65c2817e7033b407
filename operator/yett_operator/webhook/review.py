"""What admission says to a policy.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from yett_policy import budget
from yett_policy.conflict import certain_conflicts
from yett_policy.errors import PolicyError, Severity
from yett_policy.http.compile import compile_tables
from yett_policy.http.errors import TooComplex, TooMuchWork
from yett_policy.lint import lint
from yett_policy.policy import Policy
from yett_policy.source.parse import parse_policy

MORE = 5
"""Errors that are named; of the others only the number."""
WORK = 400_000
"""Steps of the ruleset compiler that a review may take: a second at most."""
_WARNINGS = 16
_WARNING_MAX = 256
"""The API server cuts warnings that are longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a review."""

    error: str = ""
    """Why it is refused; empty if it is not."""
    warnings: tuple[str, ...] = ()


def names_engine(body: bytes) -> bool:
    """Whether a stored policy (as compact JSON) may wish for an engine, and so contradict another."""
    return b'"engine":"' in body


def review(obj: dict[str, Any], others: Sequence[bytes] = ()) -> Answer:
    """Of an object that is about to be stored; `others` are stored policies that name an engine."""
    plain = {key: obj[key] for key in ("apiVersion", "kind", "metadata", "spec", "specs") if key in obj}
    try:
        policies = parse_policy(plain)
    except PolicyError as error:
        return _refused([error, *error.others])
    excesses, unknown = _over_budget(policies)
    contradicted, contradicting = _contradictions(policies, others)
    if excesses or contradicted:
        return _refused(excesses + contradicted)
    findings = [finding for finding in lint(plain) if finding.severity is not Severity.ERROR]
    texts = contradicting + unknown + [f"{each.field}: {each.message} ({each.code})" for each in findings]
    if len(texts) > _WARNINGS:
        texts = [*texts[: _WARNINGS - 1], f"and {len(texts) - _WARNINGS + 1} more; see `yettctl lint`"]
    return Answer(warnings=tuple(_cut(text) for text in texts))


def _refused(errors: list[PolicyError]) -> Answer:
    text = "; ".join(str(each) for each in errors[:MORE])
    more = f"; and {len(errors) - MORE} more" if len(errors) > MORE else ""
    return Answer(error=text + more)


def _over_budget(policies: list[Policy]) -> tuple[list[PolicyError], list[str]]:
    """What does not fit the kernel though the policy asks for it, and what takes too long to find out."""
    lists = [each for policy in policies if policy.engine == "Kernel" for each in budget.alone(policy)]
    errors, unknown = [], []
    for field, spec in lists:
        try:
            compile_tables(spec, max_work=WORK // len(lists))
        except TooMuchWork:
            unknown.append(
                f"{field}: takes long to compile; whether it fits the kernel, the condition Accepted will say"
            )
        except TooComplex as error:
            errors.append(budget.too_complex(field, str(error)))
    return errors, unknown


def _contradictions(policies: list[Policy], others: Sequence[bytes]) -> tuple[list[PolicyError], list[str]]:
    """What an older policy contradicts, and which newer ones will give way."""
    source = policies[0].source if policies else ""
    beside = [other for body in others for other in _parsed(body) if other.source != source]
    found = sorted(certain_conflicts([*policies, *beside]))
    return (
        [PolicyError("", each.sentence) for each in found if each.policy == source],
        [
            f"spec.engine: contradicts that of {each.policy}, which is newer and gives way"
            for each in found
            if each.older == source != each.policy
        ],
    )


@lru_cache(1024)
def _parsed(body: bytes) -> tuple[Policy, ...]:
    """A stored policy; one that is refused contradicts nobody."""
    try:
        return tuple(parse_policy(json.loads(body)))
    except (PolicyError, ValueError):
        return ()


def _cut(text: str) -> str:
    return text if len(text) <= _WARNING_MAX else text[: _WARNING_MAX - 3] + "..."
