"""Descriptions of fields: the string under each field of a model, as its source has it."""

from __future__ import annotations

import ast
import inspect
import textwrap

from pydantic import BaseModel


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Python name of a field -> its description, those of base classes included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found |= _own(cls)
    return found


def summary(model: type[BaseModel]) -> str:
    """The model's own docstring, in one line."""
    return _line(model.__doc__ or "")


def _own(cls: type[BaseModel]) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    if not isinstance(node, ast.ClassDef):
        raise TypeError(f"{cls} is not a class statement")
    found = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        match (field, after):
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as text)),
            ):
                found[name] = _line(text)
    return found


def _line(text: str) -> str:
    return " ".join(text.split())
