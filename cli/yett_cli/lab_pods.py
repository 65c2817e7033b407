"""`yettctl lab exec`, `logs`, `get`, `down`: what needs no policy core, and starts fast."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from yett_cli import lab, output, terminal
from yett_cli.errors import CommandError
from yett_lab import access, listing, pod
from yett_lab import down as removal
from yett_lab.paths import Paths, running


@click.command("exec", context_settings={"allow_interspersed_args": True})
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass stdin to the command.")
@click.option("-t", "--tty", is_flag=True, help="The command uses this terminal.")
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.option("-c", "--container", metavar="NAME", help="A container of the pod; default: the first.")
@lab.name_option
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
    lab.need_root()
    current = access.load(Paths(access.choose(name)))
    interactive = tty and stdin and sys.stdin.isatty()
    if tty and not interactive:
        output.warn("-t has no effect: it needs -i and a terminal as stdin")
    wanted = terminal.inside(command) if interactive else command
    argv, env = access.exec_argv(current, target, wanted, namespace=namespace, container=container)
    if interactive:
        sys.exit(terminal.spawn(argv, {**env, "TERM": os.environ.get("TERM", "xterm")}))
    if not stdin:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.flush()
    os.chdir("/")
    os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is wanted


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAMESPACE")
@click.option("-c", "--container", metavar="NAME", help="A container of the pod; default: the first.")
@lab.name_option
@click.argument("target", metavar="POD")
def logs(follow: bool, namespace: str, container: str | None, name: str | None, target: str) -> None:
    """Print what a pod's container has written.

    \b
    Example:
      yettctl lab logs api-server -f
    """
    paths = Paths(access.choose(name))
    found, _ = access.find_pod(access.load(paths), target, namespace)
    file = pod.log_file(paths, found.key, access.container_of(found, container).name)
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


@click.command()
@output.option("table", "json")
@lab.name_option
@click.argument("what", type=click.Choice(["pods", "svc", "services", "policies", "nodes"]))
def get(what: str, name: str | None, output: str) -> None:
    """List pods, services, policies or nodes.

    \b
    Example:
      yettctl lab get pods -o json
    """
    paths = Paths(access.choose(name))
    rows = listing.rows(paths, access.load(paths), "services" if what == "svc" else what)
    _print_rows(rows, output)


@click.command()
@lab.name_option
@click.option("--all", "every", is_flag=True, help="All labs of this machine.")
def down(name: str | None, every: bool) -> None:
    """Remove a lab: processes, namespaces, programs, state.

    \b
    Examples:
      yettctl lab down
      yettctl lab down --all
    """
    lab.need_root()
    names: Iterable[str]
    if every:
        names = running()
    elif name is not None:
        names = [name]
    else:
        names = [access.choose(None)] if running() else []
    removed = [item for item in names if removal.down(item)]
    for item in removed:
        click.echo(f"lab {item} is down")
    if not removed:
        click.echo("no lab is running")


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
