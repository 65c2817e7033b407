"""`yettctl bpf`: what the kernel's maps hold, read from the kernel."""

from __future__ import annotations

from typing import Any

import click

from yett_cli import node, output, record


@click.group()
def bpf() -> None:
    """What the kernel's maps hold: policy, connections."""


@bpf.group()
def policy() -> None:
    """The policy that the kernel enforces for an endpoint."""


@bpf.group()
def ct() -> None:
    """The connections that the kernel tracks."""


@policy.command("get")
@node.options
@output.option("table", "json")
@click.argument("endpoint", metavar="ENDPOINT")
def get(endpoint: str, lab_name: str | None, socket: str | None, output: str) -> None:
    """Print the policy map of an endpoint, in the order of look-up: the first entry that fits decides.

    ENDPOINT is namespace/pod, a pod's name, or a number of `yettctl endpoint list`.

    \b
    Examples:
      yettctl bpf policy get default/api-server
      yettctl bpf policy get api-server -o json
    """
    found, about = node.find(node.choose(lab_name, socket), endpoint)
    answer = node.ask(found, "/v1/policy", about)
    if output == "json":
        _json(answer)
        return
    _policy_table(answer)


@ct.command("list")
@node.options
@output.option("table", "json")
@click.argument("endpoint", metavar="ENDPOINT|global")
def list_(endpoint: str, lab_name: str | None, socket: str | None, output: str) -> None:
    """List the connections of an endpoint, or of all with `global`.

    \b
    Examples:
      yettctl bpf ct list api-server
      yettctl bpf ct list global -o json
    """
    nodes = node.choose(lab_name, socket)
    if endpoint == "global":
        names = {item.name: item for item in nodes}
        asked = [(names[e["node"]], e) for e in node.endpoints(nodes)]
    else:
        asked = [node.find(nodes, endpoint)]
    flows = [flow for place, about in asked for flow in node.ask(place, "/v1/flows-table", about)["flows"]]
    flows.sort(key=lambda flow: float(flow["idle_seconds"]))
    if output == "json":
        _json(flows)
        return
    _flow_table(flows)


def _json(value: object) -> None:
    output.as_json(value)


def _policy_table(answer: dict[str, Any]) -> None:
    engines = {digest: ruleset["engine"] for digest, ruleset in answer["rulesets"].items()}
    header = ["POLICY", "DIRECTION", "PEER (LABELS)", "PORT/PROTO", "ENGINE", "HITS", "REASON", "RULE"]
    output.table(
        header,
        [
            [
                str(entry["verdict"]).capitalize(),
                str(entry["direction"]).capitalize(),
                _peer(entry),
                _ports(entry),
                engines.get(entry["ruleset"], "-"),
                "-" if entry["rule"] == "none" else str(entry["hits"]),
                str(entry["reason"]),
                str(entry["rule"]) or "-",
            ]
            for entry in answer["entries"]
        ],
    )
    for digest, ruleset in answer["rulesets"].items():
        click.echo(f"\nHTTP rules {digest[:12]}, {ruleset['engine']} ({ruleset['engine_reason']}):")
        rules = [[f"  {rule}"] for rule in ruleset["rules"]]
        output.table(["  RULE"], [*rules, [f"  {ruleset['default_rule']} (what no rule allows)"]])


def _peer(entry: dict[str, Any]) -> str:
    if not entry["peer"]:
        return "any"
    return f"{entry['peer']} ({node.labels(entry['peer_labels'])})"


def _ports(entry: dict[str, Any]) -> str:
    return "any" if entry["protocol"] == "any" else f"{entry['ports']}/{entry['protocol']}"


def _flow_table(flows: list[dict[str, Any]]) -> None:
    header = [
        "PROTO",
        "DIRECTION",
        "SOURCE",
        "DESTINATION",
        "VERDICT",
        "REASON",
        "REQUESTS",
        "IDLE",
        "FLAGS",
        "RULE",
    ]
    rows = []
    for flow in flows:
        ends = [record.end(flow[side]).text for side in ("source", "destination")]
        verdict = record.VERDICTS.get(flow["verdict"], str(flow["verdict"]))
        reason = str(flow["reason"])
        if "poisoned" in flow["flags"]:  # the connection was allowed, a request in it was not
            verdict, reason = record.VERDICTS["deny"], "POISONED"
        counts = [str(flow["requests"]), f"{flow['idle_seconds']:.1f}s"]
        place = [str(flow["protocol"]), str(flow["direction"]).capitalize()]
        why = [reason, *counts, ",".join(flow["flags"]) or "-", str(flow["rule"]) or "-"]
        rows.append([*place, *ends, verdict, *why])
    output.table(header, rows)
