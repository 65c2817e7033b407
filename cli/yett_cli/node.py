"""Which node's loader a command asks: one by its socket, or those of a lab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from yett_cli.errors import EXIT_USAGE, CommandError
from yett_lab import access
from yett_lab.nodeapi import NodeApi, NodeError
from yett_lab.paths import Paths, running

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SOCKET = Path("/run/yett/loader.sock")
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Node:
    """A node to ask."""

    name: str
    api: NodeApi


def options(function: F) -> F:
    """`--lab` and `--api`."""
    function = click.option(
        "--lab",
        "lab_name",
        metavar="LAB",
        envvar="YETT_LAB",
        help="Ask a lab; default: the only one running.",
    )(function)
    return click.option(
        "--api",
        "socket",
        metavar="SOCKET",
        envvar="YETT_API",
        help=f"Ask the loader behind a Unix socket; default without a lab: {DEFAULT_SOCKET}.",
    )(function)


def choose(lab_name: str | None, socket: str | None) -> list[Node]:
    """The nodes that are meant."""
    if socket is not None:
        if lab_name:
            raise click.UsageError("--lab and --api exclude each other; give one")
        return [Node("node", NodeApi(Path(socket)))]
    if not lab_name and not running() and DEFAULT_SOCKET.exists():
        return [Node("node", NodeApi(DEFAULT_SOCKET))]
    paths = Paths(access.choose(lab_name or None))
    return [Node(node, NodeApi(paths.api(node))) for node in access.load(paths).nodes]


def endpoints(nodes: list[Node]) -> list[dict[str, Any]]:
    """All endpoints of the nodes, each with its node."""
    return [
        {"id": _id(item), "node": node.name, **item}
        for node in nodes
        for item in node.api.get("/v1/endpoints")["endpoints"]
    ]


def find(nodes: list[Node], reference: str) -> tuple[Node, dict[str, Any]]:
    """An endpoint by `namespace/pod`, pod name, or id; more than one match is an error."""
    known = endpoints(nodes)
    fits = [e for e in known if reference in {e["id"], f"{e['namespace']}/{e['pod']}"}]
    fits = fits or [e for e in known if e["pod"] == reference]
    if len(fits) == 1:
        return next(node for node in nodes if node.name == fits[0]["node"]), fits[0]
    names = ", ".join(f"{e['namespace']}/{e['pod']}" for e in (fits or known)) or "none"
    problem = "is ambiguous" if fits else "is not there"
    raise CommandError(f"endpoint {reference} {problem}; endpoints: {names}", EXIT_USAGE)


def ask(node: Node, resource: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    """What a node says about one of its endpoints."""
    try:
        answer: dict[str, Any] = node.api.get(f"{resource}/{endpoint['namespace']}/{endpoint['pod']}")
    except NodeError as error:
        if error.status == _NOT_FOUND:
            raise CommandError(str(error), EXIT_USAGE) from None
        raise
    return answer


def _id(endpoint: dict[str, Any]) -> str:
    """Short, for people: the interface's number, unique on its node."""
    return "-" if endpoint["ifindex"] is None else str(endpoint["ifindex"])


def labels(values: list[str]) -> str:
    """Labels as people write them: what every pod of the cluster has is left out."""
    hidden = ("k8s:io.cilium.", "k8s:io.kubernetes.pod.namespace=", "port:", "probe:")
    return ",".join(value.removeprefix("k8s:") for value in values if not value.startswith(hidden)) or "-"
