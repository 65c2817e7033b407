"""Argo CD's health checks, in its own test layout, by the Lua that it has and without what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = REPOSITORY / "manifests/argocd/resource_customizations/yett.dev"
KINDS = ("L7Policy", "ClusterL7Policy", "PolicyStatus")
CASES = [
    pytest.param(kind, case["inputPath"], case["healthStatus"], id=f"{kind}-{Path(case['inputPath']).stem}")
    for kind in KINDS
    for case in yaml.safe_load((ROOT / kind / "health_test.yaml").read_text())["tests"]
]


def health(kind: str, obj: dict[str, Any]) -> dict[str, str]:
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    for library in ("io", "os", "string", "debug", "package", "require", "python"):
        lua.execute(f"{library} = nil")
    lua.globals().obj = _table(lua, obj)
    return dict(lua.execute((ROOT / kind / "health.lua").read_text()))


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, each) for key, each in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, each) for each in value])
    return value


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
