"""Rulesets by the digest of their rules, each compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from yett_policy.document import Engine, Ruleset
from yett_policy.http.compile import compile_ruleset
from yett_policy.http.errors import TooComplex
from yett_policy.http.rule import RulesetSpec

CompileRuleset = Callable[[RulesetSpec], Ruleset]

_EXCEEDS = "the policy asks for the kernel, but the rules are too complex for it: "
_SPARE = 64
"""Rulesets that nobody uses and that are kept: a policy that changes back is quick."""


def compile_spec(spec: RulesetSpec) -> Ruleset:
    """The ruleset of a spec, on the engine that it wishes for.

    A policy that wishes for the kernel and does not fit is refused before (see `budget`).  What
    still does not, several policies together, goes to the sidecar: rules that stop nothing
    because they ask for too much would be worse.
    """
    try:
        return compile_ruleset(spec, engine_wish=spec.engine)
    except TooComplex as error:
        ruleset = compile_ruleset(spec, engine_wish="Sidecar")
        return replace(ruleset, engine_reason=f"{_EXCEEDS}{error}")


class Rulesets:
    """Those that are in use, and some that were."""

    def __init__(self, compile_one: CompileRuleset) -> None:
        self.held: dict[str, Ruleset] = {}
        """By digest."""
        self._compile = compile_one
        self._used = 0

    def of(self, spec: RulesetSpec) -> Ruleset:
        """Compiled now, if it never was."""
        digest = spec.digest
        if digest not in self.held:
            self.held[digest] = self._compile(spec)
        return self.held[digest]

    def fits(self, spec: RulesetSpec) -> str:
        """Why it cannot be on the kernel engine; empty if it can."""
        ruleset = self.of(spec)
        return "" if ruleset.engine is Engine.KERNEL else ruleset.engine_reason.removeprefix(_EXCEEDS)

    @property
    def crowded(self) -> bool:
        """Whether it is time to drop some."""
        return len(self.held) > 2 * self._used + _SPARE

    def keep(self, used: Iterable[str]) -> None:
        """Drop all but those with these digests."""
        live = set(used)
        self.held = {digest: ruleset for digest, ruleset in self.held.items() if digest in live}
        self._used = len(live)
