"""`yett-loader run` as a process of its own, to be killed, upgraded and talked to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.capabilities import confining
from support.enforce import BPFFS, IMAGE
from support.netns import Namespace
from yett_loader.pins import Pins
from yett_loader.sidecar import process
from yett_loader.snapshot import Wanted, to_bytes


class LoaderDaemon:
    """One pin directory and state directory, and at most one process on them."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self._namespace = namespace
        self._directory = tempfile.TemporaryDirectory(prefix="yett-loader-")
        self.directory = Path(self._directory.name)
        self.pins = Pins(BPFFS / f"yett-test-{os.getpid()}-{name}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _api(self) -> Path:
        return self.directory / "api.sock"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self, image: Path = IMAGE) -> None:
        """Start it and wait until it answers."""
        log = (self.directory / "log").open("ab")
        with log:
            self._process = self._namespace.popen(
                [
                    *confining(),
                    *("--pdeathsig", "KILL", sys.executable, "-m", "yett_loader", "run"),
                    *("--pin-dir", str(self.pins.root), "--state-dir", str(self.directory / "state")),
                    *("--api", str(self._api), "--object", str(image), "--allow-push"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.status()
            except (OSError, http.client.HTTPException) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the loader does not answer: {error}; it said: {self.log()}"
                    ) from error
            else:
                return
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no handler, no goodbye."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def stop(self) -> None:
        """SIGTERM, and its exit code must be 0."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(10)
        self._process = None
        assert code == 0, f"the loader ended with {code}: {self.log()}"

    def push(self, wanted: Wanted) -> dict[str, Any]:
        """Put a snapshot in force."""
        return self._call("PUT", "/v1/snapshot", to_bytes(wanted))

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return self._call("GET", "/v1/status")

    def metrics(self) -> str:
        """The Prometheus page."""
        return self._request("GET", "/metrics").decode()

    def flows(self) -> list[dict[str, Any]]:
        """The last records."""
        return [json.loads(line) for line in self._request("GET", "/v1/flows?last=200").splitlines()]

    def connections(self, endpoint: str) -> list[dict[str, Any]]:
        """Flows of an endpoint (namespace/pod)."""
        return list(self._call("GET", f"/v1/flows-table/{endpoint}")["flows"])

    def log(self) -> str:
        """Everything it said."""
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        """Stop it and open the node, with no more capabilities than it has itself."""
        try:
            if self._process is not None:
                self.kill()
        finally:
            process.end(self._api.with_name(f"{self._api.stem}-sidecar"))  # it outlives its loader
            unload = (sys.executable, "-m", "yett_loader", "unload", "--pin-dir", str(self.pins.root))
            done = self._namespace.run([*confining(), *unload])
            assert done.returncode == 0, done.stderr
            assert not self.pins.root.exists()
            self._directory.cleanup()

    def _call(self, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        return dict(json.loads(self._request(method, target, body)))

    def _request(self, method: str, target: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.settimeout(20)
            connection.sock.connect(str(self._api))
            connection.request(method, target, body)
            response = connection.getresponse()
            data = response.read()
            if response.status != http.client.OK:
                raise RuntimeError(f"the loader answered {response.status} to {method} {target}: {data!r}")
            return data
        finally:
            connection.close()
