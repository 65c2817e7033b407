"""Server and client over real websockets and TLS on loopback: what arrives, and how often."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from support import wanted as build
from support.sync import FAST, Loader, Replica, Source, Target, pod, until
from yett_operator.ports import PublishedSecret
from yett_operator.sync import history
from yett_policy.document import Engine, Verdict
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.sync.message import Failing

Serve = Callable[..., Awaitable[Replica]]
Load = Callable[..., Loader]


def addresses(loader: Loader) -> dict[str, int]:
    wanted = loader.target.wanted
    return dict(wanted.snapshot.ipcache) if wanted else {}


async def settled(replica: Replica, *loaders: Loader) -> None:
    """Every loader has put in force what the source says."""
    await until(
        lambda: all(
            item.follower.replica.revision == replica.source.revision
            and item.target.wanted is item.follower.replica.wanted
            for item in loaders
        )
    )


async def test_a_loader_gets_what_its_node_needs_and_says_what_is_in_force(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    wanted = loader.target.wanted
    assert wanted is not None
    assert [item.name for item in wanted.endpoints] == ["default/web-node-a"]
    assert [item.identity for item in wanted.snapshot.documents] == [build.WEB]
    assert wanted.snapshot.rulesets == (build.ruleset(),)
    assert dict(wanted.snapshot.ipcache) == {
        "10.0.0.2/32": build.WEB,
        "10.0.1.2/32": build.WEB,
        "192.168.0.1/32": 1,
    }
    assert dict(wanted.snapshot.identities) == source.identities
    assert len(wanted.snapshot.pods) == 2
    assert replica.sink.nodes["node-a"] == {build.WEB: source.documents[build.WEB].digest}
    assert replica.sink.info["node-a"].kernel


async def test_nothing_is_sent_before_the_operator_knows_anything(serve: Serve, load: Load) -> None:
    source = Source()
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: "node-a" in replica.sink.nodes)
    await asyncio.sleep(0.1)
    assert loader.target.applied == []
    source.begin("node-a")
    await until(lambda: replica.sink.nodes["node-a"])


async def test_a_new_pod_reaches_every_node_as_one_difference(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    loaders = [load(replica, "node-a"), load(replica, "node-b")]
    await settled(replica, *loaders)
    before = replica.server.counters.sent_bytes
    source.tell(ipcache={"10.0.0.9/32": build.WEB}, pods={"default/late": pod("late", "node-b", "10.0.0.9")})
    await settled(replica, *loaders)
    for loader in loaders:
        assert addresses(loader)["10.0.0.9/32"] == build.WEB
        assert loader.target.wanted is not None
        assert ("default", "late", build.WEB, ("10.0.0.9",)) in loader.target.wanted.snapshot.pods
    assert replica.server.counters.updates == {"snapshot": 2, "delta": 2}
    assert replica.server.counters.sent_bytes - before < 1500
    wanted = loaders[1].target.wanted
    assert wanted is not None
    assert [item.name for item in wanted.endpoints] == ["default/late", "default/web-node-b"]


async def test_an_address_that_gets_another_owner_has_one_identity_at_every_moment(
    serve: Serve, load: Load
) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    source.tell(ipcache={"10.0.1.2/32": None}, pods={"default/web-node-b": None})
    source.tell(
        ipcache={"10.0.1.2/32": build.CLIENT},
        identities={build.CLIENT: ("k8s:app=client",)},
        pods={"default/client": pod("client", "node-b", "10.0.1.2", identity=build.CLIENT)},
    )
    await settled(replica, loader)
    assert addresses(loader)["10.0.1.2/32"] == build.CLIENT
    for wanted in loader.target.applied:
        owners = {pod[2] for pod in wanted.snapshot.pods if "10.0.1.2" in pod[3]}
        assert {dict(wanted.snapshot.ipcache).get("10.0.1.2/32")} - {None} == owners


async def test_a_policy_change_sends_its_document_and_ruleset_and_no_others(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    source.tell(
        documents=(build.document(build.CLIENT, verdict=Verdict.ALLOW),),
        pods={"default/client": pod("client", "node-a", "10.0.0.3", identity=build.CLIENT)},
    )
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    first = loader.target.wanted
    rules = build.ruleset("/other")
    source.tell(documents=(build.document(build.WEB, rules),), rulesets=(rules,))
    await settled(replica, loader)
    second = loader.target.wanted
    assert first is not None
    assert second is not None
    assert second.snapshot.rulesets == (rules,)
    assert second.snapshot.documents[1] is first.snapshot.documents[1]
    await until(lambda: replica.sink.nodes["node-a"][build.WEB] == source.documents[build.WEB].digest)


async def test_a_document_of_an_identity_that_is_not_here_is_not_sent_here(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    revision = loader.follower.replica.revision
    for _ in range(3):
        source.tell(documents=(build.document(build.CLIENT, verdict=Verdict.ALLOW),))
    await asyncio.sleep(0.15)
    assert loader.follower.replica.revision == revision
    source.tell(ipcache={"10.5.0.1/32": build.CLIENT})
    await settled(replica, loader)
    assert replica.server.counters.updates == {"snapshot": 1, "delta": 1}


async def test_an_identity_that_comes_to_a_node_brings_its_document(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    source.tell(documents=(build.document(build.CLIENT, verdict=Verdict.ALLOW),))
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    source.tell(pods={"default/client": pod("client", "node-a", "10.0.0.3", identity=build.CLIENT)})
    await until(lambda: build.CLIENT in replica.sink.nodes["node-a"])
    source.tell(pods={"default/client": None})
    await until(lambda: build.CLIENT not in replica.sink.nodes["node-a"])


async def test_the_nodes_own_addresses_go_before_those_of_the_cluster(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    source.tell(ipcache={"192.168.0.1/32": 6}, identities={6: ("reserved:remote-node",)})
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    assert addresses(loader)["192.168.0.1/32"] == 1
    source.tell(node_addresses={"node-a": {}})
    await settled(replica, loader)
    assert addresses(loader)["192.168.0.1/32"] == 6


async def test_who_is_too_far_behind_gets_a_snapshot(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CHANGES", 8)
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await settled(replica, loader)
    loader.target.delay = 0.2
    for number in range(30):
        source.tell(ipcache={f"10.7.0.{number}/32": build.WEB})
        await asyncio.sleep(0)
    source.tell(ipcache={"10.7.0.3/32": None})
    await settled(replica, loader)
    assert replica.server.counters.updates["snapshot"] == 2
    await until(lambda: sum(prefix.startswith("10.7.0.") for prefix in addresses(loader)) == 29)


async def test_a_slow_loader_gets_everything_in_few_updates_and_slows_nobody(
    serve: Serve, load: Load
) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    slow, quick = load(replica, "node-a"), load(replica, "node-b")
    await settled(replica, slow, quick)
    slow.target.delay = 0.5
    begun = slow.snapshots
    delays = []
    for number in range(12):
        revision = source.tell(ipcache={f"10.7.0.{number}/32": build.WEB})
        start = time.monotonic()
        await until(lambda: quick.follower.replica.revision == revision)  # noqa: B023
        delays.append(time.monotonic() - start)
        await asyncio.sleep(0.06)
    assert statistics.median(delays) < 0.1
    await settled(replica, slow)
    await until(lambda: len(addresses(slow)) == len(addresses(quick)) == 12 + 3)
    assert slow.snapshots - begun <= 4


async def test_what_cannot_be_put_in_force_is_reported_and_tried_again(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica, target=Target(refuse="the map is full"))
    await until(lambda: replica.sink.failures.get("node-a"))
    assert replica.sink.failures["node-a"][0][1:] == ("KernelError", "the map is full")
    assert replica.sink.nodes["node-a"] == {}
    loader.target.refuse = ""
    await until(lambda: replica.sink.nodes["node-a"])
    assert replica.sink.failures["node-a"] == ()


async def test_what_changes_on_the_node_alone_is_reported_too(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    loader.target.waiting = (Failing(build.WEB, "NotAttached", "default/web: its interface is gone"),)
    loader.target.changed()
    await until(lambda: replica.sink.failures["node-a"])
    assert replica.sink.failures["node-a"] == (
        (build.WEB, "NotAttached", "default/web: its interface is gone"),
    )
    loader.target.waiting = ()
    loader.target.changed()
    await until(lambda: not replica.sink.failures["node-a"])


async def test_an_update_is_answered_however_short_ago_there_was_a_report(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.sync.FAST", replace(FAST, report=3600.0))
    source = Source()
    source.begin("node-a")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    loader.target.waiting = (Failing(build.WEB, "NotAttached", "said within the hour"),)
    loader.target.changed()
    for path in ("/one", "/two", "/three"):
        rules = build.ruleset(path)
        source.tell(documents=(build.document(build.WEB, rules),), rulesets=(rules,))
        digest = source.documents[build.WEB].digest
        await until(lambda: replica.sink.nodes["node-a"][build.WEB] == digest)  # noqa: B023 - at once


async def test_counters_come_when_they_changed(serve: Serve, load: Load) -> None:
    replica = await serve(Source())
    target = Target(rule_hits={"a": 1, "b": 2, "never": 0} | {f"rule-{n}": n + 1 for n in range(5000)})
    load(replica, target=target)
    await until(lambda: len(replica.sink.hits.get("node-a", ())) == 5002)
    assert "never" not in replica.sink.hits["node-a"]
    assert replica.sink.hits["node-a"]["rule-4999"] == 5000


async def test_a_hundred_loaders_are_told_of_a_pod_within_moments(serve: Serve, load: Load) -> None:
    nodes = [f"node-{number:03}" for number in range(100)]
    source = Source()
    source.begin(*nodes)
    replica = await serve(source)
    loaders = [load(replica, node) for node in nodes]
    await until(lambda: len(replica.sink.nodes) == 100 and all(replica.sink.nodes.values()), 60)
    start = time.monotonic()
    source.tell(ipcache={"10.9.0.1/32": build.WEB})
    await settled(replica, *loaders)
    assert time.monotonic() - start < 5  # a loaded machine; the benchmark measures
    assert replica.server.counters.updates == {"snapshot": 100, "delta": 100}
    assert replica.server.counters.streams == 100


async def test_the_first_snapshot_is_made_once_for_all(
    serve: Serve, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yett_operator.sync import frames  # noqa: PLC0415

    made: list[int] = []
    whole = frames._whole

    def counting(*parts: object) -> object:
        made.append(1)
        return whole(*parts)  # type: ignore[arg-type]

    monkeypatch.setattr(frames, "_whole", counting)
    source = Source()
    source.begin("node-0", "node-1", "node-2")
    replica = await serve(source)
    loaders = [load(replica, f"node-{number}") for number in range(2)]
    await settled(replica, *loaders)
    source.tell(ipcache={"10.9.0.1/32": build.WEB})
    await settled(replica, *loaders)
    late = load(replica, "node-2")
    await settled(replica, late)
    assert made == [1]
    assert addresses(late)["10.9.0.1/32"] == build.WEB


async def test_a_secret_goes_to_the_nodes_whose_rules_name_it_and_again_when_it_changes(
    serve: Serve, load: Load
) -> None:
    rules = build.ruleset(
        engine=Engine.SIDECAR, changes=(HeaderChange("x-a", ChangeOp.REPLACE, None, "n/s"),)
    )
    source = Source()
    source.begin("node-a", "node-b")
    source.tell(
        documents=(build.document(400, rules),),
        rulesets=(rules,),
        identities={400: ("k8s:app=api",)},
        pods={"default/api": pod("api", "node-b", "10.0.9.2", identity=400)},
        secrets={"n/s": PublishedSecret("0" * 32, "first"), "n/other": PublishedSecret("1" * 32, "other")},
    )
    replica = await serve(source)
    without, having = load(replica, "node-a"), load(replica, "node-b")
    await settled(replica, having)
    assert having.target.wanted is not None
    assert having.target.wanted.secrets == {"n/s": "first"}
    sent = replica.server.counters.sent_bytes
    source.tell(secrets={"n/s": PublishedSecret("2" * 32, "second")})
    await until(lambda: having.target.wanted and having.target.wanted.secrets == {"n/s": "second"})
    assert replica.server.counters.sent_bytes - sent < 2000
    source.tell(ipcache={"10.0.9.9/32": 400})
    await settled(replica, without, having)
    assert having.target.wanted.secrets == {"n/s": "second"}
    source.tell(secrets={"n/s": None})
    await until(lambda: having.target.wanted and having.target.wanted.secrets == {})
    assert all(not each.secrets for each in without.target.applied)
