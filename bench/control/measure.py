"""One change at a time, from the API server's answer to its effect."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.control.loaders import Expectation, Fleet
from bench.control.node import NAME, RealNode
from bench.control.operator import OperatorProcess
from bench.control.reference import WrongState
from bench.control.relay import Relay
from bench.control.server import Writer
from bench.control.shape import Json, Shape, app_name, node_name
from support.apiserver import ApiServer, free_ports

QUIET = 0.2
"""Seconds between two changes that are measured apart: the operator then sends at once."""
SETTLED = 3.0
IDLE = 12.0
"""Seconds without work after which memory is what stays: a snapshot is kept for others for 5, and what is free goes
back every 5."""
"""Seconds without a reconcile or a status write after which nothing more is to come."""
WRITTEN = 'yett_status_writes_total{result="written"}'
SENT_AT = "yett_sync_last_sent_timestamp_seconds"
"""In the operator's metrics."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each thing is measured."""

    pods: int = 120
    workloads: int = 120
    changes: int = 120
    growth: int = 20
    policies: tuple[int, ...] = (4_000, 1_000, 100)
    """That do not select the pod that is added."""
    rounds: int = 3
    """Over those, to and fro, with `growth` pods each."""
    churn_seconds: int = 30
    churn: int = 100
    """Pods a second that come, and as many that go."""


@dataclass(slots=True)
class Reach:
    """Milliseconds from the API server's answer, change by change."""

    sent: list[float] = field(default_factory=list)
    """Until the operator has handed the last loader's update to the network."""
    read: list[float] = field(default_factory=list)
    """Until the last loader has read it."""

    async def add(self, answered: float, heard: Expectation, process: OperatorProcess | None) -> None:
        """One more, as soon as everybody has heard of it; `process` is asked when it had sent it."""
        self.read.append(1000 * (await heard.last() - answered))
        if process is None:
            return
        sent = (await asyncio.to_thread(process.metrics))[SENT_AT] - time.time() + time.monotonic()
        self.sent.append(1000 * (sent - answered))


class Plane:
    """The control plane under measurement."""

    def __init__(self, api: ApiServer, write: Writer, node: RealNode, shape: Shape, counts: Counts) -> None:
        self.api, self.write, self.node, self.shape, self.counts = api, write, node, shape, counts
        self.tokens: dict[str, str] = {}
        (self.port,) = free_ports(1)
        self._runs = 0
        self._pods = 0
        self._paths = 0

    # -- the pieces

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[tuple[OperatorProcess, float]]:
        """Running and ready, and how many seconds that took."""
        self._runs += 1
        with OperatorProcess(self.api, self.port, f"operator-{self._runs}") as process:
            yield process, await asyncio.to_thread(process.ready)

    @asynccontextmanager
    async def loaders(self, *, real_pods: int = 2) -> AsyncIterator[tuple[Fleet, Relay]]:
        """All connected, the real one in force."""
        authority = await self.write.authority()
        tls = ssl.create_default_context(cadata=authority)
        fleet = Fleet({name: token for name, token in self.tokens.items() if name != NAME})
        async with (
            fleet.connected(self.port, tls),
            self.node.following(self.tokens[NAME], self.port, authority, pods=real_pods) as relay,
        ):
            yield fleet, relay

    async def settled(self, process: OperatorProcess, quiet: float = SETTLED) -> None:
        """Nothing is reconciled or written any more, and nothing has been for so many seconds."""
        before: object = None
        since = time.monotonic()
        while time.monotonic() - since < quiet:
            metrics = await asyncio.to_thread(process.metrics)
            now = [metrics.get(name) for name in ("yett_reconcile_duration_seconds_count", WRITTEN)]
            if now != before:
                before, since = now, time.monotonic()
            await asyncio.sleep(0.25)

    # -- one change at a time

    def new_pod(self, app: int | str, node: str | None = None) -> Json:
        """Of a workload of the shape, or of a new one by its name."""
        self._pods += 1
        number = self._pods
        obj = self.shape.pod_object(
            app if isinstance(app, int) else 0,
            f"x{number:04x}",
            f"10.200.{number >> 8}.{number & 255}",
            node or node_name(number % self.shape.nodes),
        )
        if isinstance(app, str):
            obj["metadata"]["name"] = f"{app}-x{number:04x}"
            obj["metadata"]["labels"] = {"app": app, "tier": "batch"}
        return obj

    def next_app(self) -> int:
        """Workloads of the shape in turn."""
        return self._pods % self.shape.identities

    async def add_pods(self, fleet: Fleet, process: OperatorProcess | None, pods: Sequence[Json]) -> Reach:
        """From the API server's answer to an address until all loaders have it."""
        reach = Reach()
        for pod in pods:
            status = pod.pop("status")
            await self.write.create(pod)
            await asyncio.sleep(QUIET)
            heard = fleet.expect(f"{status['podIP']}/32")
            answered = await self.write.status(pod, status)
            await reach.add(answered, heard, process)
            fleet.decode.read()
            await asyncio.sleep(QUIET)
        return reach

    async def add_workloads(self, fleet: Fleet, process: OperatorProcess, pods: Sequence[Json]) -> Reach:
        """From the API server's answer to a pod of a new identity until all loaders have it."""
        reach = Reach()
        for pod in pods:
            status, metadata = pod.pop("status"), pod["metadata"]
            heard = fleet.expect(f"{metadata['namespace']}/{metadata['name']}")
            await self.write.create(pod)
            answered = time.monotonic()
            await reach.add(answered, heard, process)
            fleet.decode.read()
            await self.write.status(pod, status)
            await asyncio.sleep(2 * QUIET)
        return reach

    async def change_policies(self, relay: Relay, count: int) -> list[float]:
        """Milliseconds from the API server's answer to a policy until the real loader says that it is in force."""
        server = await self.identity()
        samples = []
        for _ in range(count):
            self._paths += 1
            path, before = f"/change/{self._paths}", f"/change/{self._paths - 1}"
            policy = self.shape.http_policy(
                0, f"{app_name(0)}-0", (path,), [self.shape.peer(self.shape.identities)]
            )
            digest = relay.applied[server]
            answered = await self.write.respecify(policy)
            at = await relay.in_force(server, digest)
            samples.append(1000 * (at - answered))
            await self._judged(path, before)
            await asyncio.sleep(QUIET)
        return samples

    async def _judged(self, allowed: str, denied: str) -> None:
        """By packets: the kernel does now what the policy says."""
        for path, wanted in ((allowed, True), (denied, False)):
            if await asyncio.to_thread(self.node.get, path) is not wanted:
                raise WrongState(
                    f"GET {path} was {'denied' if wanted else 'allowed'} after the loader's answer"
                )

    async def identity(self) -> int:
        """Of the pod behind the policy that changes."""
        wanted = f"k8s:app={app_name(0)}"
        objects = await self.write.list("/apis/yett.dev/v1alpha1/securityidentities")
        return next(int(each["spec"]["number"]) for each in objects if wanted in each["spec"]["labels"])
