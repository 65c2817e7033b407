"""What is left to decide once method and path are known: rule sets and their alternatives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from yett_policy.http.conditions import Conditions
from yett_policy.http.layout import AlternativeFlag, Kind
from yett_policy.http.rule import HttpRule, RuleAction
from yett_policy.http.syntax import parse
from yett_policy.http.tree import strings
from yett_policy.reason import Reason

_KIND = {RuleAction.ALLOW: Kind.ALLOW, RuleAction.DENY: Kind.DENY, RuleAction.AUDIT_DENY: Kind.AUDIT_DENY}
_ORDER = {Kind.DENY: 0, Kind.AUDIT_DENY: 1, Kind.ALLOW: 2}
MAX_SPELLED_METHODS = 64


@dataclass(frozen=True, slots=True)
class Alternative:
    """As `struct alternative`."""

    rule: int
    kind: Kind
    flags: int
    tolerates: int
    needs: int
    upgrade: int


def tolerance(reasons: Iterable[Reason]) -> int:
    """AMBIGUOUS_* reasons as bits."""
    bits = 0
    for reason in reasons:
        bits |= 1 << reason - Reason.AMBIGUOUS_DOT_SEGMENT
    return bits


def names_connect(rule: HttpRule) -> bool:
    """Whether an allow rule spells out the method CONNECT; `.*` or no method do not."""
    if rule.action is not RuleAction.ALLOW or rule.method is None:
        return False
    spelled = strings(parse(rule.method), MAX_SPELLED_METHODS)
    return spelled is not None and b"CONNECT" in spelled


class RuleSets:
    """Numbers for the distinct outcomes of a request line; number 0 is: no rule."""

    def __init__(self, rules: tuple[HttpRule, ...], conditions: Conditions) -> None:
        self.rules = rules
        self.conditions = conditions
        self.sets: list[tuple[Alternative, ...]] = [()]
        self._numbers: dict[tuple[Alternative, ...], int] = {(): 0}
        self._connect = frozenset(index for index, rule in enumerate(rules) if names_connect(rule))

    def number(self, matched: Iterable[int], *, connect: bool, ambiguity: int) -> tuple[int, bool, bool]:
        """Number of the set; whether it can allow; whether it could but for the ambiguity.

        `ambiguity` is the one that the end of the target itself completes: allow rules that
        do not tolerate it are out.
        """
        found: list[Alternative] = []
        refused = False
        for index in matched:
            rule = self.rules[index]
            if rule.action is RuleAction.ALLOW:
                if connect and index not in self._connect:
                    continue
                if ambiguity and ambiguity not in rule.tolerate:
                    refused = True
                    continue
            found += self.alternatives(index, connect=connect)
        found.sort(key=_precedence)
        if found and found[0].kind is Kind.DENY and not found[0].needs:
            del found[1:]  # nothing beats it
        key = tuple(found)
        number = self._numbers.setdefault(key, len(self.sets))
        if number == len(self.sets):
            self.sets.append(key)
        return number, any(a.kind is Kind.ALLOW for a in key), refused

    def allows(self, index: int, *, connect: bool) -> bool:
        """Whether a rule can allow a request, or a CONNECT."""
        return index in self._connect if connect else self.rules[index].action is RuleAction.ALLOW

    def denies_outright(self, number: int) -> bool:
        """Whether a set denies whatever the headers say."""
        found = self.sets[number]
        return bool(found) and found[0].kind is Kind.DENY and not found[0].needs

    def alternatives(self, index: int, *, connect: bool) -> list[Alternative]:
        """A rule's; two if it lets the request upgrade, so that one which does is found first."""
        rule = self.rules[index]
        kind = _KIND[rule.action]
        needs = self.conditions.needs(rule)
        if kind is not Kind.ALLOW:
            flags = AlternativeFlag.FORBIDDEN if rule.forbidden and kind is Kind.DENY else 0
            return [Alternative(index, kind, flags, 0, needs, 0)]
        flags = AlternativeFlag.CONNECT if connect else 0
        tolerates = tolerance(rule.tolerate)
        plain = Alternative(index, kind, flags, tolerates, needs, 0)
        upgrade = self.conditions.upgrades(rule)
        return (
            [plain]
            if not upgrade
            else [Alternative(index, kind, flags, tolerates, needs | upgrade, upgrade), plain]
        )


def _precedence(alternative: Alternative) -> tuple[int, bool, int]:
    """Denies, audit-denies, allows; among denies the unconditional, among allows those that
    let the request upgrade come first; then by rule number.
    """
    later = bool(alternative.needs) if alternative.kind is Kind.DENY else not alternative.upgrade
    return _ORDER[alternative.kind], later, alternative.rule
