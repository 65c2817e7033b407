"""Golden cases: policies.yaml over cluster.yaml mean what expect.yaml says.

An expectation is a conversation (`from`, `to`, `port: TCP/80`, `request: GET /x`, `headers`)
with its `verdict`; `reason` and `rule` are those of the side that decided.  `sees`: values of headers as
the server sees them while the `secrets` are there (null: it sees nothing), `mismatched`: what LOG records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.policy_world import fake_ruleset
from yett_policy.cluster import Cluster, NamedPort, Namespace, Node, Pod
from yett_policy.compiled import Compiled
from yett_policy.compiler import compile as compile_all
from yett_policy.document import Engine, Verdict
from yett_policy.evaluate import forward
from yett_policy.explain import Explanation, explain
from yett_policy.http.change import values_of
from yett_policy.http.machine import Machine
from yett_policy.http.rule import Request
from yett_policy.lint import lint
from yett_policy.policy import ICMP, ICMPV6, PROTOCOLS
from yett_policy.rulesets import compile_spec
from yett_policy.source.parse import parse_policy

CASES = Path(__file__).parent / "cases"
NODE = "node-1"


def load(case: Path, name: str) -> Any:
    return list(yaml.safe_load_all((case / name).read_text()))


def facts(case: Path) -> Cluster:
    (known,) = load(case, "cluster.yaml")
    return Cluster(
        pods=tuple(
            Pod(
                *name.split("/"),
                labels=pod.get("labels", {}),
                addresses=tuple(pod["addresses"]),
                probes=tuple(pod.get("probes", ())),
                named_ports=tuple(NamedPort(port, number) for port, number in pod.get("ports", {}).items()),
            )
            for name, pod in known["pods"].items()
        ),
        namespaces=tuple(Namespace(name, labels) for name, labels in known.get("namespaces", {}).items()),
        nodes=(Node(NODE, ("10.0.0.1",)), Node("node-2", ("10.0.0.2",))),
        api_servers=tuple(known.get("api_servers", ())),
    )


def compiled(case: Path) -> Compiled:
    policies = [policy for obj in load(case, "policies.yaml") for policy in parse_policy(obj)]
    return compile_all(policies, facts(case), rulesets=fake_ruleset)


def request_of(question: dict[str, Any]) -> Request:
    method, _, target = question["request"].partition(" ")
    headers = [line.partition(":") for line in question.get("headers", ())]
    return Request(
        method.encode("latin-1"),
        target.encode("latin-1"),
        tuple((name.encode(), value.strip().encode("latin-1")) for name, _, value in headers),
    )


def asked(state: Compiled, question: dict[str, Any]) -> Explanation:
    proto, _, port = question.get("port", "TCP/80").partition("/")
    request = request_of(question) if "request" in question else None
    number = {**PROTOCOLS, "ICMP": ICMP, "ICMPv6": ICMPV6, "GRE": 47}[proto]
    return explain(state, question["from"], question["to"], number, int(port or 0), request, node=NODE)


def questions() -> list[Any]:
    found = []
    for case in sorted(path for path in CASES.iterdir() if path.is_dir()):
        (expectations,) = load(case, "expect.yaml")
        for i, question in enumerate(expectations["verdicts"]):
            found.append(pytest.param(case, question, id=f"{case.name}-{i}"))
    return found


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
            method, _, target = question["request"].partition(" ")
            lines = [f"{method} {target} HTTP/1.1", *question.get("headers", ())]
            if not any(line.lower().startswith("host:") for line in lines[1:]):
                if any(rule.host for rule in ruleset.spec.rules):
                    lines[0] = f"{method} {target} HTTP/1.0"  # which needs no Host
                else:
                    lines.append("Host: test")
            (judgement,) = Machine(ruleset.tables).feed("\r\n".join([*lines, "", ""]).encode("latin-1"))
            assert judgement.verdict is side.verdict, (question, judgement)


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_a_golden_case_has_its_findings(case: Path) -> None:
    (expectations,) = load(case, "expect.yaml")
    findings = [finding for obj in load(case, "policies.yaml") for finding in lint(obj)]
    assert [f"{finding.code} {finding.field}" for finding in findings] == expectations.get("findings", [])
