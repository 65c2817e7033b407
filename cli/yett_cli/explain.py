"""`yettctl explain`: who may talk to whom, and which rule says so."""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import urlsplit

import click

from yett_cli import escape, judge, output, party, reasons
from yett_cli.errors import EXIT_FINDING
from yett_cli.judge import Answer, Side
from yett_cli.party import Destination
from yett_lab import access, lab, manifest, parse, plan
from yett_lab.compile import compile_objects
from yett_lab.objects import Objects
from yett_lab.paths import Paths, running
from yett_lab.state import State
from yett_policy.compiled import Compiled
from yett_policy.document import Verdict
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.http.rule import HttpRule, PathKind, Request
from yett_policy.policy import PROTOCOLS

_WORDS = {
    Verdict.ALLOW: "ALLOWED",
    Verdict.DENY: "DENIED",
    Verdict.AUDIT: "AUDIT",
    Verdict.REDIRECT: "REDIRECTED",
}
_COLOURS = {Verdict.ALLOW: "green", Verdict.DENY: "red", Verdict.AUDIT: "yellow", Verdict.REDIRECT: "cyan"}


@click.command()
@click.option(
    "--from", "source", required=True, metavar="POD|ADDRESS", help="Who sends: namespace/pod, or an address."
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="POD[:PORT]|svc/NAME|ADDRESS:PORT",
    help="Who receives; the port may be left out where the pod names one only.",
)
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; may be repeated."
)
@click.option("--protocol", type=click.Choice(list(PROTOCOLS)), default="TCP", show_default=True)
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="Pods and policies; may be repeated."
)
@click.option(
    "--lab", "name", metavar="LAB", envvar="YETT_LAB", help="Ask a running lab; with -f: as if applied there."
)
@output.option("text", "json")
@click.argument("request", nargs=-1, metavar="[METHOD TARGET]")
def explain(
    source: str,
    target: str,
    headers: tuple[str, ...],
    protocol: str,
    files: tuple[str, ...],
    name: str | None,
    output: str,
    request: tuple[str, ...],
) -> None:
    """Who may talk to whom, and which rule says so.

    Both sides are asked: the sender's egress and the receiver's ingress; requests are judged by the
    same compiled tables that the kernel runs.  Exit code 0: it passes; 1: it is denied.

    \b
    Examples:
      yettctl explain --from client --to api-server GET /private -f app.yaml -f l7-policy.yaml
      yettctl explain --from default/client --to svc/api-service:80 GET http://api-service/public
      yettctl explain --from 192.0.2.7 --to default/api-server:80 POST /orders -H 'X-Role: admin' -f k8s/
    """
    if len(request) not in {0, 2}:
        raise click.UsageError("write a request as METHOD TARGET, such as GET /public")
    compiled, objects = _facts(files, name)
    sender = party.source(source, objects)
    receiver = party.destination(target, objects, protocol)
    asked = _request(request, headers, receiver.host) if request else None
    answer = judge.answer(compiled, sender, receiver.party, PROTOCOLS[protocol], receiver.port, asked)
    if output == "json":
        _print_json(answer, receiver, protocol, asked)
    else:
        _print_text(answer, receiver, protocol, asked)
    if answer.verdict is Verdict.DENY:
        sys.exit(EXIT_FINDING)


def _facts(files: tuple[str, ...], name: str | None) -> tuple[Compiled, Objects]:
    """From files alone, from a lab, or from a lab as it would be with the files applied."""
    new = manifest.read_files(files)
    if name is None and (files or not running()):
        if not files:
            raise click.UsageError("say what to ask: -f FILE... or --lab NAME")
        have = State("explain", ["node-1"])
    else:
        have = access.load(Paths(access.choose(name)))
    merged, report = lab.merge(have.manifests, new)
    objects, warnings = parse.objects(merged, None)
    for warning in (*report.warnings, *warnings):
        output.warn(warning)
    placed = plan.make(have, objects).state
    return compile_objects(placed, objects, merged), objects


def _request(words: tuple[str, ...], headers: tuple[str, ...], host: str) -> Request:
    method, target = words
    if target.startswith("http://"):
        url = urlsplit(target)
        host = url.netloc
        target = target.removeprefix("http://").removeprefix(url.netloc) or "/"
        target = target.partition("#")[0]  # a client keeps the fragment to itself
    lines = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.UsageError(f"-H {header!r}: write 'NAME: VALUE'")
        lines.append((os.fsencode(name), os.fsencode(value.strip(" \t"))))
    if not any(name.lower() == b"host" for name, _ in lines):
        lines.insert(0, (b"Host", os.fsencode(host)))
    return Request(os.fsencode(method), os.fsencode(target), tuple(lines))


def _print_text(answer: Answer, receiver: Destination, protocol: str, asked: Request | None) -> None:
    through = f" through {receiver.through}" if receiver.through else ""
    what = "" if asked is None else f", {escape.text(asked.method)} {escape.text(asked.target)}"
    sender = escape.text(answer.egress.party.name)
    click.echo(
        f"{sender} -> {escape.text(answer.ingress.party.name)}:{receiver.port}/{protocol}{through}{what}\n"
    )
    for side in answer.sides:
        _print_side(side, asked)
    word = output.paint(_WORDS[answer.verdict], _COLOURS[answer.verdict])
    more = ""
    if asked is None and answer.verdict is Verdict.ALLOW and any(side.rules for side in answer.sides):
        more = "; each request is judged by the HTTP rules above (add METHOD TARGET)"
    click.echo(f"\n{word}{more}")


def _print_side(side: Side, asked: Request | None) -> None:
    name = escape.text(side.party.name)
    if side.decision is None:
        click.echo(f"{side.direction:<8} {name}: ALLOWED, not a pod that yett governs")
        return
    word = output.paint(_WORDS[side.decision.verdict], _COLOURS[side.decision.verdict])
    click.echo(f"{side.direction:<8} {name}: {word}, {reasons.text(side.decision.reason.name)}")
    if side.decision.rule != "none":
        click.echo(f"{'':<8}   rule    {escape.text(side.decision.rule)}")
    if side.ruleset is not None:
        click.echo(f"{'':<8}   engine  {side.ruleset.engine}: {side.ruleset.engine_reason}")
        if asked is None or side.decision.verdict is not Verdict.ALLOW:
            for rule in side.rules:
                click.echo(f"{'':<8}   {rule.action:<7} {escape.text(_conditions(rule))}")
        elif side.decision.passes:
            for change in side.changes:
                click.echo(f"{'':<8}   change  {escape.text(_change(change))}")


def _conditions(rule: HttpRule) -> str:
    path = {PathKind.REGEX: "path", PathKind.PREFIX: "pathPrefix", PathKind.EXACT: "pathExact"}[
        rule.path_kind
    ]
    parts = [("method", rule.method), (path, rule.path), ("host", rule.host)]
    shown = [f"{name} {value}" for name, value in parts if value is not None]
    shown += [f"header {header.name} {header.op} {header.value}".rstrip() for header in rule.headers]
    shown += [f"then {_change(change)}" for change in rule.changes]
    return ", ".join(shown) or "every request"


def _change(change: HeaderChange) -> str:
    """Like `replace header authorization by secret default/token`."""
    joint = {ChangeOp.LOG: "unless", ChangeOp.ADD: "with", ChangeOp.DELETE: "but", ChangeOp.REPLACE: "by"}
    wanted = f" {joint[change.op]} {change.wanted}" if change.wanted else " unless it is there"
    return f"{change.op} header {change.name}{wanted}"


def _print_json(answer: Answer, receiver: Destination, protocol: str, asked: Request | None) -> None:
    output.as_json(
        {
            "verdict": _WORDS[answer.verdict],
            "source": answer.egress.party.name,
            "destination": answer.ingress.party.name,
            "port": receiver.port,
            "protocol": protocol,
            "through": receiver.through,
            "request": None
            if asked is None
            else {"method": asked.method.decode("latin-1"), "target": asked.target.decode("latin-1")},
            "egress": _side_json(answer.egress),
            "ingress": _side_json(answer.ingress),
        }
    )


def _side_json(side: Side) -> dict[str, Any] | None:
    if side.decision is None:
        return None
    return {
        "verdict": _WORDS[side.decision.verdict],
        "reason": side.decision.reason.name,
        "rule": side.decision.rule,
        "identity": side.party.subject,
        "labels": list(side.party.labels),
        "engine": None if side.ruleset is None else str(side.ruleset.engine),
        "ruleset": None if side.ruleset is None else side.ruleset.digest,
        "changes": [
            {"header": item.name, "mismatch": item.op.upper(), "value": item.value, "secret": item.secret}
            for item in side.changes
        ],
    }
