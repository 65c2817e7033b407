"""`yettctl status`: whether nodes enforce what they should."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from yett_cli import escape, node, output
from yett_cli.errors import EXIT_FINDING, CommandError
from yett_cli.node import Node
from yett_lab.nodeapi import NodeError

_POLL_SECONDS = 0.2


@click.command()
@node.options
@click.option("--wait", is_flag=True, help="Wait until everything is in force.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@output.option("text", "json")
def status(lab_name: str | None, socket: str | None, wait: bool, timeout: float, output: str) -> None:
    """Whether the nodes enforce what they should.

    Exit code 0: everything is in force; 1: something is not (the output says what); 3: a node does
    not answer.

    \b
    Examples:
      yettctl status
      yettctl status --wait --timeout 10 -o json
    """
    nodes = node.choose(lab_name, socket)
    deadline = time.monotonic() + timeout
    while True:
        answers = [(item, _ask(item)) for item in nodes]
        good = all(not problems(answer) for _, answer in answers)
        if good or not wait or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    if output == "json":
        _json(answers)
    else:
        for item, answer in answers:
            _print(item, answer)
    if any("unreachable" in answer for _, answer in answers):
        raise CommandError("a node does not answer; see above")
    if not good:
        sys.exit(EXIT_FINDING)


def problems(answer: dict[str, Any]) -> list[str]:
    """What is not as it should be, one sentence each."""
    if "unreachable" in answer:
        return [str(answer["unreachable"])]
    found = [str(answer["error"])] if answer["error"] else []
    if answer["snapshot"] is None:
        found.append("no policy document has arrived yet")
    endpoints = answer["endpoints"]
    found += [f"endpoint {name} waits: {reason}" for name, reason in endpoints["waiting"].items()]
    denied = endpoints["total"] - endpoints["ready"] - len(endpoints["waiting"])
    if denied:
        found.append(f"{denied} endpoints have no policy document: everything is denied there")
    found += [
        f"ruleset {ruleset['digest'][:12]} is not enforced: {ruleset['engine_reason']}"
        for ruleset in answer["rulesets"]
        if not ruleset["enforced"]
    ]
    return found


def _ask(item: Node) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = item.api.get("/v1/status")
    except NodeError as error:
        return {"unreachable": str(error)}
    return answer


def _json(answers: list[tuple[Node, dict[str, Any]]]) -> None:
    output.as_json([{"name": item.name, "problems": problems(answer), **answer} for item, answer in answers])


def _print(item: Node, answer: dict[str, Any]) -> None:
    found = problems(answer)
    word = output.paint("OK", "green") if not found else output.paint("NOT OK", "red")
    click.echo(f"{item.name}: {word}")
    for problem in found:
        click.echo(f"  {output.paint('!', 'red')} {escape.text(problem)}")
    if "unreachable" in answer:
        return
    endpoints, snapshot = answer["endpoints"], answer["snapshot"]
    rows = [
        ["version", f"{answer['version']} (ABI {answer['abi']}, kernel {answer['kernel']})"],
        [
            "endpoints",
            f"{endpoints['ready']}/{endpoints['total']} ready, {len(answer['attached'])} interfaces",
        ],
        ["documents", str(len(answer["documents"]))],
        ["rulesets", f"{sum(r['enforced'] for r in answer['rulesets'])}/{len(answer['rulesets'])} enforced"],
        ["records", f"{answer['records']['seen']} seen, {answer['records']['suppressed']} left out"],
    ]
    if snapshot is not None:
        ago = max(0.0, time.time() - snapshot["applied_at"])
        rows.append(
            ["applied", f"{ago:.0f} s ago in {snapshot['seconds'] * 1000:.0f} ms (epoch {answer['epoch']})"]
        )
    for name, text in rows:
        click.echo(f"  {name:<10} {escape.text(text)}")
