"""What runs in the prober's clients: asks servers for paths, again and again, and says what came of it.

usage: talk.py SECONDS PATH,PATH... NAME=ADDRESS:PORT...        standard library only

For each server and path there is one connection that is kept for as long as requests pass on it, and
one series of new ones.  One line of stdout for each request, when it has ended:

    SERVER PATH kept|new BEGIN END passed|denied WHY            times of CLOCK_MONOTONIC, in seconds
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import Any

CONNECT = 2.0
"""Seconds until silence is an answer, too: what is denied below HTTP is dropped.  A kernel answers at once."""
ANSWER = 10.0
"""Seconds that a server may take on a busy machine."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def series(name: str, address: str, path: str, seconds: float, *, keep: bool) -> None:
    """One request every so many seconds, for ever."""
    connection: Connection | None = None
    host, _, port = address.rpartition(":")
    while True:
        begin = time.monotonic()
        try:
            if connection is None:
                opening = asyncio.open_connection(host, int(port))
                connection = await patient(opening, CONNECT, "no connection")
            why = await patient(request(connection, name, path), ANSWER, "no answer")
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            why = str(error) if isinstance(error, TimeoutError) else type(error).__name__
        end = time.monotonic()
        verdict = "passed" if why == "200" else "denied"
        line = f"{name} {path} {'kept' if keep else 'new'} {begin:.6f} {end:.6f} {verdict} {why}"
        print(line, flush=True)
        if connection is not None and not (keep and verdict == "passed"):
            connection[1].close()
            connection = None
        await asyncio.sleep(max(0.0, begin + seconds - time.monotonic()))


async def patient(work: Coroutine[Any, Any, Any], seconds: float, otherwise: str) -> Any:
    """Its result, or TimeoutError; what came in time counts also if we were not run in time to see it."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        await asyncio.sleep(0.1)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    raise TimeoutError(otherwise)


async def request(connection: Connection, name: str, path: str) -> str:
    """The status of the answer."""
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(int(lengths[0].partition(b":")[2]))
    return head.split(b" ", 2)[1].decode("ascii", "replace")


async def main(seconds: str, paths: str, *servers: str) -> None:
    """All series at once."""
    async with asyncio.TaskGroup() as tasks:
        for server in servers:
            name, _, address = server.partition("=")
            for path in paths.split(","):
                for keep in (True, False):
                    tasks.create_task(series(name, address, path, float(seconds), keep=keep))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
