"""Contradictions that can be told without knowing any pod: between policies with equal selectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from yett_policy.app_protocol import Spoken
from yett_policy.body import build_body
from yett_policy.cluster import NamedPort
from yett_policy.document import Engine, Ruleset
from yett_policy.http.rule import RulesetSpec
from yett_policy.merge import Conflict
from yett_policy.parts import ServerPorts
from yett_policy.policy import Policy
from yett_policy.selector import LabelSelector, Selector


class _Symbols:
    """Peers of whom only the selector is known: each stands for a peer of its own."""

    def __init__(self) -> None:
        self._numbers: dict[Selector, int] = {}

    def selected(self, selector: Selector) -> Collection[int]:
        return (self._numbers.setdefault(selector, len(self._numbers) + 1),)

    def with_port(self, name: str, proto: int) -> Collection[int]:
        del name, proto
        return ()

    def named_ports(self, identity: int) -> Sequence[NamedPort]:
        del identity
        return ()

    def spoken(self, identity: int) -> Sequence[Spoken]:
        del identity
        return ()

    def speakers(self) -> Collection[int]:
        return ()

    def hosts(self) -> Collection[int]:
        return ()


def certain_conflicts(policies: Iterable[Policy]) -> frozenset[Conflict]:
    """Between policies that select the same pods by the same selector, and the same peers so too."""
    groups: defaultdict[LabelSelector, list[Policy]] = defaultdict(list)
    for policy in policies:
        if policy.engine != "Auto":
            groups[policy.subject].append(policy)
    return frozenset(
        conflict
        for group in groups.values()
        if len({policy.engine for policy in group}) > 1
        for conflict in build_body(group, ServerPorts(), _Symbols(), _unread).conflicts
    )


def _unread(spec: RulesetSpec) -> Ruleset:
    return Ruleset(spec.digest, spec, Engine.SIDECAR, "")
