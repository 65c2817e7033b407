"""Argo CD's health checks, by the Lua that it has and without what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lupa import lua51

CHECKS = Path(__file__).resolve().parents[2] / "manifests/argocd/resource_customizations/yett.dev"


def health(kind: str, obj: dict[str, Any]) -> dict[str, str]:
    """Status and message for an object."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    for library in ("io", "os", "string", "debug", "package", "require", "python"):
        lua.execute(f"{library} = nil")
    lua.globals().obj = _table(lua, obj)
    return dict(lua.execute((CHECKS / kind / "health.lua").read_text()))


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, each) for key, each in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, each) for each in value])
    return value
