"""From a parsed YAML document to policies, or to one sentence about what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from yett_policy.errors import PolicyError
from yett_policy.policy import Policy
from yett_policy.source import cilium, kubernetes, read_cilium, read_kubernetes
from yett_policy.source.fields import CILIUM

KINDS: Mapping[str, tuple[str, bool]] = {
    "L7Policy": ("yett.dev/v1alpha1", True),
    "ClusterL7Policy": ("yett.dev/v1alpha1", False),
    "CiliumNetworkPolicy": ("cilium.io/v2", True),
    "CiliumClusterwideNetworkPolicy": ("cilium.io/v2", False),
    "NetworkPolicy": ("networking.k8s.io/v1", True),
}
"""Kind -> apiVersion, and whether it lives in a namespace."""

Model = cilium.Document | kubernetes.Document


def is_policy(obj: object) -> bool:
    """Whether an object is meant to be a policy, by its kind."""
    return isinstance(obj, dict) and obj.get("kind") in KINDS


def source_of(obj: Mapping[str, Any]) -> str:
    """`Kind/namespace/name` of an object that has a name."""
    kind = str(obj.get("kind", ""))
    metadata = obj.get("metadata") or {}
    if KINDS.get(kind, ("", True))[1]:
        return f"{kind}/{metadata.get('namespace') or 'default'}/{metadata.get('name')}"
    return f"{kind}/{metadata.get('name')}"


def parse_policy(obj: object) -> list[Policy]:
    """The policies of one object: one, or one for each of `specs`.

    Raises PolicyError at the first field that is wrong or not supported (`others` has the
    rest); then nothing of the object may be applied.
    """
    return read(parse_model(obj))


def parse_model(obj: object) -> Model:
    """The object, checked field by field; raises PolicyError."""
    if not isinstance(obj, dict):
        raise PolicyError(
            "", f"is not a Kubernetes object but {_type_name(obj)}; write apiVersion, kind, metadata and spec"
        )
    kind = obj.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise PolicyError("kind", f"{kind!r} is not a policy; it must be one of {', '.join(KINDS)}")
    version, namespaced = KINDS[kind]
    if obj.get("apiVersion") != version:
        raise PolicyError("apiVersion", f"{obj.get('apiVersion')!r} is not that of {kind}; write {version}")
    try:
        if kind == "NetworkPolicy":
            return kubernetes.Document.model_validate(obj)
        model = cilium.Document.model_validate(obj, context=CILIUM if version == "cilium.io/v2" else None)
    except ValidationError as error:
        raise _policy_error(
            error, kubernetes.Document if kind == "NetworkPolicy" else cilium.Document
        ) from None
    if not namespaced and model.metadata.namespace:
        raise PolicyError("metadata.namespace", f"{kind} has no namespace; remove it")
    return model


def read(model: Model) -> list[Policy]:
    """The policies that a checked object states."""
    if isinstance(model, kubernetes.Document):
        namespace = model.metadata.namespace or "default"
        source = f"{model.kind}/{namespace}/{model.metadata.name}"
        return [read_kubernetes.read(model.spec, source=source, namespace=namespace)]
    namespaced = KINDS[model.kind][1]
    scope = (model.metadata.namespace or "default") if namespaced else None
    source = "/".join(filter(None, (model.kind, scope, model.metadata.name)))
    places = [("", model.spec)] if model.spec is not None else []
    places += [(f"specs[{i}].", spec) for i, spec in enumerate(model.specs or ())]
    created = model.metadata.created
    return [
        read_cilium.read(spec, source=source, namespace=scope, place=place, index=index, created=created)
        for index, (place, spec) in enumerate(places)
    ]


def _policy_error(error: ValidationError, model: type[BaseModel]) -> PolicyError:
    errors = [PolicyError(*_explain(detail, model)) for detail in error.errors(include_url=False)]
    errors[0].others = tuple(errors[1:])
    return errors[0]


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    context = detail.get("ctx", {})
    field = _path(detail["loc"])
    below = context.get("field", "")
    field = f"{field}.{below}" if field and below else field or below
    value = detail["input"]
    match detail["type"]:
        case "refused":
            return field, str(context["message"])
        case "extra_forbidden":
            name = str(detail["loc"][-1])
            known = sorted(_fields_at(detail["loc"][:-1], model))
            near = difflib.get_close_matches(name, known, 1, 0.7)
            return field, "unknown field; " + (f"did you mean {near[0]}?" if near else "remove it")
        case "missing":
            return field, "is required"
        case "literal_error":
            return field, f"{_show(value)} is not one of {context['expected']}".replace(" or ", ", ")
        case "string_type":
            quoted = f'; put it in quotes: "{value}"' if isinstance(value, int | float | bool) else ""
            return field, f"must be a string, not {_type_name(value)}{quoted}"
        case "string_pattern_mismatch":
            return field, f"{_show(value)} is not a valid name (lower-case letters, digits and '-')"
        case "string_too_long":
            return field, f"is longer than {context['max_length']} characters"
        case "too_long":
            return field, f"has {context['actual_length']} items; at most {context['max_length']} are allowed"
        case "bool_type":
            return field, f"must be true or false, not {_show(value)}"
        case "int_type" | "int_parsing":
            return field, f"must be a whole number, not {_show(value)}"
        case "greater_than_equal":
            return field, f"{_show(value)} is too small; at least {context['ge']}"
        case "less_than_equal":
            return field, f"{_show(value)} is too large; at most {context['le']}"
        case "list_type":
            return field, f"must be a list, not {_type_name(value)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return field, f"must be an object with fields, not {_type_name(value)}"
        case _:
            return field, detail["msg"]


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path


def _fields_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> set[str]:
    """Names of the fields that the object at a place may have."""
    for part in loc:
        if isinstance(part, int):
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        inner = _model_in(fields[part].annotation) if part in fields else None
        if inner is None:
            return set()
        model = inner
    return {info.alias or name for name, info in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _type_name(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__
