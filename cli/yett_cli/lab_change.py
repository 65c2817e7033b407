"""`yettctl lab up`, `apply`, `delete`: what changes a lab's objects."""

from __future__ import annotations

import click

from yett_cli import escape, lab, output
from yett_lab import access, image, manifest
from yett_lab import lab as labs
from yett_lab.lab import Report
from yett_lab.paths import Paths


@click.command()
@lab.files_option(required=False)
@click.option("--nodes", default=1, show_default=True, metavar="N", help="Number of nodes.")
@click.option(
    "--name",
    "--lab",
    "name",
    default=lab.DEFAULT_NAME,
    show_default=True,
    metavar="LAB",
    envvar="YETT_LAB",
    help="Name of the lab.",
)
@lab.images_option
def up(files: tuple[str, ...], nodes: int, name: str, images: tuple[str, ...]) -> None:
    """Start a lab, with the objects of manifests.

    Known images have stand-ins: mendhak/http-https-echo, appropriate/curl, curlimages/curl, busybox,
    nicolaka/netshoot, nginx.  Others need --image.

    \b
    Examples:
      yettctl lab up -f app.yaml
      yettctl lab up -f k8s/ --nodes 2 --image 'shop/api=python3 -m http.server 80'
      yettctl lab up --name ci -f app.yaml -f l7-policy.yaml
    """
    lab.need_root()
    manifests = manifest.read_files(files)
    report = labs.up(name, manifests, nodes=nodes, images=dict(map(image.parse_option, images)))
    _print(report)
    click.echo(f"lab {name} is up: {nodes} node{'s' if nodes > 1 else ''}")


@click.command("apply")
@lab.files_option(required=True)
@lab.name_option
@lab.images_option
def apply_(files: tuple[str, ...], name: str | None, images: tuple[str, ...]) -> None:
    """Create or change objects: pods, services, policies.

    Returns when the policies are in force on every node.  When any object is wrong, nothing is
    applied and the exit code is 2.

    \b
    Example:
      yettctl lab apply -f l7-policy.yaml
    """
    lab.need_root()
    manifests = manifest.read_files(files)
    _print(labs.apply(access.choose(name), manifests, dict(map(image.parse_option, images))))


@click.command()
@lab.files_option(required=False)
@lab.name_option
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.argument("target", nargs=-1, metavar="[KIND NAME]")
def delete(files: tuple[str, ...], name: str | None, namespace: str, target: tuple[str, ...]) -> None:
    """Delete objects, by file or by kind and name.

    \b
    Examples:
      yettctl lab delete -f l7-policy.yaml
      yettctl lab delete cnp api-l7-policy
    """
    words = target[0].split("/", 1) if len(target) == 1 else list(target)
    if len(words) not in {0, 2}:
        raise click.UsageError("write KIND NAME, such as `cnp api-l7-policy`")
    if not words and not files:
        raise click.UsageError("say what to delete: -f FILE, or KIND NAME")
    lab.need_root()
    chosen = access.choose(name)
    targets = manifest.read_files(files)
    if words:
        targets.append(access.find_object(access.load(Paths(chosen)), words[0], words[1], namespace))
    _print(labs.delete(chosen, targets))


def _print(report: Report) -> None:
    for warning in report.warnings:
        output.warn(warning)
    for change in report.changes:
        click.echo(escape.text(change))
