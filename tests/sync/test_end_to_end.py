"""From the operator's server to the maps of the running kernel, with the loader as a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import wanted as build
from support.enforce import BPFFS, IMAGE, compiled
from support.netns import Namespace, Topology, topology
from support.sync import Replica, Source, pod, until
from yett_loader.datapath import Datapath
from yett_loader.pins import Pins, locked
from yett_policy.document import Verdict

pytestmark = [pytest.mark.bpf, pytest.mark.net]

Serve = Callable[..., Awaitable[Replica]]
PORT = 8471


class Node:
    """A loader that follows an operator in the network namespace of the node."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self.directory = directory
        self.namespace = namespace
        self.pins = Pins(BPFFS / f"yett-test-sync-{directory.name}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, replica: Replica, address: str, node: str = "node-a") -> None:
        token = self.directory / "token"
        token.write_text(f"token-of-{node}")
        with (self.directory / "log").open("ab") as log:
            self.process = self.namespace.popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "yett_loader", "run"),
                    *("--pin-dir", str(self.pins.root), "--state-dir", str(self.directory / "state")),
                    *("--api", str(self.api), "--object", str(IMAGE)),
                    *("--operator", f"wss://{address}:{replica.port}", "--node", node),
                    *("--token-file", str(token), "--ca-file", str(replica.certificates.ca)),
                ],
                stdout=log,
                stderr=log,
            )

    @property
    def api(self) -> Path:
        return self.directory / "api.sock"

    async def get(self, path: str) -> Any:
        """From its API; {} while it is not up."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.api))) as session,
                session.get(f"http://node{path}") as response,
            ):
                return await response.json()
        except aiohttp.ClientError:
            return {}

    async def text(self, path: str) -> str:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.api))) as session,
            session.get(f"http://node{path}") as response,
        ):
            return await response.text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        with self.namespace, locked(self.pins.root):
            if self.pins.home.exists():
                Datapath.adopt(self.pins).unload()
        self.pins.root.rmdir()


@pytest.fixture
def pods() -> Iterator[Topology]:
    with topology() as made:
        yield made


@pytest.fixture
def node(pods: Topology) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="yett-sync-") as directory:
        made = Node(Path(directory), pods.node)
        try:
            yield made
        finally:
            made.close()


def cluster() -> Source:
    """The two pods of the topology, web accepting the client."""
    source = Source()
    rules = compiled(build.ruleset("/public").spec)
    source.tell(
        documents=(build.document(build.WEB, rules), build.document(build.CLIENT, verdict=Verdict.ALLOW)),
        rulesets=(rules,),
        ipcache={"10.9.1.2/32": build.CLIENT, "10.9.2.2/32": build.WEB},
        node_addresses={"node-a": {"10.9.1.1/32": 1, "10.9.2.1/32": 1}},
        identities={
            1: ("reserved:host",),
            build.WEB: ("k8s:app=web",),
            build.CLIENT: ("k8s:app=client",),
        },
        pods={
            "default/web": pod("web", "node-a", "10.9.2.2"),
            "default/client": pod("client", "node-a", "10.9.1.2", identity=build.CLIENT),
        },
    )
    return source


async def ready(node: Node) -> list[dict[str, Any]]:
    return [
        item for item in (await node.get("/v1/endpoints")).get("endpoints", ()) if item["state"] == "ready"
    ]


async def eventually(condition: Callable[[], Awaitable[object]], node: Node) -> None:
    for _ in range(600):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not come true; the loader said: {(node.directory / 'log').read_text()}")


async def test_a_document_reaches_the_kernel_and_its_digest_comes_back(
    serve: Serve, node: Node, pods: Topology
) -> None:
    source = cluster()
    with pods.node:
        replica = await serve(source, port=PORT)
    node.start(replica, "localhost")
    await eventually(lambda: all_applied(replica, source), node)
    assert replica.sink.failures["node-a"] == ()
    assert {item["pod"] for item in await ready(node)} == {"web", "client"}
    rules = compiled(build.ruleset("/other").spec)
    source.tell(documents=(build.document(build.WEB, rules),), rulesets=(rules,))
    await eventually(lambda: all_applied(replica, source), node)
    policy = await node.get("/v1/policy/default/web")
    assert rules.digest in policy["rulesets"]
    status = await node.get("/v1/status")
    assert status["sync"]["revision"] == source.revision
    assert status["sync"]["stale_since"] is None
    metrics = await node.text("/metrics")
    assert "\nyett_sync_connected 1.0\n" in metrics
    assert f"\nyett_sync_revision {source.revision}\n" in metrics

    node.kill()
    await until(lambda: ("disconnected", "node-a") in replica.sink.log)
    source.tell(ipcache={"10.44.0.1/32": build.CLIENT})
    node.start(replica, "localhost")
    await eventually(lambda: all_applied(replica, source), node)
    assert {item["pod"] for item in await ready(node)} == {"web", "client"}

    await replica.stop()

    async def stale() -> bool:
        sync = (await node.get("/v1/status")).get("sync") or {}
        return bool(sync.get("stale_since"))

    await eventually(stale, node)
    assert {item["pod"] for item in await ready(node)} == {"web", "client"}


async def test_a_pod_without_an_interface_is_reported(serve: Serve, node: Node, pods: Topology) -> None:
    source = cluster()
    with pods.node:
        replica = await serve(source, port=PORT)
    node.start(replica, "localhost")
    await eventually(lambda: all_applied(replica, source), node)
    source.tell(pods={"default/ghost": pod("ghost", "node-a", "10.77.0.1")})

    async def reported() -> bool:
        return any(item[:2] == (build.WEB, "NotAttached") for item in replica.sink.failures["node-a"])

    await eventually(reported, node)
    source.tell(pods={"default/ghost": None})

    async def over() -> bool:
        return replica.sink.failures["node-a"] == ()

    await eventually(over, node)


async def all_applied(replica: Replica, source: Source) -> bool:
    want = {number: item.digest for number, item in source.documents.items()}
    return replica.sink.nodes.get("node-a") == want


def test_bad_options_are_one_sentence(tmp_path: Path) -> None:
    for options, sentence in (
        (["--operator", "https://x", "--node", "n"], "write wss://HOST:PORT"),
        (["--operator", "wss://x:99999", "--node", "n"], "write wss://HOST:PORT"),
        (["--operator", f"wss://{'x' * 70}", "--node", "n"], "write wss://HOST:PORT"),
        (["--operator", "wss://x"], "give --node"),
        (["--operator", "wss://x", "--node", "n", "--allow-push"], "not both"),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "yett_loader", "run", "--pin-dir", str(tmp_path), *options],
            check=False,
            capture_output=True,
            timeout=30,
            text=True,
        )
        assert result.returncode == 2, result.stderr
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
