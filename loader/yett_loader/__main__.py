"""The command line: `status` and `plan` read; `run`, `load`, `upgrade`, `unload` change."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from yett_loader.datapath import Datapath, Sizes
from yett_loader.errors import KernelError, LoaderError, NotReady
from yett_loader.pins import Pins, locked

P = ParamSpec("P")

IMAGE = Path(__file__).parent / "data" / "yett.bpf.o"
PIN_DIR = Path("/sys/fs/bpf/yett")
STATE_DIR = Path("/var/lib/yett")
API = Path("/run/yett/loader.sock")
TOKEN_FILE = Path("/var/run/secrets/yett/token")
CA_FILE = Path("/var/run/secrets/yett/ca.crt")

pin_dir = click.option(
    "--pin-dir",
    type=click.Path(path_type=Path),
    default=PIN_DIR,
    show_default=True,
    help="On a BPF file system.",
)
image = click.option(
    "--object", "image", type=click.Path(path_type=Path), default=IMAGE, help="The BPF object; default: ours."
)
state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=STATE_DIR,
    show_default=True,
    help="For the last good snapshot.",
)
api = click.option(
    "--api", type=click.Path(path_type=Path), default=API, show_default=True, help="Unix socket of the API."
)


def one_sentence(function: Callable[P, None]) -> Callable[P, None]:
    """Errors as one sentence: exit code 2 for bad input or a node that lacks something, else 1."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except LoaderError as error:
            print(f"yett-loader: {error}", file=sys.stderr)
            sys.exit(1 if isinstance(error, KernelError) else 2)

    return wrapped


def size_options(function: Callable[P, None]) -> Callable[P, None]:
    """--size NAME=COUNT."""
    names = ", ".join(field.name for field in fields(Sizes))
    return click.option(
        "--size",
        "sizes",
        multiple=True,
        metavar="MAP=COUNT",
        callback=_sizes,
        help=f"Entries of a map when it is created ({names}; events in bytes).",
    )(function)


def _sizes(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Sizes:
    known = {field.name for field in fields(Sizes)}
    chosen: dict[str, int] = {}
    for text in values:
        name, _, count = text.partition("=")
        if name not in known or not count.isascii() or not count.isdigit() or not 0 < int(count) < 2**31:
            raise click.BadParameter(f"{text!r}: write MAP=COUNT with MAP one of {', '.join(sorted(known))}")
        chosen[name] = int(count)
    return Sizes(**chosen)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The node agent of yett: loads the BPF programs and keeps their maps."""


@main.command()
@pin_dir
@image
@state_dir
@api
@click.option("--allow-push", is_flag=True, help="Take snapshots over the API (labs, tests).")
@click.option("--operator", metavar="URL", help="wss://HOST:PORT of the operator that snapshots come from.")
@click.option("--node", metavar="NAME", help="This node's name in Kubernetes; with --operator.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    default=TOKEN_FILE,
    show_default=True,
    help="ServiceAccount token for the operator; read again when it is renewed.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    default=CA_FILE,
    show_default=True,
    help="Certificate authority of the operator.",
)
@click.option(
    "--outer-sidecar",
    is_flag=True,
    help="Another process (`yett-sidecar`) keeps Envoy; else a child of this one does.",
)
@size_options
@one_sentence
def run(
    pin_dir: Path,
    image: Path,
    state_dir: Path,
    api: Path,
    allow_push: bool,
    operator: str | None,
    node: str | None,
    token_file: Path,
    ca_file: Path,
    outer_sidecar: bool,
    sizes: Sizes,
) -> None:
    """Enforce until SIGTERM; what is pinned stays in force afterwards."""
    from yett_loader.daemon import Options, Sync, serve  # noqa: PLC0415 - the other commands start faster without
    from yett_loader.sync.settings import Credentials, Operator  # noqa: PLC0415

    sync = None
    if operator is not None:
        if allow_push:
            raise NotReady("cannot take snapshots from two sides: give --operator or --allow-push, not both")
        if not node:
            raise NotReady("cannot follow an operator without the node's name: give --node")
        sync = Sync(Operator.parse(operator), node, Credentials(token_file, ca_file))
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    asyncio.run(serve(Options(Pins(pin_dir), image, state_dir, api, allow_push, sizes, sync, outer_sidecar)))


@main.command()
@pin_dir
@image
@size_options
@one_sentence
def load(pin_dir: Path, image: Path, sizes: Sizes) -> None:
    """Load the programs and pin them; nothing is attached yet."""
    with locked(pin_dir):
        Datapath.load(Pins(pin_dir), image, sizes).close()
    print(f"loaded below {pin_dir}")


@main.command()
@pin_dir
@image
@one_sentence
def upgrade(pin_dir: Path, image: Path) -> None:
    """Swap the programs for those of another object, with no moment without one."""
    with locked(pin_dir):
        datapath = Datapath.adopt(Pins(pin_dir))
        datapath.upgrade(image)
        print(f"upgraded {len(datapath.attached())} interfaces")
        datapath.close()


def _unload(pin_dir: Path) -> None:
    pins = Pins(pin_dir)
    with locked(pin_dir):
        if pins.gate.exists():
            from yett_loader.sidecar import process  # noqa: PLC0415
            from yett_loader.sidecar.gate import remove  # noqa: PLC0415 - as in run

            remove(pins.gate)  # first: what the sidecar judged is refused, not passed, while we go on
            if pin_dir == PIN_DIR:
                process.end(API.with_name(f"{API.stem}-sidecar"))
        count = Datapath.remove(pins)
        with suppress(OSError):  # not empty: another schema is pinned there
            pin_dir.rmdir()
    print(f"detached from {count} interfaces and removed {pin_dir}: this node is open, no policy is enforced")


@main.command()
@pin_dir
@one_sentence
def unload(pin_dir: Path) -> None:
    """Detach everywhere and remove the pins: OPENS the node."""
    _unload(pin_dir)


@main.command()
@pin_dir
@one_sentence
def uninstall(pin_dir: Path) -> None:
    """The same as unload: OPENS the node."""
    _unload(pin_dir)


@main.command()
@pin_dir
@api
@one_sentence
def status(pin_dir: Path, api: Path) -> None:
    """What is in force, as JSON: from the running agent, else from the pins."""
    try:
        answer = _get(api, "/v1/status")
    except (FileNotFoundError, ConnectionRefusedError):
        answer = _pinned(Datapath.adopt(Pins(pin_dir)))
    print(json.dumps(answer, indent=2, sort_keys=True))


@main.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@pin_dir
@state_dir
@one_sentence
def plan(snapshot: Path, pin_dir: Path, state_dir: Path) -> None:
    """The changes that SNAPSHOT (as PUT to the API) would make, in order; changes nothing."""
    from yett_loader.agent import Agent  # noqa: PLC0415 - as in run
    from yett_loader.snapshot import from_bytes  # noqa: PLC0415
    from yett_loader.store import Store, load_or_default  # noqa: PLC0415

    try:
        body = snapshot.read_bytes()
    except OSError as error:
        raise NotReady(f"cannot read {snapshot}: {error.strerror}; name a snapshot as JSON") from error
    wanted = from_bytes(body, str(snapshot))
    store = Store(state_dir)
    agent = Agent(Datapath.adopt(Pins(pin_dir)), store, assignment=load_or_default(store)[0])
    for op in agent.preview(wanted):
        print(op)


def _pinned(datapath: Datapath) -> dict[str, Any]:
    return {
        "agent": "not running",
        "pins": str(datapath.pins.home),
        "programs": {name: program.info().tag for name, program in datapath.programs.items()},
        "attached": datapath.attached(),
    }


def _get(path: Path, target: str) -> Any:
    """From the agent; FileNotFoundError or ConnectionRefusedError if none runs."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(10)
        connection.sock.connect(str(path))
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    except (FileNotFoundError, ConnectionRefusedError):
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotReady(f"cannot ask the agent on {path}: {error}; is `yett-loader run` well?") from error
    finally:
        connection.close()


if __name__ == "__main__":
    main(prog_name="yett-loader")
