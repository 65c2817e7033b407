"""The golden cases through the sidecar: every request gets the verdict that it gets in the kernel engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from support.golden import asked, compiled, head_of, questions
from support.standalone import FIRST_PORT, PASSED, answer, serving
from yett_policy.http.rule import RulesetSpec

pytestmark = pytest.mark.net


def test_every_request_of_the_golden_cases_has_the_same_verdict(tmp_path: Path) -> None:
    states = {}
    judged: list[tuple[str, RulesetSpec, bytes, bool]] = []
    for parameter in questions():
        case, question = parameter.values
        state = states.setdefault(case, compiled(case))
        found = asked(state, question)
        for side in (found.egress, found.ingress):
            if side is None or not side.ruleset or "request" not in question:
                continue
            spec = state.rulesets[side.ruleset].spec
            if not spec.secrets:  # tests/sidecar/test_changes.py gives them
                judged.append((f"{parameter.id}", spec, head_of(question, spec), side.passes))
    specs = list(dict.fromkeys(answering(spec) for _, spec, _, _ in judged))
    odd, statuses = [], Counter[int]()
    with serving(specs, tmp_path) as inside, inside:
        for name, spec, head, passes in judged:
            status = answer(FIRST_PORT + specs.index(answering(spec)), head)
            statuses[status] += 1
            if status not in (PASSED if passes else {403}):
                odd.append((name, head, passes, status))
    assert not odd
    assert statuses[200] > 20
    assert statuses[403] > 20


def answering(spec: RulesetSpec) -> RulesetSpec:
    """The same rules; a denial is answered, so that no reset is taken for one."""
    return replace(spec, forbidden=True, rules=tuple(replace(rule, forbidden=True) for rule in spec.rules))
