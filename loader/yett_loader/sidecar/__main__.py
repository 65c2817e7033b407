"""`yett-sidecar`: keeps Envoy running, and stands in for the loader where Envoy gets its rules from."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from yett_loader.errors import LoaderError, NotReady
from yett_loader.sidecar.process import DRAIN, LOCK, admin, check_version, config, envoy, find_envoy

log = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The sidecar of yett: keeps an Envoy running for the loader."""


@main.command()
@click.argument("lock", type=click.Path(path_type=Path), default=LOCK, required=False)
def run(lock: Path) -> None:
    """Keep Envoy running until SIGTERM, in the directory of LOCK; then let it drain and end it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    try:
        asyncio.run(_run(lock))
    except LoaderError as error:
        print(f"yett-sidecar: {error}", file=sys.stderr)
        sys.exit(2)


@main.command()
@click.argument("lock", type=click.Path(path_type=Path), default=LOCK, required=False)
def check(lock: Path) -> None:
    """Exit code 0 if Envoy runs, or nobody needs one; for the kubelet."""
    if config(lock.parent).exists() and not envoy(lock.parent).pid:
        print("Envoy does not run; see the log of the container")
        sys.exit(1)


async def _run(lock: Path) -> None:
    from yett_loader.sidecar.standin import LOOK, stand_in  # noqa: PLC0415 - `check` starts faster without

    directory = lock.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise NotReady(f"cannot keep Envoy: another yett-sidecar has {lock}") from error
    binary = find_envoy()
    await asyncio.to_thread(check_version, binary)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(stand_in(directory), name="stand-in")
    kept = envoy(directory, binary)
    while not stop.is_set():
        if config(directory).exists():
            kept.run()
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()  # raises what ended it
    finally:
        await kept.leave()
        if kept.pid:
            await asyncio.to_thread(drain, admin(directory))
            kept.kill(signal.SIGTERM)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def drain(path: Path) -> None:
    """Have Envoy end its connections at their next answer; returns when that time is over."""
    connection = http.client.HTTPConnection("localhost", timeout=DRAIN + 1)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError, http.client.HTTPException):
        connection.sock.connect(str(path))
        connection.request("POST", "/drain_listeners?graceful")
        connection.getresponse().read()
        time.sleep(DRAIN)
    connection.close()


if __name__ == "__main__":
    main(prog_name="yett-sidecar")
