"""A process kept running: started, watched, started again; it outlives whoever keeps it.

A keeper that starts finds the process of the one before by the file that names it, and keeps it
with all its connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the next start, doubled by each failure."""
WELL = 10.0
"""Seconds of running that make up for earlier failures."""


class Kept:
    """One process; `mark` is a word of its command line that no other process has.

    It writes to `output`, or where we do.
    """

    def __init__(
        self,
        name: str,
        mark: Path,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self._name = name
        self._mark = mark
        self._argv = argv
        self._env = env
        self._output = output
        self._pidfile = mark.with_name(f"{name}.pid")
        self._task: asyncio.Task[None] | None = None
        self.starts = 0
        """By this keeper."""

    @property
    def pid(self) -> int:
        """Of the process that runs, 0 if none does (or not in sight: in another container)."""
        with suppress(OSError, ValueError):
            pid = int(self._pidfile.read_text())
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
            if os.fsencode(self._mark) in words and state != "Z":
                return pid
        return 0

    def run(self) -> None:
        """Keep it running from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=self._name)

    async def leave(self) -> None:
        """Stop watching; it runs on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        pid = self.pid
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self._pidfile.unlink(missing_ok=True)

    async def _keep(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            begin = time.monotonic()
            if self.pid:
                await self._until_gone()
            else:
                await self._once()
            if time.monotonic() - begin > WELL:
                pause = SHORTEST_PAUSE
            log.error("%s ended; it starts again in %.1f seconds", self._name, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _until_gone(self) -> None:
        """Of a process that is not our child: nobody tells us."""
        while self.pid:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _once(self) -> None:
        with ExitStack() as stack:
            output = stack.enter_context(self._output.open("wb")) if self._output else None
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=self._env,
                )
            except OSError as error:
                log.error("cannot start %s: %s", self._argv[0], error.strerror)  # noqa: TRY400 - one sentence
                return
        self.starts += 1
        self._pidfile.write_text(str(process.pid))
        await process.wait()
