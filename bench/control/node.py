"""A real node: the loader's own process with its programs and maps, and two pods that talk HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp

from bench.control.relay import Relay
from bench.control.shape import PORT
from support.enforce import BPFFS, IMAGE
from support.netns import Namespace, Topology, topology
from support.origin import Recorder
from support.sync import Certificates
from yett_loader.datapath import Datapath
from yett_loader.pins import Pins, locked

NAME = "real"
_TIMEOUT = 3.0


class LoaderFailed(Exception):  # noqa: N818 - what happened
    """The real loader ended, or says nothing."""


class RealNode:
    """The node's parts."""

    def __init__(self, pods: Topology, directory: Path) -> None:
        self.pods = pods
        self.directory = directory
        self.address = "10.9.1.1"

    @property
    def client(self) -> str:
        """Address of the pod that asks."""
        return self.pods.client.v4

    @property
    def server(self) -> str:
        """Address of the pod that answers."""
        return self.pods.server.v4

    def get(self, path: str) -> bool:
        """Whether the server's pod answers the client's; on a connection of its own."""
        with self.pods.client.namespace:
            connection = socket.create_connection((self.server, PORT), _TIMEOUT)
        with connection, suppress(ConnectionResetError):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
        return False

    @asynccontextmanager
    async def following(self, token: str, port: int, authority: str, *, pods: int) -> AsyncIterator[Relay]:
        """The loader runs, behind a relay to the operator's port, and governs so many pods."""
        certificates = Certificates.make(self.directory)
        relay, chain = Relay(), (certificates.certificate, certificates.key)
        with self.pods.node:
            listener = socket.create_server(("127.0.0.1", 0))
        async with relay.serving(listener, chain, port, authority):
            with self._loader(token, listener.getsockname()[1], certificates) as process:
                await self._attached(process, pods)
                yield relay

    @contextmanager
    def _loader(self, token: str, port: int, certificates: Certificates) -> Iterator[subprocess.Popen[bytes]]:
        (self.directory / "token").write_text(token)
        pins = Pins(BPFFS / f"yett-bench-control-{os.getpid()}")
        with ExitStack() as cleanup, (self.directory / "loader.log").open("ab") as log:
            cleanup.callback(_unload, self.pods.node, pins)
            process = self.pods.node.popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "yett_loader", "run"),
                    *("--pin-dir", str(pins.root), "--state-dir", str(self.directory / "state")),
                    *("--api", str(self._api), "--object", str(IMAGE)),
                    *("--operator", f"wss://localhost:{port}", "--node", NAME),
                    *("--token-file", str(self.directory / "token"), "--ca-file", str(certificates.ca)),
                ],
                stdout=log,
                stderr=log,
            )
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            yield process

    @property
    def _api(self) -> Path:
        return self.directory / "api.sock"

    async def _attached(self, process: subprocess.Popen[bytes], pods: int) -> None:
        for _ in range(1200):
            if process.poll() is not None:
                break
            if await self._endpoints() == pods:
                return
            await asyncio.sleep(0.05)
        raise LoaderFailed(
            "the real loader does not govern its two pods; it said:"
            f" {(self.directory / 'loader.log').read_text(errors='replace')[-2000:]}"
        )

    async def _endpoints(self) -> int | None:
        """That are governed; None: it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._api))) as session,
                session.get("http://node/v1/endpoints") as response,
            ):
                found = (await response.json()).get("endpoints", ())
        except aiohttp.ClientError:
            return None
        return sum(item["state"] == "ready" for item in found)


@contextmanager
def real_node() -> Iterator[RealNode]:
    """With a server that answers every request that reaches it."""
    with tempfile.TemporaryDirectory(prefix="yett-bench-node-") as directory, topology() as pods:
        recorder = Recorder(pods.server.namespace, PORT)
        try:
            yield RealNode(pods, Path(directory))
        finally:
            recorder.close()


def _unload(node: Namespace, pins: Pins) -> None:
    with node, locked(pins.root):
        if pins.home.exists():
            Datapath.adopt(pins).unload()
    pins.root.rmdir()
