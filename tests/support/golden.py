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
from yett_policy.explain import Explanation, explain
from yett_policy.http.rule import Request, RulesetSpec
from yett_policy.policy import ICMP, ICMPV6, PROTOCOLS
from yett_policy.source.parse import parse_policy

CASES = Path(__file__).parents[1] / "policy" / "cases"
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


def head_of(question: dict[str, Any], spec: RulesetSpec) -> bytes:
    """The request as a client sends it to a server whose rules are `spec`."""
    method, _, target = question["request"].partition(" ")
    lines = [f"{method} {target} HTTP/1.1", *question.get("headers", ())]
    if not any(line.lower().startswith("host:") for line in lines[1:]):
        if any(rule.host for rule in spec.rules):
            lines[0] = f"{method} {target} HTTP/1.0"  # which needs no Host
        else:
            lines.append("Host: test")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
