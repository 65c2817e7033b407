"""Argo CD's health checks, in its own test layout, by the Lua that it has and without what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.argo import CHECKS as ROOT
from support.argo import health

KINDS = ("L7Policy", "ClusterL7Policy", "PolicyStatus")
CASES = [
    pytest.param(kind, case["inputPath"], case["healthStatus"], id=f"{kind}-{Path(case['inputPath']).stem}")
    for kind in KINDS
    for case in yaml.safe_load((ROOT / kind / "health_test.yaml").read_text())["tests"]
]


@pytest.mark.parametrize(("kind", "path", "expected"), CASES)
def test_health_is_as_expected(kind: str, path: str, expected: dict[str, str]):
    obj = yaml.safe_load((ROOT / kind / path).read_text())
    assert obj["kind"] == kind
    assert health(kind, obj) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_has_a_test_and_every_health_is_met(kind: str):
    tested = {path for each, path, _ in (case.values for case in CASES) if each == kind}
    assert tested == {f"testdata/{path.name}" for path in (ROOT / kind / "testdata").iterdir()}
    found = {expected["status"] for each, _, expected in (case.values for case in CASES) if each == kind}
    assert found == {"Healthy", "Progressing", "Degraded"}


def test_both_policy_kinds_have_one_check():
    assert (ROOT / "L7Policy/health.lua").read_text() == (ROOT / "ClusterL7Policy/health.lua").read_text()


def test_the_text_of_a_message_decides_nothing():
    obj = yaml.safe_load((ROOT / "L7Policy/testdata/ready.yaml").read_text())
    for condition in obj["status"]["conditions"]:
        condition["message"] = "refused, degraded, failed"
    assert health("L7Policy", obj)["status"] == "Healthy"
