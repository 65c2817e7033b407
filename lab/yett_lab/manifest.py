"""Manifests: YAML documents with the place they came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from yett_lab.errors import InputError

# By kind alone: a policy with a mistyped apiVersion is to be refused, not left out.
POLICY_KINDS = {
    "L7Policy",
    "ClusterL7Policy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "NetworkPolicy",
}
CLUSTER_POLICIES = {"ClusterL7Policy", "CiliumClusterwideNetworkPolicy"}
OBJECT_KINDS = {("", "Pod"), ("", "Service"), ("", "Namespace"), ("apps", "Deployment")}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as a user wrote it."""

    file: str
    document: int
    """Number within the file, from 1."""
    body: dict[str, Any]

    @property
    def group(self) -> str:
        version = str(self.body.get("apiVersion", ""))
        return version.rpartition("/")[0]

    @property
    def kind(self) -> str:
        return str(self.body.get("kind", ""))

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Empty for objects of the whole cluster."""
        if self.kind in CLUSTER_POLICIES or self.kind == "Namespace":
            return ""
        return str(self.body["metadata"].get("namespace") or "default")

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it the same object when applied again."""
        return (self.group, self.kind, self.namespace, self.name)

    @property
    def is_policy(self) -> bool:
        return self.kind in POLICY_KINDS

    @property
    def is_known(self) -> bool:
        return self.is_policy or (self.group, self.kind) in OBJECT_KINDS

    @property
    def label(self) -> str:
        """For messages: `pod/client`."""
        return f"{self.kind.lower()}/{self.name}"

    def place(self, field: str = "") -> str:
        """For errors: `app.yaml: document 2: spec.ports`."""
        where = f"{self.file}: document {self.document}" if self.document > 1 else self.file
        return f"{where}: {field}" if field else where


def read_files(files: Iterable[str]) -> list[Manifest]:
    """All objects of files, directories (their *.yaml and *.yml) and `-`, in order."""
    found: list[Manifest] = []
    for name in files:
        for path in _expand(name):
            found.extend(parse(_text(path), path))
    return found


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the C one, where it was built
    """Refuses what kubectl refuses too: a key that occurs twice, of which YAML would keep the last."""

    # `2026-01-01` without quotes is text in a manifest, not a date.
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to configure a loader
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} occurs twice; remove one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


def parse(text: str, file: str) -> Iterator[Manifest]:
    """The objects of one YAML text; Lists are opened, empty documents skipped."""
    try:
        bodies = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        remedy = "" if ";" in (error.problem or "") else "; correct the indentation or quotes"
        raise InputError(f"{where}: not YAML: {error.problem}{remedy}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not YAML: {' '.join(str(error).split())[:200]}") from None
    for number, body in enumerate(bodies, 1):
        if body is None:
            continue
        first = Manifest(file, number, body)
        items = _items(first)
        yield from ([_checked(first)] if items is None else [_checked(m) for m in items])


def _items(manifest: Manifest) -> list[Manifest] | None:
    body: object = manifest.body
    if not isinstance(body, dict) or body.get("kind") != "List":
        return None
    items = body.get("items")
    if not isinstance(items, list):
        raise InputError(f"{manifest.place('items')}: expected a list of objects")
    return [Manifest(manifest.file, manifest.document, item) for item in items]


def _checked(manifest: Manifest) -> Manifest:
    """Complain unless it is an object with kind and name."""
    body: object = manifest.body
    if not isinstance(body, dict):
        raise InputError(
            f"{manifest.place()}: expected an object with apiVersion, kind and metadata, got {_kind(body)}"
        )
    body = cast("dict[str, Any]", body)
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise InputError(f"{manifest.place(field)}: expected a string, got {_kind(body.get(field))}")
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        raise InputError(
            f"{manifest.place('metadata')}: expected a mapping with `name`, got {_kind(metadata)}"
        )
    if not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise InputError(
            f"{manifest.place('metadata.name')}: expected a string, got {_kind(metadata.get('name'))}"
        )
    namespace = metadata.get("namespace")
    if namespace is not None and not isinstance(namespace, str):
        raise InputError(f"{manifest.place('metadata.namespace')}: expected a string, got {_kind(namespace)}")
    return manifest


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return f"{value!r}"[:60]


def _expand(name: str) -> list[str]:
    path = Path(name)
    if name == "-" or not path.is_dir():
        return [name]
    files = sorted(str(p) for p in path.iterdir() if p.suffix in {".yaml", ".yml"})
    if not files:
        raise InputError(f"{name}: no *.yaml file in this directory; name a file")
    return files


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}; check the path") from None
