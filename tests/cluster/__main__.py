"""The command line of scripts/cluster."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from cluster.box import Box
from cluster.cluster import Cluster
from cluster.paths import Paths
from cluster.progress import say
from cluster.status import describe
from yett_lab.errors import LabError

_AS_GIVEN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""From the first word on all is another program's, `--` included."""


@click.group(help="A Kubernetes of real components on this machine, in namespaces, without Docker.")
@click.option("--name", default="yett", envvar="YETT_CLUSTER", show_default=True, help="Which cluster.")
@click.pass_context
def main(context: click.Context, name: str) -> None:
    context.obj = Cluster(Paths(name))


@main.command(help="Build what is missing and start everything.")
@click.option("--nodes", type=click.IntRange(1, 50), default=3, show_default=True)
@click.pass_obj
def up(cluster: Cluster, nodes: int) -> None:
    if cluster.exists and cluster.control.box.up:
        changed = cluster.update_images()
        say(f"it is up; images that changed: {', '.join(changed) or 'none'}")
        return
    try:
        cluster.up(nodes)
    except BaseException:
        if cluster.exists:
            say(
                "it did not come up; its logs are under "
                + str(cluster.paths.directory)
                + "; scripts/cluster down removes it"
            )
        raise
    say(f"up: export KUBECONFIG={cluster.paths.kubeconfig}")


@main.command(help="Take everything away, from whatever state it is in.")
@click.pass_obj
def down(cluster: Cluster) -> None:
    say("nothing is left" if cluster.down() else f"there is no cluster {cluster.paths.name}")


@main.command(help="What runs, and how much memory it uses.")
@click.pass_obj
def status(cluster: Cluster) -> None:
    print(describe(cluster))


@main.command(
    help="Build yett's images from the tree if they changed; nodes pull them at the next start of a pod."
)
@click.pass_obj
def images(cluster: Cluster) -> None:
    changed = cluster.update_images()
    say(f"changed: {', '.join(changed) or 'none'}")


@main.command(help="One more node.")
@click.pass_obj
def join(cluster: Cluster) -> None:
    say(f"{cluster.join().name} is ready")


@main.command(help="Drain a node and take it away.")
@click.argument("node")
@click.pass_obj
def leave(cluster: Cluster, node: str) -> None:
    cluster.leave(node)


@main.command(help="Run kubectl as administrator.", context_settings=_AS_GIVEN, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def kubectl(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    argv = cluster.kubectl.argv(arguments)
    os.execv(argv[0], argv)


@main.command(
    "exec",
    help="Run a command inside a node, or inside `control`.",
    context_settings=_AS_GIVEN,
)
@click.argument("box")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_obj
def exec_(cluster: Cluster, box: str, argv: tuple[str, ...]) -> None:
    sys.exit(subprocess.run(Box(cluster.paths, box).enter(argv), check=False).returncode)


if __name__ == "__main__":
    try:
        main(prog_name="scripts/cluster")
    except LabError as error:
        print(f"cluster: {error}", file=sys.stderr)
        sys.exit(1)
