"""`yett-loader run`: the agent, the recorder, the doorbell and the API on one event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from yett_loader.agent import Agent, fill
from yett_loader.api import Api, Server
from yett_loader.datapath import Datapath, Sizes
from yett_loader.discovery import node_addresses
from yett_loader.doorbell import Doorbell
from yett_loader.errors import AbiMismatch
from yett_loader.pins import Pins, locked
from yett_loader.recorder import Recorder
from yett_loader.sidecar.access import Access
from yett_loader.sidecar.counts import Counts
from yett_loader.sidecar.engine import Sidecar
from yett_loader.sidecar.process import allowed
from yett_loader.store import Store
from yett_loader.sync.client import SyncClient
from yett_loader.sync.follower import Follower
from yett_loader.sync.settings import Credentials, Operator
from yett_loader.sync.target import AgentTarget

log = logging.getLogger(__name__)

TIDY_SECONDS = 5.0
MANY_OBJECTS = 50_000
LOOK_AGAIN_SECONDS = 1.0
"""While a pod's interface is not found: neighbours and FDB entries come without a message to us."""


@dataclass(frozen=True, slots=True)
class Sync:
    """Where snapshots come from."""

    operator: Operator
    node: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Options:
    """Where things are."""

    pins: Pins
    image: Path
    state: Path
    api: Path
    allow_push: bool = False
    sizes: Sizes = field(default_factory=Sizes)
    sync: Sync | None = None
    """None: snapshots come over the API, or not at all."""
    outer_sidecar: bool = False
    """Envoy is another container's."""


async def serve(options: Options) -> None:
    """Until SIGTERM or SIGINT; what is pinned stays in force afterwards."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as stack:
        stack.enter_context(locked(options.pins.root))
        store = Store(options.state)
        store.prepare()
        datapath = await _datapath(options, store)
        stack.callback(datapath.close)
        stack.callback(store.close)
        agent = Agent(datapath, store)
        recorder = Recorder(datapath.maps["events"], lambda: agent.names)
        if "gate" in datapath.programs:
            agent.sidecar = _sidecar(options, datapath, agent, recorder)
        stack.callback(recorder.close)
        # Before anything can fail: an earlier run may have left the flag set.
        agent.observe(allowed=False)
        changed = asyncio.Event()
        stack.enter_context(Doorbell(changed.set))
        if options.sync is not None:
            agent.interfaces.lost.told = lambda: client is not None and client.told
        client: SyncClient | None = None
        await agent.start()
        client = _client(options.sync, agent)
        api = Api(agent, recorder, allow_push=options.allow_push, sync=client)
        server = Server(api, options.api)
        await server.start()
        log.info("enforcing on %d interfaces, API on %s", len(datapath.attached()), options.api)
        tasks = [
            asyncio.create_task(recorder.run(), name="recorder"),
            asyncio.create_task(_keep_looking(agent, changed), name="interfaces"),
            asyncio.create_task(_keep_tidy(agent), name="tidy"),
        ]
        if client is not None:
            tasks.append(asyncio.create_task(client.run(), name="sync"))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # raises what ended it: nothing else ends these
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
            await server.stop()
            if agent.sidecar is not None:
                await agent.sidecar.close()
    log.info("stopped; what is pinned below %s stays in force", options.pins.home)


def _client(sync: Sync | None, agent: Agent) -> SyncClient | None:
    if sync is None:
        return None
    return SyncClient(sync.operator, sync.node, sync.credentials, Follower(AgentTarget(agent)))


def _sidecar(options: Options, datapath: Datapath, agent: Agent, recorder: Recorder) -> Sidecar:
    # Beside the API's socket: a path that is short enough for a socket of its own.
    directory = options.api.with_name(f"{options.api.stem}-sidecar")
    counts = Counts(directory / "counts.json", allowed(directory))
    return Sidecar(
        directory,
        datapath.programs["gate"],
        options.pins.gate,
        agent.set_gate,
        Access(agent, recorder, counts).take,
        counts,
        socket.gethostname(),
        options.outer_sidecar,
    )


async def _datapath(options: Options, store: Store) -> Datapath:
    try:
        return Datapath.start(options.pins, options.image, options.sizes)
    except AbiMismatch as error:
        if not options.pins.home.exists():  # nothing is pinned: the object itself is wrong
            raise
        log.warning("moving to new maps: %s", error)
        own = await asyncio.to_thread(node_addresses)
        return Datapath.replace(
            options.pins, options.image, lambda datapath: fill(datapath, store, own), options.sizes
        )


async def _keep_looking(agent: Agent, changed: asyncio.Event) -> None:
    while True:
        with suppress(TimeoutError):
            again = agent.waiting or agent.error or agent.interfaces.newcomers.waiting
            async with asyncio.timeout(LOOK_AGAIN_SECONDS if again else None):
                await changed.wait()
        changed.clear()
        await agent.refresh()


async def _keep_tidy(agent: Agent) -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await agent.tidy()
        settle()


def settle() -> None:
    """Let the collector of cycles forget what has stayed for a while, if that is much.

    The state of a cluster of 10,000 pods is 200,000 objects without a cycle among them.  They go when nobody
    needs them; to look through them takes 80 ms, in which nothing else happens.
    """
    if len(gc.get_objects(generation=2)) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()
