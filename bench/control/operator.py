"""The operator as it runs in production: its own process, its ServiceAccount, its roles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support.apiserver import ApiServer, free_ports

_PATIENCE = 180.0
"""Seconds that it may take to get ready."""
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


class OperatorDied(Exception):  # noqa: N818 - what happened
    """It ended, or does not get ready."""


@dataclass(frozen=True, slots=True)
class Memory:
    """KiB of all processes of the operator, each shared page counted once."""

    parent: int
    children: int

    @property
    def total(self) -> int:
        """Both."""
        return self.parent + self.children


class OperatorProcess:
    """One replica."""

    def __init__(self, api: ApiServer, sync_port: int, name: str) -> None:
        self.sync_port = sync_port
        self._log = api.directory / f"{name}.log"
        self._http_port, webhook_port = free_ports(2)
        environment = {
            **os.environ,
            "YETT_KUBECONFIG": str(api.kubeconfig_of("yett-operator")),
            "YETT_HOST": "127.0.0.1",
            "YETT_HTTP_PORT": str(self._http_port),
            "YETT_WEBHOOK_PORT": str(webhook_port),
            "YETT_SYNC_PORT": str(sync_port),
            "YETT_POD": name,
            "YETT_SERVICE": "localhost",
        }
        self.started = time.monotonic()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "yett_operator"], env=environment, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ready(self) -> float:
        """Seconds from the start until it can serve loaders: everything listed and compiled."""
        while time.monotonic() - self.started < _PATIENCE:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/readyz", timeout=5):
                    return time.monotonic() - self.started
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise OperatorDied(f"the operator does not get ready; it said: {self.log()}")

    def metrics(self) -> dict[str, float]:
        """`name{labels}` -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return {
            f"{name}{{{labels}}}" if labels else name: float(value)
            for name, labels, value in _SAMPLE.findall(text)
        }

    def _pids(self) -> list[int]:
        pids = [self._process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return pids

    def memory(self) -> Memory:
        """As of now."""
        parent, *children = map(_pss, self._pids())
        return Memory(parent, sum(children))

    def processor_seconds(self) -> float:
        """That all of its processes have used since they started."""
        return sum(map(_processor_seconds, self._pids()))

    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-3000:]


def _processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
