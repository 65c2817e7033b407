"""The agent on the running kernel: what is applied is in force, or it is said why not."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from dataclasses import replace

import pytest

from support import wanted as build
from support.agent import OWN, Node
from support.netns import Topology
from yett_loader import agent as agent_module
from yett_loader.agent import Agent
from yett_loader.assign import MapFull
from yett_loader.encode import Encoder
from yett_loader.enforce import Enforcer
from yett_loader.errors import KernelError
from yett_loader.plan import GRACE, Grace
from yett_loader.snapshot import Wanted
from yett_loader.state import DropPolicy, Prefix, PutEndpoint
from yett_loader.store import Store
from yett_loader.sync.target import AgentTarget
from yett_policy.document import Engine, Verdict
from yett_policy.identity import HOST
from yett_policy.service import Frontend

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]


async def test_a_snapshot_is_in_the_maps_when_apply_returns(host: Node, node: Topology) -> None:
    agent = await host.start()
    applied = await agent.apply(build.wanted(build.web(), build.client()))
    have = agent.have()
    assert have == agent._enforcer.read_state()
    assert applied.waiting == {}
    assert have.endpoints.keys() == {node.server.ifindex, node.client.ifindex}
    assert agent.datapath.attached() == sorted(have.endpoints)
    assert have.ipcache[Prefix.parse("10.9.1.2/32")] == build.CLIENT
    assert [have.ipcache[Prefix.parse(f"{address}/{128 if ':' in address else 32}")] for address in OWN] == [
        HOST
    ] * 4
    assert applied.epoch == have.epoch == 2
    agent.datapath.close()


async def test_applying_the_same_again_changes_nothing(host: Node) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web()))
    applied = await agent.apply(build.wanted(build.web()))
    assert applied.changes == 0
    agent.datapath.close()


async def test_what_does_not_fit_leaves_everything_as_it_was(host: Node) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web()))
    before = agent._enforcer.read_state()
    many = tuple((f"10.1.{index}.0/24", 400) for index in range(65))
    too_much = Wanted(build.snapshot(build.document(), ipcache=many), (build.web(),))
    with pytest.raises(MapFull, match="cannot place 69 entries: map ipcache holds 64"):
        await agent.apply(too_much)
    assert agent._enforcer.read_state() == before
    assert "map ipcache holds 64" in agent.error
    assert agent.wanted == Store(host.state).load_snapshot()
    agent.datapath.close()


async def test_a_failure_half_way_is_made_good_by_the_next_application(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web(), build.client(), path="/one"))

    def swap_fails(_enforcer: Enforcer, op: object) -> None:
        assert isinstance(op, PutEndpoint)
        raise KernelError("update", "map endpoints", 12)

    monkeypatch.setattr(Enforcer, "apply_one", swap_fails)
    with pytest.raises(KernelError):
        await agent.apply(build.wanted(build.web(), build.client(), path="/two"))
    monkeypatch.undo()
    assert len(agent._enforcer.read_state().rulesets) == 2
    epoch = agent._enforcer.config()["epoch"]
    wanted = build.wanted(build.web(), build.client(), path="/two")
    applied = await agent.apply(wanted)
    assert applied.epoch > epoch
    assert agent.have() == agent._enforcer.read_state()
    digest = wanted.snapshot.rulesets[0].digest
    assert agent.assignment.rulesets[digest].handle in agent.have().rulesets
    agent.datapath.close()


async def test_whatever_was_applied_before_the_last_snapshot_is_in_force_as_if_alone(host: Node) -> None:
    agent = await host.start()
    chance = random.Random(4)
    rules = [build.ruleset(f"/{number}") for number in range(4)]
    rows = [(f"10.8.{number}.0/24", build.WEB + number % 3) for number in range(9)]
    pods = [("default", f"p{number}", build.WEB, (f"10.8.{number}.1",)) for number in range(9)]
    ports = [(Frontend("10.96.0.1", 6, number), ((build.WEB, number),)) for number in range(1, 6)]
    snapshot, endpoints = build.snapshot(), (build.web(), build.client())
    for _ in range(25):
        part = chance.choice(["policies", "ipcache", "pods", "services", "endpoints"])
        if part == "policies":
            some = chance.sample(rules, 2)
            snapshot = replace(snapshot, documents=(build.document(build.WEB, *some),), rulesets=tuple(some))
        elif part == "endpoints":
            endpoints = chance.choice([(build.web(),), (build.client(),), (build.client(), build.web())])
        else:
            every = {"ipcache": rows, "pods": pods, "services": ports}[part]
            changed = tuple(sorted(chance.sample(every, chance.randint(0, len(every)))))
            snapshot = replace(snapshot, **{part: changed})
        await agent.apply(Wanted(snapshot, endpoints))
        have, names = agent.have(), agent.names
        assert agent.wanted is not None
        assert agent.wanted.snapshot == snapshot
        local = agent.wanted.endpoints
        assert have == agent._enforcer.read_state()
        want = Encoder().encode(snapshot, local, agent.assignment, own=OWN, local=endpoints)
        assert (have.ipcache, have.services, have.endpoints) == (want.ipcache, want.services, want.endpoints)
        assert {slot: have.policies[slot] for slot in want.policies} == want.policies
        assert {handle: have.rulesets[handle] for handle in want.rulesets} == want.rulesets
        known = {address: row[:2] for row in snapshot.pods for address in row[3]}
        assert {address: max(found)[:2] for address, found in names.pods.items()} == known
        with closing(Store(host.state)) as store:
            stored = store.load_snapshot()
        assert stored == replace(agent.wanted, endpoints=tuple(sorted(local, key=lambda item: item.name)))
    agent.datapath.close()


async def test_what_is_retired_is_dropped_after_the_grace(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web(), path="/one"))
    await agent.apply(build.wanted(build.web(), path="/two"))
    assert len(agent.have().rulesets) == 2
    await agent.tidy()
    assert len(agent.have().rulesets) == 2
    monkeypatch.setattr(agent_module, "GRACE", Grace(0.0, 0.0))
    await agent.tidy()
    assert len(agent.have().rulesets) == 1
    assert agent.have() == agent._enforcer.read_state()
    agent.datapath.close()


async def test_what_needs_a_sidecar_where_there_is_none_is_said_to_be_denied(host: Node) -> None:
    agent = await host.start()
    target = AgentTarget(agent)
    rules = build.ruleset(engine=Engine.SIDECAR)
    documents = build.document(build.WEB, rules), build.document(build.CLIENT, verdict=Verdict.ALLOW)
    await target.apply(Wanted(build.snapshot(*documents, rulesets=(rules,)), (build.web(),)))
    (failing,) = target.in_force().failures
    assert (failing.identity, failing.reason) == (build.WEB, "SidecarNACK")
    assert failing.message == "this node has no sidecar: requests that need it are denied"
    await target.apply(build.wanted(build.web()))
    assert target.in_force().failures == ()
    agent.datapath.close()


async def test_a_preview_changes_nothing(host: Node, node: Topology) -> None:
    agent = await host.start()
    before = agent._enforcer.read_state()
    assert agent.preview(build.wanted(build.web(node.server.ifindex)))
    assert agent._enforcer.read_state() == before
    assert not any(isinstance(op, DropPolicy) for op in agent.preview(build.wanted()))
    agent.datapath.close()


async def test_many_retired_policies_are_dropped_while_changes_go_on(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    documents = tuple(build.document(400 + number) for number in range(20))
    await agent.apply(Wanted(build.snapshot(*documents), (build.web(),)))
    await agent.apply(build.wanted(build.web(), path="/one"))
    assert len(agent.have().policies) == 22
    monkeypatch.setattr(agent_module, "GRACE", Grace(0.0, 0.0))
    tidying = asyncio.create_task(agent.tidy())
    await asyncio.sleep(0)  # it has the turn
    await agent.apply(build.wanted(build.web(), path="/two"))
    assert agent.have() == agent._enforcer.read_state()
    await tidying
    await agent.tidy()
    assert len(agent.have().policies) == 2
    assert len(agent.have().rulesets) == 1
    assert agent.have() == agent._enforcer.read_state()
    agent.datapath.close()


def crowd(first: int) -> Wanted:
    """Twenty documents; there is room for 47."""
    documents = tuple(build.document(first + number) for number in range(20))
    return Wanted(build.snapshot(*documents), (build.web(),))


async def test_changes_that_come_too_fast_wait_for_room_and_none_fails(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "GRACE", GRACE._replace(policies=0.2))
    agent = await host.start()
    waits: list[float | None] = []
    rest = Agent._rest

    def note(agent: Agent) -> float | None:
        waits.append(rest(agent))
        return waits[-1]

    monkeypatch.setattr(Agent, "_rest", note)
    for first in range(400, 600, 20):
        await agent.apply(crowd(first))
        assert agent.error == ""
        assert agent.wanted is not None
        assert {item.identity for item in agent.wanted.snapshot.documents} == {*range(first, first + 20)}
    assert waits
    assert None not in waits
    assert agent.have() == agent._enforcer.read_state()
    agent.datapath.close()


async def test_what_would_not_fit_either_when_all_that_is_retired_is_gone_fails(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "GRACE", GRACE._replace(policies=0.1))
    agent = await host.start()
    await agent.apply(crowd(400))
    await agent.apply(crowd(420))
    before = agent._enforcer.read_state()
    documents = tuple(build.document(500 + number) for number in range(50))
    with pytest.raises(MapFull, match="map policies is full"):
        await agent.apply(Wanted(build.snapshot(*documents), (build.web(),)))
    after = agent._enforcer.read_state()
    assert after.endpoints == before.endpoints
    assert after.policies.keys() < before.policies.keys()
    assert "map policies is full" in agent.error
    await agent.apply(crowd(440))
    assert agent.error == ""
    agent.datapath.close()


async def test_what_never_fits_does_not_wait(host: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "GRACE", GRACE._replace(policies=3600.0))
    agent = await host.start()
    await agent.apply(crowd(400))
    await agent.apply(crowd(420))
    many = tuple((f"10.1.{index}.0/24", 400) for index in range(65))
    with pytest.raises(MapFull, match="map ipcache holds 64"):
        await agent.apply(Wanted(build.snapshot(build.document(), ipcache=many), (build.web(),)))
    agent.datapath.close()
