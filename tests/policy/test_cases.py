"""The golden cases through the reference semantics and through the kernel's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.golden import CASES, asked, compiled, head_of, load, questions, request_of
from yett_policy.document import Engine, Verdict
from yett_policy.evaluate import forward
from yett_policy.http.change import values_of
from yett_policy.http.machine import Machine
from yett_policy.lint import lint
from yett_policy.rulesets import compile_spec


@pytest.mark.parametrize(("case", "question"), questions())
def test_a_golden_conversation_has_its_verdict(case: Path, question: dict[str, Any]) -> None:
    found = asked(compiled(case), question)
    assert found.verdict.name.lower() == question["verdict"], found
    sides = [side for side in (found.egress, found.ingress) if side is not None]
    deciding = [side for side in sides if side.verdict is found.verdict]
    if found.verdict is Verdict.ALLOW:
        deciding = deciding[-1:]
    if "reason" in question:
        assert deciding[0].reason.name == question["reason"], found
    if "rule" in question:
        assert deciding[0].rule == question["rule"], found


@pytest.mark.parametrize(("case", "question"), [each for each in questions() if "sees" in each.values[1]])
def test_a_golden_request_is_seen_by_the_server_as_it_says(case: Path, question: dict[str, Any]) -> None:
    state = compiled(case)
    found = asked(state, question).ingress
    assert found is not None
    spec = state.rulesets[found.ruleset].spec
    passed = forward(spec, request_of(question), question.get("secrets", {}))
    if question["sees"] is None:
        assert passed is None
        return
    assert passed is not None
    for name, wanted in question["sees"].items():
        assert [value.decode() for value in values_of(passed.request.headers, name)] == wanted
    assert list(passed.mismatched) == question.get("mismatched", [])


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_the_kernel_tables_of_a_golden_case_give_its_verdicts(case: Path) -> None:
    state = compiled(case)
    (expectations,) = load(case, "expect.yaml")
    for question in expectations["verdicts"]:
        found = asked(state, question)
        for side in (found.egress, found.ingress):
            if side is None or not side.ruleset or "request" not in question:
                continue
            ruleset = compile_spec(state.rulesets[side.ruleset].spec)
            if any(rule.changes for rule in ruleset.spec.rules):
                assert ruleset.engine is Engine.SIDECAR
                continue
            assert ruleset.engine is Engine.KERNEL, ruleset.engine_reason
            (judgement,) = Machine(ruleset.tables).feed(head_of(question, ruleset.spec))
            assert judgement.verdict is side.verdict, (question, judgement)


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_a_golden_case_has_its_findings(case: Path) -> None:
    (expectations,) = load(case, "expect.yaml")
    findings = [finding for obj in load(case, "policies.yaml") for finding in lint(obj)]
    assert [f"{finding.code} {finding.field}" for finding in findings] == expectations.get("findings", [])
