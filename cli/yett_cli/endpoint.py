"""`yettctl endpoint`: the pods that nodes enforce policy for."""

from __future__ import annotations

import click

from yett_cli import node, output


@click.group()
def endpoint() -> None:
    """The pods that a node enforces policy for."""


@endpoint.command("list")
@node.options
@output.option("table", "json")
def list_(lab_name: str | None, socket: str | None, output: str) -> None:
    """List endpoints: pod, identity, addresses, whether its policy is in force.

    \b
    Examples:
      yettctl endpoint list
      yettctl endpoint list -o json
    """
    rows = node.endpoints(node.choose(lab_name, socket))
    if output == "json":
        _json(rows)
        return
    _table(rows)


def _json(rows: list[dict[str, object]]) -> None:
    output.as_json([{**row, "name": row["pod"]} for row in rows])


def _table(rows: list[dict[str, object]]) -> None:
    header = ["ENDPOINT", "NODE", "NAMESPACE", "POD", "IDENTITY", "STATE", "IPV4", "IPV6", "LABELS"]
    cells = []
    for row in rows:
        addresses = [str(address) for address in _list(row["addresses"])]
        v4 = next((a for a in addresses if ":" not in a), "-")
        v6 = next((a for a in addresses if ":" in a), "-")
        state = f"{row['state']} ({row['reason']})" if row["reason"] else str(row["state"])
        pod = [str(row[key]) for key in ("id", "node", "namespace", "pod", "identity")]
        cells.append([*pod, state, v4, v6, node.labels([str(label) for label in _list(row["labels"])])])
    output.table(header, cells)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
