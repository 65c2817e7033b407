"""`yettctl lab`: the verbs of the lab on the command line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from yett_cli import output, terminal
from yett_cli.errors import CommandError
from yett_lab import image, listing, manifest, pod
from yett_lab import lab as labs
from yett_lab.lab import Report
from yett_lab.paths import Paths, running

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NAME = "lab"


def _name_option(function: F) -> F:
    return click.option(
        "--name",
        "--lab",
        "name",
        metavar="LAB",
        envvar="YETT_LAB",
        help="Which lab; not needed when only one runs.",
    )(function)


def _files_option(*, required: bool) -> Callable[[F], F]:
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        required=required,
        metavar="FILE",
        help="A manifest, a directory of them, or - for stdin; may be repeated.",
    )


def _images_option(function: F) -> F:
    return click.option(
        "--image", "images", multiple=True, metavar="NAME=COMMAND", help="What runs in place of an image."
    )(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def lab() -> None:
    """Run pods and policies on this machine, in network namespaces.

    Pods, Services and Deployments come from ordinary manifests; each pod is a network namespace,
    each node too, and policies are enforced by the same programs as in a cluster.  Needs root.
    A lab is for trying and testing: it does not isolate a pod's files from the machine.

    \b
    Examples:
      yettctl lab up -f app.yaml
      yettctl lab apply -f l7-policy.yaml
      yettctl lab exec client -- curl -s http://api-service/public
      yettctl lab down
    """


@lab.command()
@_files_option(required=False)
@click.option("--nodes", default=1, show_default=True, metavar="N", help="Number of nodes.")
@click.option(
    "--name",
    "--lab",
    "name",
    default=DEFAULT_NAME,
    show_default=True,
    metavar="LAB",
    envvar="YETT_LAB",
    help="Name of the lab.",
)
@_images_option
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
    _need_root()
    manifests = manifest.read_files(files)
    report = labs.up(name, manifests, nodes=nodes, images=dict(map(image.parse_option, images)))
    _print(report)
    click.echo(f"lab {name} is up: {nodes} node{'s' if nodes > 1 else ''}")


@lab.command("apply")
@_files_option(required=True)
@_name_option
@_images_option
def apply_(files: tuple[str, ...], name: str | None, images: tuple[str, ...]) -> None:
    """Create or change objects: pods, services, policies.

    Returns when the policies are in force on every node.  When any object is wrong, nothing is
    applied and the exit code is 2.

    \b
    Example:
      yettctl lab apply -f l7-policy.yaml
    """
    _need_root()
    manifests = manifest.read_files(files)
    _print(labs.apply(labs.choose(name), manifests, dict(map(image.parse_option, images))))


@lab.command()
@_files_option(required=False)
@_name_option
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.argument("target", nargs=-1, metavar="[KIND NAME]")
def delete(files: tuple[str, ...], name: str | None, namespace: str, target: tuple[str, ...]) -> None:
    """Delete objects, by file or by kind and name.

    \b
    Examples:
      yettctl lab delete -f l7-policy.yaml
      yettctl lab delete cnp api-l7-policy
    """
    _need_root()
    chosen = labs.choose(name)
    targets = manifest.read_files(files)
    if target:
        words = target[0].split("/", 1) if len(target) == 1 else list(target)
        if len(words) != 2:
            raise click.UsageError("write KIND NAME, such as `cnp api-l7-policy`")
        targets.append(labs.find_object(labs.load(Paths(chosen)), words[0], words[1], namespace))
    if not targets:
        raise click.UsageError("say what to delete: -f FILE, or KIND NAME")
    _print(labs.delete(chosen, targets))


@lab.command("exec", context_settings={"allow_interspersed_args": True})
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass stdin to the command.")
@click.option("-t", "--tty", is_flag=True, help="The command uses this terminal.")
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.option("-c", "--container", metavar="NAME", help="A container of the pod; default: the first.")
@_name_option
@click.argument("target", metavar="POD")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
def exec_(
    stdin: bool,
    tty: bool,
    namespace: str,
    container: str | None,
    name: str | None,
    target: str,
    command: tuple[str, ...],
) -> None:
    """Run a command in a pod; its exit code becomes ours.

    \b
    Examples:
      yettctl lab exec client -- curl -s http://api-service/public
      yettctl lab exec -it client -- sh
    """
    _need_root()
    current = labs.load(Paths(labs.choose(name)))
    interactive = tty and stdin and sys.stdin.isatty()
    if tty and not interactive:
        output.warn("-t has no effect: it needs -i and a terminal as stdin")
    wanted = terminal.inside(command) if interactive else command
    argv, env = labs.exec_argv(current, target, wanted, namespace=namespace, container=container)
    if interactive:
        sys.exit(terminal.spawn(argv, {**env, "TERM": os.environ.get("TERM", "xterm")}))
    if not stdin:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.flush()
    os.chdir("/")
    os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is wanted


@lab.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.option("-c", "--container", metavar="NAME", help="A container of the pod; default: the first.")
@_name_option
@click.argument("target", metavar="POD")
def logs(follow: bool, namespace: str, container: str | None, name: str | None, target: str) -> None:
    """Print what a pod's container has written.

    \b
    Example:
      yettctl lab logs api-server -f
    """
    paths = Paths(labs.choose(name))
    found, _ = labs.find_pod(labs.load(paths), target, namespace)
    file = pod.log_file(paths, found.key, labs.container_of(found, container).name)
    sys.stdout.flush()
    try:
        with file.open("rb") as stream:
            while True:
                data = stream.read()
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
                if not follow or not file.exists():
                    return
                if not data:
                    time.sleep(0.1)
    except FileNotFoundError:
        raise CommandError(f"pod {found.key} has written nothing yet") from None


@lab.command()
@output.option("table", "json")
@_name_option
@click.argument("what", type=click.Choice(["pods", "svc", "services", "policies", "nodes"]))
def get(what: str, name: str | None, output: str) -> None:
    """List pods, services, policies or nodes.

    \b
    Example:
      yettctl lab get pods -o json
    """
    paths = Paths(labs.choose(name))
    rows = listing.rows(paths, labs.load(paths), "services" if what == "svc" else what)
    _print_rows(rows, output)


@lab.command()
@_name_option
@click.option("--all", "every", is_flag=True, help="All labs of this machine.")
def down(name: str | None, every: bool) -> None:
    """Remove a lab: processes, namespaces, programs, state.

    \b
    Examples:
      yettctl lab down
      yettctl lab down --all
    """
    _need_root()
    names: Iterable[str]
    if name is not None:
        names = [name]
    elif every:
        names = running()
    else:
        names = [labs.choose(None)] if running() else []
    removed = [item for item in names if labs.down(item)]
    for item in removed:
        click.echo(f"lab {item} is down")
    if not removed:
        click.echo("no lab is running")


def _need_root() -> None:
    if os.geteuid() != 0:
        raise CommandError(
            "a lab makes network namespaces and loads BPF programs, which needs root; use sudo"
        )


def _print(report: Report) -> None:
    for warning in report.warnings:
        output.warn(warning)
    for change in report.changes:
        click.echo(change)


def _print_rows(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        output.as_json(rows)
        return
    if not rows:
        click.echo("none")
        return
    header = list(rows[0])
    cells = [[_cell(row[key]) for key in header] for row in rows]
    output.table([_title(key) for key in header], cells)


def _title(key: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in key).upper()


def _cell(value: object) -> str:
    match value:
        case dict():
            return ",".join(f"{k}={v}" for k, v in value.items()) or "-"
        case list() | tuple():
            return ",".join(map(str, value)) or "-"
        case "" | None:
            return "-"
        case _:
            return str(value)
