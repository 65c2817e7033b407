"""Connections that break, stall and come back; operators that stop and start; tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from support import wanted as build
from support.sync import FAST, Loader, Proxy, Replica, Source, Target, until
from yett_operator.sync.settings import Settings

Serve = Callable[..., Awaitable[Replica]]
Load = Callable[..., Loader]


@pytest.fixture
async def between() -> AsyncIterator[Callable[[Replica], Awaitable[Proxy]]]:
    """A proxy in front of an operator."""
    running: list[Proxy] = []

    async def start(replica: Replica) -> Proxy:
        proxy = Proxy(replica)
        await proxy.start()
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        await proxy.stop()


FAST_RENEWAL = replace(FAST, renew=0.2)
Between = Callable[[Replica], Awaitable[Proxy]]


async def test_a_broken_connection_is_made_again_and_goes_on_where_it_was(
    serve: Serve, load: Load, between: Between
) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    proxy = await between(replica)
    loader = load(proxy)
    await until(lambda: replica.sink.nodes.get("node-a"))
    proxy.cut()
    source.tell(ipcache={"10.8.0.1/32": build.WEB})
    await until(lambda: loader.follower.replica.revision == source.revision)
    updates = replica.server.counters.updates
    assert updates.keys() == {"snapshot", "delta"}
    assert updates["snapshot"] == 1
    assert updates["delta"] <= 2  # the first may have gone into the broken connection
    assert ("disconnected", "node-a") not in replica.sink.log


async def test_an_update_under_way_is_put_in_force_though_its_connection_is_lost(
    serve: Serve, load: Load, between: Between
) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    proxy = await between(replica)
    loader = load(proxy, target=Target(delay=0.3))
    await until(lambda: loader.follower.replica.revision)
    assert loader.snapshots == 0
    proxy.cut()
    await until(lambda: replica.sink.nodes.get("node-a"))
    assert replica.server.counters.updates["snapshot"] == 1


async def test_a_loader_that_goes_is_reported_when_it_does_not_come_back(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source, Settings(grace=0.2))
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    await loader.stop()
    await until(lambda: ("disconnected", "node-a") in replica.sink.log)
    loader.start()
    await until(lambda: replica.sink.nodes.get("node-a"))


async def test_an_operator_that_starts_anew_sends_no_ruleset_that_is_there_already(
    serve: Serve, load: Load
) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    first = loader.target.wanted
    anew = Source("second")
    anew.begin("node-a")
    anew.tell(ipcache={"10.8.0.1/32": build.WEB})
    await replica.restart(anew)
    await until(lambda: loader.follower.replica.epoch == "second")
    second = loader.follower.replica.wanted
    assert first is not None
    assert second.snapshot.rulesets[0] is first.snapshot.rulesets[0]
    assert second.snapshot.documents[0] is first.snapshot.documents[0]
    assert dict(second.snapshot.ipcache)["10.8.0.1/32"] == build.WEB


async def test_a_loader_that_starts_anew_is_sent_no_ruleset_that_is_on_its_disk(
    serve: Serve, load: Load
) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    await loader.stop()
    again = load(replica, target=Target(wanted=loader.target.wanted))
    await until(lambda: again.follower.replica.revision)
    assert again.target.wanted is not None
    assert loader.target.wanted is not None
    assert again.target.wanted.snapshot.rulesets[0] is loader.target.wanted.snapshot.rulesets[0]


async def test_while_no_operator_is_there_the_loader_says_since_when(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: loader.target.wanted)
    assert loader.client.status()["stale_since"] is None
    await replica.stop()
    await until(lambda: loader.follower.stale_since)
    assert loader.client.gauges()["yett_sync_connected"][1] == 0
    assert loader.target.wanted is not None


async def test_a_silent_loader_is_reported_within_three_seconds_and_not_forgotten(
    serve: Serve, load: Load, between: Between
) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    proxy = await between(replica)
    load(proxy, "node-a")
    other = load(replica, "node-b")
    await until(lambda: len(replica.sink.nodes) == 2 and all(replica.sink.nodes.values()))
    applied = dict(replica.sink.nodes["node-a"])
    begun = time.monotonic()
    proxy.hold()
    await until(lambda: ("disconnected", "node-a") in replica.sink.log)
    assert time.monotonic() - begun < 3.5
    source.tell(ipcache={"10.8.0.1/32": build.WEB})
    await until(lambda: other.follower.replica.revision == source.revision)
    proxy.release()
    await until(lambda: replica.sink.nodes.get("node-a") == applied)


async def test_a_loader_that_stays_silent_is_hung_up_on(serve: Serve, load: Load, between: Between) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source, Settings(ping=0.05, silent=0.2, dead=0.5))
    proxy = await between(replica)
    load(proxy)
    await until(lambda: replica.sink.nodes.get("node-a"))
    proxy.hold()
    await until(lambda: replica.server.counters.refused["SILENT"] == 1)
    await until(lambda: replica.server.counters.streams == 0)


async def test_a_loader_that_reads_nothing_costs_no_queue(serve: Serve, load: Load, between: Between) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    proxy = await between(replica)
    stuck, other = load(proxy, "node-a"), load(replica, "node-b")
    await until(lambda: len(replica.sink.nodes) == 2 and all(replica.sink.nodes.values()))
    proxy.hold()
    before = replica.server.counters.updates["delta"]
    for number in range(200):
        source.tell(ipcache={f"10.8.{number}.1/32": build.WEB})
        await asyncio.sleep(0.002)
    await until(lambda: other.follower.replica.revision == source.revision)
    to_other = replica.server.counters.updates["delta"] - before
    assert to_other < 50  # spaced
    proxy.release()
    await until(lambda: stuck.follower.replica.revision == source.revision)
    assert dict(stuck.follower.replica.ipcache) == source.addresses


async def test_a_newer_stream_of_a_node_takes_the_place_of_the_older(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    first = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    assert first.task is not None
    second = load(replica)
    await until(lambda: second.snapshots)
    await first.stop()
    await until(lambda: replica.server.counters.streams == 1)
    source.tell(ipcache={"10.8.0.1/32": build.WEB})
    await until(lambda: second.follower.replica.revision == source.revision)
    assert ("disconnected", "node-a") not in replica.sink.log


# -- replicas -------------------------------------------------------------------------------


async def test_when_the_operator_followed_stops_the_other_is_followed(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Source("one"), Source("two")
    one.begin("node-a")
    two.begin("node-a")
    first = await serve(one, host="127.0.0.1")
    second = await serve(two, host="127.0.0.2", port=first.port)
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    loader = load(first)
    await until(lambda: first.sink.nodes.get("node-a") or second.sink.nodes.get("node-a"))
    told, other = (first, second) if first.server.counters.streams else (second, first)
    begun = time.monotonic()
    await told.stop()
    await until(lambda: loader.follower.replica.epoch == other.source.epoch)
    assert time.monotonic() - begun < 3
    other.source.tell(ipcache={"10.8.0.1/32": build.WEB})
    await until(lambda: loader.follower.replica.revision == other.source.revision)
    assert other.sink.nodes["node-a"] == {build.WEB: two.documents[build.WEB].digest}


async def test_loaders_spread_over_the_operators(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await serve(Source("one"), host="127.0.0.1")
    second = await serve(Source("two"), host="127.0.0.2", port=first.port)
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    for number in range(20):
        load(first, f"node-{number}")
    await until(lambda: first.server.counters.streams + second.server.counters.streams == 20)
    assert 0 < first.server.counters.streams < 20


def resolve_to(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """What `localhost` is, as a headless Service has an address for each replica."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: asyncio.BaseEventLoop, host: str, port: int, **options: int) -> list[object]:
        if host != "localhost":
            return list(await real(self, host, port, **options))
        return [(2, 1, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


# -- tokens ---------------------------------------------------------------------------------


async def test_a_token_is_read_again_for_each_connection_and_renewed_on_open_ones(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await serve(Source(), Settings(token=0.6, ping=0.05))
    loader = load(replica)
    monkeypatch.setattr(loader.client, "_times", FAST_RENEWAL)
    await until(lambda: "node-a" in replica.sink.nodes)
    await asyncio.sleep(1.5)
    assert replica.server.counters.refused == {}
    assert replica.tokens.reviews > 5
    replica.tokens.revoked.add("token-of-node-a")
    await until(lambda: replica.server.counters.refused["NOT_AUTHENTICATED"])
    await until(lambda: replica.server.counters.refused["NotAuthenticated"] >= 2)


async def test_without_a_renewal_a_stream_ends_with_its_token(serve: Serve, load: Load) -> None:
    replica = await serve(Source(), Settings(token=0.2, ping=0.05))
    load(replica)
    await until(lambda: replica.server.counters.refused["NOT_AUTHENTICATED"] >= 2)
    assert replica.server.counters.accepted >= 2  # it comes back with what is in the file now


async def test_a_loader_without_a_token_waits_for_one(
    serve: Serve, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    replica = await serve(Source())
    loader = load(replica)
    loader.token.unlink()
    await until(lambda: "cannot read the token" in caplog.text)
    await asyncio.sleep(0.5)
    assert caplog.text.count("cannot read the token") == 1
    loader.token.write_text("token-of-node-a")
    await until(lambda: "node-a" in replica.sink.nodes)
