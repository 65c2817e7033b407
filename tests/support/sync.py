"""Both ends of the sync stream for tests: a source that is told what to say, a sink and a target
that remember, certificates, and a real server on loopback.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support import wanted as build
from yett_loader.errors import KernelError
from yett_loader.snapshot import Wanted
from yett_loader.sync.client import SyncClient
from yett_loader.sync.follower import Follower
from yett_loader.sync.settings import Credentials, Operator, Times
from yett_loader.sync.target import InForce
from yett_operator.compilation import encode
from yett_operator.ports import (
    Ack,
    Change,
    NodeInfo,
    NodeSnapshot,
    PlacedPod,
    PublishedDocument,
    PublishedRuleset,
    PublishedSecret,
)
from yett_operator.sync.auth import Caller, Denied
from yett_operator.sync.server import SyncServer
from yett_operator.sync.settings import Settings
from yett_policy.cluster import PodKey
from yett_policy.document import Document, Ruleset
from yett_policy.prefix import Packed, packed_prefix, packed_text
from yett_policy.sync.message import Failing

FAST = Times(
    connect=3.0,
    silent=3.0,
    retry_first=0.05,
    retry_most=0.2,
    lived=60.0,
    renew=60.0,
    again=0.2,
    report=0.0,
)


class Source:
    """A cluster that a test changes by hand."""

    def __init__(self, epoch: str = "first") -> None:
        self.epoch = epoch
        self.revision = 0
        self.documents: dict[int, PublishedDocument] = {}
        self.rulesets: dict[str, PublishedRuleset] = {}
        self.ipcache: dict[Packed, int] = {}
        self.node_addresses: dict[str, dict[str, int]] = {}
        self.identities: dict[int, tuple[str, ...]] = {}
        self.pods: dict[PodKey, PlacedPod] = {}
        self.secrets: dict[str, PublishedSecret] = {}
        self._listeners: list[Callable[[Change], None]] = []

    @property
    def addresses(self) -> dict[str, int]:
        """As loaders have them."""
        return {packed_text(prefix): number for prefix, number in self.ipcache.items()}

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return len(self.ipcache), len(self.identities), len(self.pods), 0

    def snapshot(self, node: str) -> NodeSnapshot:
        if self.revision == 0:
            raise RuntimeError("nothing is known yet")
        endpoints = tuple(pod for _, pod in sorted(self.pods.items()) if pod.node == node)
        identities = {pod.identity for pod in endpoints}
        documents = {number: self.documents[number] for number in sorted(identities & self.documents.keys())}
        digests = {digest for document in documents.values() for digest in document.rulesets}
        return NodeSnapshot(
            revision=self.revision,
            documents=documents,
            rulesets={digest: self.rulesets[digest] for digest in sorted(digests)},
            ipcache=self.ipcache,
            node_addresses=self.node_addresses.get(node, {}),
            identities=self.identities,
            pods=self.pods,
            endpoints=endpoints,
            secrets={
                name: self.secrets[name]
                for digest in sorted(digests)
                for name in self.rulesets[digest].secrets
                if name in self.secrets
            },
        )

    def document(self, identity: int) -> PublishedDocument | None:
        return self.documents.get(identity)

    def ruleset(self, digest: str) -> PublishedRuleset | None:
        return self.rulesets.get(digest)

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- what tests do

    def tell(
        self,
        *,
        documents: tuple[Document, ...] = (),
        rulesets: tuple[Ruleset, ...] = (),
        ipcache: Mapping[str, int | None] | None = None,
        node_addresses: Mapping[str, Mapping[str, int]] | None = None,
        identities: Mapping[int, tuple[str, ...] | None] | None = None,
        pods: Mapping[PodKey, PlacedPod | None] | None = None,
        secrets: Mapping[str, PublishedSecret | None] | None = None,
    ) -> int:
        """Make a change; its revision."""
        bodies = {item.identity: encode.document(item) for item in documents}
        compiled = {item.digest: encode.ruleset(item) for item in rulesets}
        self.documents |= bodies
        self.rulesets |= compiled
        packed = {packed_prefix(prefix): number for prefix, number in (ipcache or {}).items()}
        _put(self.ipcache, packed)
        _put(self.identities, identities or {})
        moved = {}
        for key, pod in (pods or {}).items():
            before = self.pods.get(key)
            if before is not None and (pod is None or pod.node != before.node):
                moved[key] = before.node
        _put(self.pods, pods or {})
        _put(self.secrets, secrets or {})
        for node, prefixes in (node_addresses or {}).items():
            self.node_addresses[node] = dict(prefixes)
        self.revision += 1
        change = Change(
            self.revision,
            documents=bodies,
            rulesets=compiled,
            ipcache=packed,
            node_addresses=dict(node_addresses or {}),
            identities=dict(identities or {}),
            pods=dict(pods or {}),
            moved=moved,
            secrets=frozenset(secrets or {}),
        )
        for listener in tuple(self._listeners):
            listener(change)
        return self.revision

    def begin(self, *nodes: str, path: str = "/public") -> None:
        """The usual: on each node one web pod, which the client's identity may ask for `path`."""
        rules = build.ruleset(path)
        self.tell(
            documents=(build.document(build.WEB, rules),),
            rulesets=(rules,),
            ipcache={f"10.0.{index}.2/32": build.WEB for index, _ in enumerate(nodes)},
            node_addresses={node: {f"192.168.0.{index + 1}/32": 1} for index, node in enumerate(nodes)},
            identities={1: ("reserved:host",), build.WEB: ("k8s:app=web",)},
            pods={
                f"default/web-{node}": pod(f"web-{node}", node, f"10.0.{index}.2")
                for index, node in enumerate(nodes)
            },
        )


def pod(name: str, node: str, *addresses: str, identity: int = build.WEB) -> PlacedPod:
    return PlacedPod(f"default/{name}", tuple(map(packed_prefix, addresses)), node, identity=identity)


def _put(held: dict, changes: Mapping) -> None:  # type: ignore[type-arg]
    for key, value in changes.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


class Sink:
    """Remembers what came, with its time."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.nodes: dict[str, dict[int, str]] = {}
        self.failures: dict[str, tuple[tuple[int, str, str], ...]] = {}
        self.info: dict[str, NodeInfo] = {}
        self.hits: dict[str, dict[str, int]] = {}

    def connected(self, node: str, info: NodeInfo) -> None:
        self._note("connected", node)
        self.info[node] = info
        self.nodes[node] = {}

    def disconnected(self, node: str) -> None:
        self._note("disconnected", node)
        del self.nodes[node]

    def acked(self, node: str, ack: Ack) -> None:
        self._note("acked", node)
        applied = {} if ack.whole else self.nodes[node]
        self.nodes[node] = {
            number: digest
            for number, digest in {**applied, **ack.applied}.items()
            if number not in ack.dropped
        }
        self.failures[node] = tuple((item.identity, item.reason, item.message) for item in ack.failures)

    def counted(self, node: str, hits: Mapping[str, int]) -> None:
        self._note("counted", node)
        self.hits.setdefault(node, {}).update(hits)

    def _note(self, kind: str, node: str) -> None:
        self.log.append((kind, node))
        self.times.append(time.monotonic())


class Tokens:
    """Stands in for the API server: `token-of-NODE` is bound to NODE, anything else is nobody's."""

    def __init__(self) -> None:
        self.reviews = 0
        self.revoked: set[str] = set()

    async def authenticate(self, token: str) -> Caller:
        self.reviews += 1
        if token in self.revoked or not token.startswith("token-of-"):
            raise Denied("NotAuthenticated", "the token is not valid: it is forged, expired or revoked")
        return Caller(token.removeprefix("token-of-"))


@dataclass
class Target:
    """An agent without a kernel."""

    wanted: Wanted | None = None
    delay: float = 0.0
    refuse: str = ""
    """Why nothing can be put in force."""
    waiting: tuple[Failing, ...] = ()
    rule_hits: dict[str, int] = field(default_factory=dict)
    applied: list[Wanted] = field(default_factory=list)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.error)

    async def apply(self, wanted: Wanted) -> None:
        await asyncio.sleep(self.delay)
        self.error = self.refuse
        if self.refuse:
            raise KernelError("write", "policies", 0, self.refuse)
        self.wanted = wanted
        self.applied.append(wanted)

    def in_force(self) -> InForce:
        applied = (
            {item.identity: item.digest for item in self.wanted.snapshot.documents} if self.wanted else {}
        )
        failures = (Failing(0, "KernelError", self.error),) if self.error else ()
        return InForce(applied, failures + self.waiting)

    def hits(self) -> Mapping[str, int]:
        return dict(self.rule_hits)

    def listen(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def changed(self) -> None:
        for listener in self.listeners:
            listener()


@dataclass(frozen=True)
class Certificates:
    """An authority, and a certificate of `localhost`."""

    ca: Path
    certificate: Path
    key: Path

    @staticmethod
    def make(directory: Path, name: str = "localhost") -> Certificates:
        made = Certificates(directory / "ca.crt", directory / "tls.crt", directory / "tls.key")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        for argv in (
            ["-x509", *key, "-keyout", f"{directory}/ca.key", "-out", str(made.ca), "-subj", "/CN=ca"],
            [
                *("-x509", *key, "-keyout", str(made.key), "-out", str(made.certificate)),
                *("-subj", f"/CN={name}", "-CA", str(made.ca), "-CAkey", f"{directory}/ca.key"),
                *("-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE"),
            ],
        ):
            subprocess.run(["openssl", "req", *argv], check=True, capture_output=True, timeout=30)
        return made

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


class Replica:
    """One operator's server."""

    def __init__(self, certificates: Certificates, source: Source, settings: Settings | None = None) -> None:
        self.certificates = certificates
        self.source = source
        self.sink = Sink()
        self.tokens = Tokens()
        self.settings = settings or Settings()
        self.server = SyncServer(source, self.sink, self.tokens, self.settings)
        self.host = "127.0.0.1"
        self.port = 0
        self.running = False

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        await self.server.start(host, port, self.certificates.server())
        self.port = self.server.port
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.server.stop()

    async def restart(self, source: Source | None = None) -> None:
        """A new process on the same port, with everything forgotten."""
        await self.stop()
        self.source = source or self.source
        self.server = SyncServer(self.source, self.sink, self.tokens, self.settings)
        await self.start(self.host, self.port)


class Loader:
    """A client with a target, running."""

    def __init__(
        self, replica: Replica | Proxy, node: str, directory: Path, target: Target | None = None
    ) -> None:
        self.node = node
        self.target = target or Target()
        self.token = directory / f"token-{node}"
        self.token.write_text(f"token-of-{node}\n")
        self.follower = Follower(self.target)
        self.client = SyncClient(
            Operator("localhost", replica.port, "/v1/sync"),
            node,
            Credentials(self.token, replica.certificates.ca),
            self.follower,
            FAST,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.client.run())

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def snapshots(self) -> int:
        return len(self.target.applied)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come true in time")
        await asyncio.sleep(0.005)


class Proxy:
    """Bytes between loader and operator, that can be held up or cut."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.certificates = replica.certificates

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        """Nothing passes, in either direction, and nobody is told."""
        self._flowing.clear()

    def release(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._replica.host, self._replica.port)
        for source, target in ((reader, there_writer), (there_reader, writer)):
            self._writers.add(target)
            task = asyncio.create_task(self._copy(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
