"""The control plane's part of `make bench`: measure, check, write the result, draw the page."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from bench import machine
from bench.control import plots
from bench.control.churn import StatusWatch, churn
from bench.control.loaders import Fleet, WrongUpdate
from bench.control.measure import IDLE, SETTLED, WRITTEN, Counts, Plane
from bench.control.node import NAME, LoaderFailed, real_node
from bench.control.operator import OperatorDied, OperatorProcess
from bench.control.page import write_page
from bench.control.reference import WrongState, reference
from bench.control.relay import Relay
from bench.control.server import cluster, writer
from bench.control.shape import Json, Shape, node_name, node_object
from yett_operator.status.delay import COUNTERS

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    Shape(pods=1_000, policies=500, nodes=20),
    Counts(pods=15, workloads=10, changes=15, growth=10, churn_seconds=5, churn=50, policies=(500, 100)),
)
"""To see that it works; its numbers mean nothing."""


def main(*, quick: bool, draw: bool) -> int:
    """0, or 1 with the reason why the run is worth nothing."""
    folder = ROOT / ("build" if quick else "docs")
    path = folder / "benchmarks-control.json"
    if not draw:
        try:
            # The loop of the operator's own: what the simulated loaders cost is taken from it.
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(_run(*(QUICK if quick else (Shape(), Counts()))))
        except (OperatorDied, LoaderFailed, WrongUpdate, WrongState) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(result) + "\n")
    page = folder / "benchmarks-control.md"
    result = json.loads(path.read_text())
    write_page(result, page)
    if not quick:
        plots.draw(result, folder / "img")
    print(f"bench: wrote {page.relative_to(ROOT)}")
    return 0


async def _run(shape: Shape, counts: Counts) -> dict[str, Any]:
    watch = machine.Watch()
    with (
        tempfile.TemporaryDirectory(prefix="yett-bench-api-") as directory,
        cluster(Path(directory)) as api,
        real_node() as node,
    ):
        async with writer(api) as write:
            result = await _measure(Plane(api, write, node, shape, counts))
    return result | {"machine": machine.describe()} | watch.result()


async def _measure(plane: Plane) -> dict[str, Any]:
    shape, write, counts = plane.shape, plane.write, plane.counts
    result: dict[str, Any] = {"shape": asdict(shape), "counts": asdict(counts)}
    _say("namespaces, nodes and policies are written")
    await _furnish(plane)
    await _started(plane, real_pods=0)
    _say("an operator without pods")
    async with plane.operator() as (process, _), plane.loaders(real_pods=0):
        await plane.settled(process, IDLE)
        result["memory"] = {"base": asdict(process.memory())}
    pods = list(_pods(plane))
    few = shape.few
    _say(f"{few:,} pods are written, of each workload one: identities get numbers")
    await write.create_all(pods[:few])
    await _started(plane)
    _say("an operator with them: all documents are there")
    async with plane.operator() as (process, _), plane.loaders():
        await plane.settled(process, IDLE)
        result["memory"]["few"] = asdict(process.memory())
    _say(f"{shape.pods:,} pods are written")
    await write.create_all(pods[few:])
    _say("the first start with them")
    result["first start"] = await _started(plane)
    _say("a restart: the full compile")
    async with plane.operator() as (process, seconds):
        result["start"] = round(seconds, 2)
        result["compile"] = round((await _metrics(process))["yett_reconcile_duration_seconds_sum"], 2)
        async with plane.loaders() as (fleet, relay):
            await plane.settled(process, IDLE)
            result["memory"]["full"] = asdict(process.memory())
            await _changes(plane, process, fleet, relay, result)
            await plane.settled(process, IDLE)
            result["memory"]["end"] = asdict(process.memory())
            result["checked"] = await _check(plane, fleet, relay)
            result["growth"] = await _growth(plane, process, fleet)
            await plane.settled(process)
            result["checked"]["updates"] = (await _check(plane, fleet, relay))["updates"]
    return result


async def _started(plane: Plane, *, real_pods: int = 2) -> float:
    """Seconds until an operator serves; what it writes at the start is written, with all loaders there, and it is
    ended again.
    """
    async with plane.operator() as (process, seconds), plane.loaders(real_pods=real_pods):
        await plane.settled(process)
    return round(seconds, 2)


async def _changes(
    plane: Plane, process: OperatorProcess, fleet: Fleet, relay: Relay, result: dict[str, Any]
) -> None:
    shape, write, counts = plane.shape, plane.write, plane.counts
    _say("pods are added, one at a time")
    known = [plane.new_pod(number % shape.identities) for number in range(counts.pods)]
    result["pod"] = asdict(await plane.add_pods(fleet, process, known))
    new = [plane.new_pod(f"new-{number}") for number in range(counts.workloads)]
    result["workload"] = asdict(await plane.add_workloads(fleet, process, new))
    _say("a policy is changed again and again")
    result["policy"] = await plane.change_policies(relay, counts.changes)
    _say(f"{counts.churn} pods a second come and go")
    written = (await _metrics(process))[WRITTEN]
    async with StatusWatch(write).counting() as writes:
        load = await churn(write, lambda: plane.new_pod(plane.next_app()), counts.churn, counts.churn_seconds)
        seen = asdict(writes())
    seen["operator"] = (await _metrics(process))[WRITTEN] - written
    result["churn"] = {**load, "writes": seen}


async def _growth(plane: Plane, process: OperatorProcess, fleet: Fleet) -> dict[str, Any]:
    """Pods beside more and fewer policies that have nothing to do with them."""
    shape, write, counts = plane.shape, plane.write, plane.counts
    found: dict[str, Any] = {
        str(policies): {"read": [], "processor_ms": [], "compiler_ms": []} for policies in counts.policies
    }
    there = shape.policies
    await plane.add_pods(fleet, None, [plane.new_pod("probe")])
    for policies in _to_and_fro(counts.policies, counts.rounds):
        _say(f"pods are added beside {policies:,} policies")
        if policies > there:
            await write.create_all(shape.policy_objects(there, policies))
        else:
            await write.delete_all(shape.policy_objects(policies, there))
        there = policies
        await plane.settled(process, COUNTERS + SETTLED)  # no counters that wait to be written either
        before, used = await _metrics(process), process.processor_seconds()
        pods = [plane.new_pod("probe") for _ in range(counts.growth)]
        reach = await plane.add_pods(fleet, None, pods)  # being asked costs it something, too
        after, used = await _metrics(process), process.processor_seconds() - used
        spent, batches = (
            after[f"yett_reconcile_duration_seconds_{part}"]
            - before[f"yett_reconcile_duration_seconds_{part}"]
            for part in ("sum", "count")
        )
        item = found[str(policies)]
        item["read"] += reach.read
        item["processor_ms"].append(round(1000 * used / len(pods), 2))
        item["compiler_ms"].append(round(1000 * spent / batches, 3))
    return found


def _to_and_fro(values: tuple[int, ...], rounds: int) -> Iterator[int]:
    """So that what changes in time is no advantage to any of them."""
    for number in range(rounds):
        yield from reversed(values) if number % 2 else values


async def _check(plane: Plane, fleet: Fleet, relay: Relay) -> dict[str, int]:
    """The loaders have what a compile from scratch says; and they were under load."""
    _say("everything is compared with a compile from scratch")
    fleet.decode.read()
    wanted = await reference(plane.write)
    for node, loader in fleet.loaders.items():
        wanted.check(node, loader.state)
    if relay.applied != wanted.documents[NAME]:
        raise WrongState("the real loader has other documents in force than the reference compile")
    if not fleet.updates or not wanted.pods:
        raise WrongState("the simulated loaders got no update at all")
    return {
        "loaders": len(fleet.loaders) + 1,
        "updates": fleet.updates,
        "documents": sum(map(len, wanted.documents.values())),
        "pods": len(wanted.pods),
    }


async def _furnish(plane: Plane) -> None:
    shape, write = plane.shape, plane.write
    await write.create_all(shape.namespace_objects())
    await write.create_all([*shape.node_objects(), node_object(NAME, plane.node.address)])
    await write.create_all(shape.policy_objects())
    for name in (NAME, *map(node_name, range(shape.nodes))):
        plane.tokens[name] = await write.token(name)


def _pods(plane: Plane) -> Iterator[Json]:
    """Two of them are real; the client's workload is one more, which no policy keeps from asking."""
    yield plane.shape.pod_object(0, "real", plane.node.server, NAME)
    yield plane.shape.pod_object(plane.shape.identities, "real", plane.node.client, NAME)
    yield from plane.shape.pod_objects(plane.shape.pods - 2)


async def _metrics(process: OperatorProcess) -> dict[str, float]:
    return await asyncio.to_thread(process.metrics)


_BEGIN = time.monotonic()


def _say(what: str) -> None:
    print(f"bench: {time.monotonic() - _BEGIN:5.0f} s  {what}", flush=True)
