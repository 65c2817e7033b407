"""Rule sets that every system gets, written once: who may ask for what.

A rule allows one method and one path; everything else is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from yett_policy.http.rule import HttpRule, PathKind, RulesetSpec

_WORDS = ("orders", "users", "carts", "invoices", "search", "images", "reports", "tenants", "events", "keys")


class Mix(StrEnum):
    """Of which kinds the rules of a set are."""

    LITERAL = "literal"
    PREFIX = "prefix"
    REGEX = "regex"
    MIXED = "mixed"
    """A third of each, interleaved."""


@dataclass(frozen=True, slots=True)
class Rule:
    """GET (or POST) on one path, with examples of what it allows and of what it nearly does."""

    method: str
    kind: PathKind
    path: str
    allowed: str
    """A target that this rule allows."""
    denied: str
    """A target that no rule of the set allows."""


@dataclass(frozen=True, slots=True)
class RuleList:
    """What is enforced: `count` rules of one mix."""

    mix: Mix
    count: int

    @property
    def name(self) -> str:
        """For tables and file names."""
        return f"{self.count} {self.mix}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The same ones for the same `mix` and `count`."""
        kinds = {
            Mix.LITERAL: (PathKind.EXACT,),
            Mix.PREFIX: (PathKind.PREFIX,),
            Mix.REGEX: (PathKind.REGEX,),
            Mix.MIXED: (PathKind.EXACT, PathKind.PREFIX, PathKind.REGEX),
        }[self.mix]
        generated = self.count - 1 if self.count > 1 else 1
        rules = tuple(_rule(number, kinds[number % len(kinds)]) for number in range(generated))
        return rules if self.count == 1 else (*rules, UPLOAD)


def _rule(number: int, kind: PathKind) -> Rule:
    word = _WORDS[number % len(_WORDS)]
    root = f"/api/v{number % 3 + 1}/{word}/{number:05d}"
    match kind:
        case PathKind.EXACT:
            return Rule("GET", kind, f"{root}/list", f"{root}/list", f"{root}/lists")
        case PathKind.PREFIX:
            return Rule("GET", kind, f"{root}/files", f"{root}/files/a/b.json", f"{root}/files2")
        case PathKind.REGEX:
            path = f"{root}/[0-9a-f]+/(items|notes)"
            return Rule("GET", kind, path, f"{root}/7f3a/items", f"{root}/7g3a/items")


UPLOAD = Rule("POST", PathKind.EXACT, "/upload", "/upload", "/upload/x")
"""The last rule of every set of more than one, for requests with a body."""


def to_spec(rules: tuple[Rule, ...]) -> RulesetSpec:
    """For the compiler of yett."""
    return RulesetSpec(
        tuple(
            sorted(
                HttpRule(
                    f"L7Policy/bench/rules:ingress[0].toPorts[0].rules.http[{number}]",
                    method=rule.method,
                    path=rule.path,
                    path_kind=rule.kind,
                )
                for number, rule in enumerate(rules)
            )
        ),
        "L7Policy/bench/rules:default-deny",
    )


def spread(rules: tuple[Rule, ...], count: int) -> tuple[Rule, ...]:
    """`count` of the rules, evenly over the list, so that neither the first nor the last is favoured."""
    if len(rules) <= count:
        return rules
    step = len(rules) / count
    # Half a step in, plus the kinds in turn: a mixed list has them one after the other.
    return tuple(rules[min(int(step * i + step / 2) // 3 * 3 + i % 3, len(rules) - 1)] for i in range(count))
