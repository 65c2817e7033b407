"""From a pydantic model to the structural schema of a CRD.

Objects keep fields that the schema does not name: the API server would drop them without a
word where a client does not ask for strict validation, and a peer lost to a typing error
makes "nobody else" of "these pods" into "anyone".  The webhook refuses them with a sentence,
and so does the operator if the webhook was away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from yett_operator.crd.docs import descriptions, summary
from yett_policy.source.fields import L7Only

Schema = dict[str, Any]
Bounds = Mapping[tuple[str, str], Schema]
"""(model, field) -> what is added to the schema of the field; `[]` after the field: of its items."""
Rules = Mapping[str, list[Schema]]
"""Model -> x-kubernetes-validations."""

_KEPT = ("enum", "minimum", "maximum", "maxLength", "minItems", "maxItems", "pattern", "format")


class SchemaError(ValueError):
    """A model that no structural schema can be made of, or one that lacks a bound or description."""


class Generator:
    """One kind: which fields, bounds and rules its models have."""

    def __init__(
        self,
        bounds: Bounds,
        rules: Rules,
        *,
        l7: bool = True,
        keep_unknown: bool = False,
        rules_on: bool = True,
    ) -> None:
        """`l7`: with the fields that only the kinds of yett have."""
        self._bounds = bounds
        self._rules = rules if rules_on else {}
        self._l7 = l7
        self._keep_unknown = keep_unknown

    def schema(self, model: type[BaseModel]) -> Schema:
        """Of a model and everything in it."""
        whole = model.model_json_schema(by_alias=True)
        return self._object(model, whole, whole.get("$defs", {}))

    def _object(self, model: type[BaseModel], raw: Schema, defs: Schema) -> Schema:
        texts = descriptions(model)
        parts = _models(model)
        properties: Schema = {}
        for name, info in model.model_fields.items():
            if not self._l7 and any(isinstance(mark, L7Only) for mark in info.metadata):
                continue
            alias = info.alias or name
            place = (model.__name__, name)
            if name not in texts:
                raise SchemaError(f"{model.__name__}.{name} has no description; write one under the field")
            value = self._value(place, raw["properties"][alias], defs, parts)
            properties[alias] = {"description": texts[name], **value}
        result: Schema = {"type": "object", "description": summary(model), "properties": properties}
        required = [name for name in raw.get("required", ()) if name in properties]
        if required:
            result["required"] = required
        if self._keep_unknown:
            result["x-kubernetes-preserve-unknown-fields"] = True
        if model.__name__ in self._rules:
            result["x-kubernetes-validations"] = self._rules[model.__name__]
        return result

    def _value(
        self, place: tuple[str, str], raw: Schema, defs: Schema, parts: Mapping[str, type[BaseModel]]
    ) -> Schema:
        extra = self._bounds.get(place, {})
        if "x-kubernetes-preserve-unknown-fields" in extra:
            return dict(extra)
        options = [option for option in raw.get("anyOf", [raw]) if option.get("type") != "null"]
        if sorted(option.get("type", "") for option in options) == ["integer", "string"]:
            return {"x-kubernetes-int-or-string": True, **extra}
        if len(options) != 1:
            raise SchemaError(
                f"{'.'.join(place)} has several types; structural schemas know only int-or-string"
            )
        (raw,) = options
        if "$ref" in raw:
            name = raw["$ref"].rpartition("/")[2]
            return self._object(parts[name], defs[name], defs) | extra
        if "const" in raw:
            raw = {"type": "string", "enum": [raw["const"]]}
        result: Schema = {"type": raw["type"]} | {key: raw[key] for key in _KEPT if key in raw} | extra
        model, field = place
        if raw["type"] == "array":
            result["items"] = self._value((model, f"{field}[]"), raw["items"], defs, parts)
        elif raw["type"] == "object":
            result["additionalProperties"] = self._value(
                (model, f"{field}[]"), raw["additionalProperties"], defs, parts
            )
        self._check_bounded(place, result)
        return result

    def _check_bounded(self, place: tuple[str, str], schema: Schema) -> None:
        wanted = {"string": {"maxLength", "enum"}, "array": {"maxItems"}, "object": {"maxProperties"}}
        if not wanted.get(schema["type"], {"type"}) & schema.keys():
            raise SchemaError(f"{'.'.join(place)} has no bound; name one in bounds.py")


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Models that the fields of a model speak of."""
    found: dict[str, type[BaseModel]] = {}
    for info in model.model_fields.values():
        todo: list[Any] = [info.annotation]
        while todo:
            annotation = todo.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found[annotation.__name__] = annotation
            todo += get_args(annotation)
    return found
