"""`yettctl lint`: what is wrong with policy files, or probably not meant.

The codes of single policies are in yett_policy.lint.  Of sets of files:

| code | of |
|---|---|
| YETT2001 | HTTP rules too complex for the kernel engine |
| YETT2002 | one policy twice in the files: the last would be in force |
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from yett_cli import escape, output
from yett_cli.errors import EXIT_FINDING, EXIT_USAGE, CommandError
from yett_lab import manifest
from yett_lab.manifest import Manifest
from yett_policy import budget
from yett_policy.errors import Finding, PolicyError, Severity
from yett_policy.http.compile import compile_tables
from yett_policy.http.errors import TooComplex
from yett_policy.lint import lint as lint_policy
from yett_policy.source.parse import parse_policy

REFUSED = "YETT0001"
_ORDER = [Severity.INFO, Severity.WARNING, Severity.ERROR]
_COLOURS = {Severity.INFO: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the policy that it is about."""

    manifest: Manifest
    finding: Finding


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR...")
@output.option("text", "json")
@click.option(
    "--threshold",
    type=click.Choice([str(severity) for severity in _ORDER]),
    default="warning",
    show_default=True,
    help="The least severity that makes the exit code 1.",
)
@click.option("--ignore", multiple=True, metavar="CODE", help="A code to leave out; may be repeated.")
def lint(files: tuple[str, ...], output: str, threshold: str, ignore: tuple[str, ...]) -> None:
    """Check policy files, offline.

    Every finding has a code, a severity, the field, and what to write instead.  Exit code 0: nothing
    at or above the threshold; 1: findings; 2: a policy would be refused, or a file cannot be read.

    \b
    Examples:
      yettctl lint policies/
      yettctl lint l7-policy.yaml -o json
      yettctl lint policies/ --threshold error --ignore YETT1017
    """
    manifests = [m for m in manifest.read_files(files) if m.is_policy]
    if not manifests:
        raise CommandError("no policy in these files; name files with policies", EXIT_USAGE)
    found = [item for item in check(manifests) if item.finding.code not in ignore]
    if output == "json":
        _print_json(found)
    else:
        _print_text(found, len(manifests))
    if any(item.finding.code == REFUSED for item in found):
        sys.exit(EXIT_USAGE)
    if any(_ORDER.index(item.finding.severity) >= _ORDER.index(Severity(threshold)) for item in found):
        sys.exit(EXIT_FINDING)


def check(manifests: Sequence[Manifest]) -> Iterator[Found]:
    """All findings, in the order of the files."""
    seen: dict[tuple[str, ...], Manifest] = {}
    for item in manifests:
        findings = lint_policy(item.body)
        for finding in findings:
            yield Found(item, finding)
        if not any(finding.code == REFUSED for finding in findings):
            for finding in _budget(item):
                yield Found(item, finding)
        first = seen.setdefault(item.key, item)
        if first is not item:
            message = (
                f"{item.label} is in {first.place()} too, and only the last counts; rename or remove one"
            )
            yield Found(item, Finding("YETT2002", Severity.WARNING, "metadata.name", message))


def _budget(item: Manifest) -> Iterator[Finding]:
    """HTTP rules that do not fit the kernel engine on their own."""
    try:
        policies = parse_policy(item.body)
    except PolicyError:  # lint has said so
        return
    for policy in policies:
        if policy.engine == "Sidecar":
            continue
        for field, spec in budget.alone(policy):
            if any(rule.changes for rule in spec.rules):  # the sidecar's, however simple
                continue
            try:
                compile_tables(spec)
            except TooComplex as error:
                message = f"too complex for the kernel: {error}; write simpler patterns"
                if policy.engine == "Kernel":
                    message = budget.too_complex(field, str(error)).message
                yield Finding("YETT2001", Severity.ERROR, field, message)


def _print_json(found: Sequence[Found]) -> None:
    output.as_json(
        [
            {
                "code": item.finding.code,
                "severity": item.finding.severity,
                "file": item.manifest.file,
                "document": item.manifest.document,
                "kind": item.manifest.kind,
                "namespace": item.manifest.namespace,
                "name": item.manifest.name,
                "field": item.finding.field,
                "message": item.finding.message,
            }
            for item in found
        ]
    )


def _print_text(found: Sequence[Found], policies: int) -> None:
    for item in found:
        finding = item.finding
        severity = output.paint(finding.severity, _COLOURS[finding.severity])
        place = escape.text(item.manifest.place(finding.field))
        click.echo(f"{severity} {finding.code} {place}: {escape.text(finding.message)}")
    count = f"{policies} polic{'y' if policies == 1 else 'ies'}"
    findings = f"{len(found)} finding{'' if len(found) == 1 else 's'}" if found else "no findings"
    click.echo(f"{count}, {findings}")
