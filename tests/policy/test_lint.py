"""Legal, and probably not what was meant (the codes that no golden case shows)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

import yett_policy.lint
from yett_policy.errors import Severity
from yett_policy.lint import lint

L7P = "apiVersion: yett.dev/v1alpha1\nkind: L7Policy\nmetadata: {name: p}\n"
NP = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
RULE = "spec.ingress[0].toPorts[0].rules.http[0]"


def http(rule: str, more: str = "") -> dict[str, Any]:
    port = '{ports: [{port: "80", protocol: TCP}], rules: {http: [%s]}}' % rule  # noqa: UP031 - braces
    return yaml.safe_load(f"{L7P}spec: {{endpointSelector: {{}}, ingress: [{{toPorts: [{port}]}}]{more}}}")


def spec(text: str, head: str = L7P) -> dict[str, Any]:
    return yaml.safe_load(f"{head}spec: {{{text}}}")


@pytest.mark.parametrize(
    ("obj", "findings"),
    [
        (http("{path: /a/}"), [f"YETT1016 {RULE}.path"]),
        (http("{path: /}"), [f"YETT1016 {RULE}.path"]),
        (http("{path: '/a/.*'}"), []),
        (http("{path: '/a'}"), []),
        (
            http("{headerMatches: [{name: X-A, value: b, mismatch: ADD}]}", ", audit: true"),
            [f"YETT1024 {RULE}.headerMatches[0].mismatch"],
        ),
        (
            http("{headerMatches: [{name: Authorization, value: b, mismatch: ADD}]}"),
            [f"YETT1025 {RULE}.headerMatches[0].mismatch"],
        ),
        (
            http(
                "{headerMatches: [{name: X-A, value: b, mismatch: REPLACE}]},"
                "{path: /b, headerMatches: [{name: x-a, value: c, mismatch: REPLACE}]}"
            ),
            [f"YETT1026 {RULE[:-3]}[1].headerMatches[0]"],
        ),
        (http("{headerMatches: [{name: X-A, value: b, mismatch: REPLACE}]}"), []),
        (http("{host: a.test}"), [f"YETT1017 {RULE}.host"]),
        (http("{host: 'a\\.test'}"), []),
        (http("{host: '.*'}"), []),
        (http("{host: 'A'}"), [f"YETT1021 {RULE}.host"]),
        (http("{method: get}"), [f"YETT1018 {RULE}.method"]),
        (http("{method: GET|HEAD}"), []),
        (http("{path: a}"), [f"YETT1022 {RULE}.path"]),
        (http("{path: '(/a|/b)'}"), []),
        (http("{}", ", engine: Kernel, denyResponse: Forbidden"), []),
        (
            spec(
                "endpointSelector: {}, ingress: [{}], engine: Kernel, denyResponse: Reset, http: {trailers: true}"
            ),
            ["YETT1020 spec.denyResponse", "YETT1020 spec.engine", "YETT1020 spec.http"],
        ),
        (
            spec('endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "0x50"}]}]}]'),
            ["YETT1014 spec.ingress[0].toPorts[0].ports[0].port"],
        ),
        (
            spec(
                "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.1/16]}}]}]",
                NP,
            ),
            [
                "YETT1015 spec.ingress[0].from[0].ipBlock.cidr",
                "YETT1015 spec.ingress[0].from[0].ipBlock.except[0]",
            ],
        ),
        (
            spec("endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.1/8}]}]"),
            ["YETT1015 spec.egress[0].toCIDRSet[0].cidr"],
        ),
        (
            spec("endpointSelector: {}, ingressDeny: [{fromEntities: [host]}]"),
            ["YETT1005 spec.ingressDeny[0]"],
        ),
        (
            spec("endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]"),
            ["YETT1005 spec.ingressDeny[0]"],
        ),
        (spec("endpointSelector: {}, ingressDeny: [{fromEntities: [world]}]"), []),
        (spec("endpointSelector: {}, egressDeny: [{toEntities: [host]}]"), []),
    ],
)
def test_a_surprise_is_reported_with_its_code_and_field(obj: dict[str, Any], findings: list[str]) -> None:
    found = lint(obj)
    assert [f"{finding.code} {finding.field}" for finding in found] == findings
    assert all(finding.severity in {Severity.WARNING, Severity.INFO} for finding in found)


JUDGED = '{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}]}'


@pytest.mark.parametrize(
    ("other", "shadows"),
    [
        ('{toPorts: [{ports: [{port: "80"}]}]}', True),
        ('{toPorts: [{ports: [{port: "79", endPort: 80, protocol: TCP}]}]}', True),
        ('{toPorts: [{ports: [{port: "0"}]}]}', True),
        ('{toPorts: [{ports: [{port: "80", protocol: UDP}]}]}', False),
        ('{toPorts: [{ports: [{port: "81"}]}]}', False),
        ("{toPorts: [{ports: [{port: http}]}]}", False),
        ('{fromEntities: [host], toPorts: [{ports: [{port: "80"}]}]}', False),
        ("{fromEntities: [host]}", False),
        ("{icmps: [{fields: [{type: 8}]}]}", False),
        ("{}", False),
    ],
)
def test_a_plain_allow_beside_http_rules_is_reported(other: str, shadows: bool) -> None:
    found = lint(spec(f"endpointSelector: {{}}, ingress: [{JUDGED}, {other}]"))
    codes = [f"{finding.code} {finding.field}" for finding in found]
    assert codes == (["YETT1019 spec.ingress[0].toPorts[0].rules.http"] if shadows else [])


def test_every_code_is_in_the_table_of_the_module_once() -> None:
    source = yett_policy.lint.__doc__ or ""
    codes = [line.split("|")[1].strip() for line in source.splitlines() if line.startswith("| YETT")]
    assert codes == sorted(set(codes))
    assert len(codes) == 27


def test_messages_are_one_line_each() -> None:
    for finding in lint(http("{path: /a/, host: a.test, method: get}")):
        assert "\n" not in finding.message
        assert finding.message
