"""The agent on the running kernel: apply, restart, pods that come and go; its API."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import aiohttp
import pytest

from support import wanted as build
from support.killed import killed
from support.netns import Namespace, Topology, ip
from yett_loader import agent as agent_module
from yett_loader.agent import Agent, fill
from yett_loader.api import Api, Server
from yett_loader.assign import MapFull
from yett_loader.datapath import Datapath, Sizes
from yett_loader.encode import Encoder
from yett_loader.enforce import Enforcer
from yett_loader.errors import AbiMismatch, KernelError
from yett_loader.image import Effect, run
from yett_loader.kernel import Program, abi
from yett_loader.kernel.link import Link
from yett_loader.lost import HOLD, Lost
from yett_loader.pins import Pins, remove_tree
from yett_loader.recorder import Recorder
from yett_loader.snapshot import Wanted, to_bytes
from yett_loader.state import DropPolicy, MapState, Prefix, PutEndpoint
from yett_loader.store import Store
from yett_loader.sync.target import AgentTarget
from yett_policy.document import SCHEMA, Engine, Verdict
from yett_policy.identity import HOST
from yett_policy.reason import Reason
from yett_policy.service import Frontend

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]

OWN = ("10.9.1.1", "10.9.2.1", "fd00:9:1::1", "fd00:9:2::1")
"""Addresses of the node."""
SIZES = Sizes(policies=64, rulesets=8, endpoints=16, ipcache=64, flows=256)


@pytest.fixture
def node(pods: Topology) -> Iterator[Topology]:
    """The test runs in the node's namespace."""
    with pods.node:
        yield pods


class Node:
    """One agent at a time on one pin directory."""

    def __init__(self, bpffs: Path, state: Path, image: Path) -> None:
        self.pins = Pins(bpffs / "yett")
        self.state = state
        self.image = image

    async def start(self) -> Agent:
        agent = Agent(Datapath.start(self.pins, self.image, SIZES), Store(self.state))
        await agent.start()
        return agent


@pytest.fixture
def host(bpffs: Path, tmp_path: Path, tiny: Path, node: Topology) -> Iterator[Node]:
    made = Node(bpffs, tmp_path / "state", tiny)
    yield made
    Datapath.remove(made.pins)


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


async def test_a_restart_takes_over_what_is_pinned_and_changes_no_verdict(host: Node) -> None:
    first = await host.start()
    await first.apply(build.wanted(build.web(), build.client()))
    before, names = first.have(), first.assignment
    first.datapath.close()
    second = await host.start()
    after = second.have()
    assert second.assignment == names
    assert (after.policies, after.rulesets) == (before.policies, before.rulesets)
    assert (after.ipcache, after.endpoints) == (before.ipcache, before.endpoints)
    assert after.epoch == before.epoch + 1  # flows judge again: an earlier change may lack its epoch
    second.datapath.close()


async def test_a_restart_without_its_numbers_still_changes_no_verdict(host: Node) -> None:
    first = await host.start()
    await first.apply(build.wanted(build.web()))
    before = first.have()
    first.datapath.close()
    damage(host.state / "numbers.db")
    second = await host.start()
    after = second.have()
    assert after.endpoints.keys() == before.endpoints.keys()
    for ifindex, endpoint in after.endpoints.items():
        old = before.policies[before.endpoints[ifindex].policy]
        new = after.policies[endpoint.policy]
        assert {key: value.verdict for key, value in old.items()} == {k: v.verdict for k, v in new.items()}
    second.datapath.close()


async def test_maps_of_another_layout_are_replaced_by_filled_ones(host: Node, tiny_newer: Path) -> None:
    first = await host.start()
    await first.apply(build.wanted(build.web(), build.client()))
    before = first.have()
    first.datapath.close()
    host.pins.set_mark("layout", "0123456789abcdef")
    with pytest.raises(AbiMismatch):
        await host.start()
    store = Store(host.state)
    seen: list[MapState] = []

    def filling(datapath: Datapath) -> None:
        fill(datapath, store, OWN)
        seen.append(Enforcer(datapath.maps).read_state())

    Datapath.replace(host.pins, tiny_newer, filling, SIZES).close()
    assert seen[0].endpoints.keys() == before.endpoints.keys()
    assert seen[0].ipcache == before.ipcache
    host.image = tiny_newer
    second = await host.start()
    after = second.have()
    assert replace(after, epoch=0) == replace(seen[0], epoch=0)
    second.datapath.close()


def test_an_agent_killed_at_any_step_is_followed_by_one_that_goes_on(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at every step that changes pins, from start to application; then another start."""
    monkeypatch.setattr(agent_module, "GRACE", 0.0)
    before, _ = asyncio.run(restart_and_apply(host, "/0"))
    for at in count():

        def dying(effect: Effect, path: str = f"/killed/{at}") -> None:  # type: ignore[type-arg]
            asyncio.run(restart_and_apply(host, path, effect))

        was_killed = killed(at, dying)
        after, left = asyncio.run(restart_and_apply(host, f"/{at + 1}"))
        for state in (left, after):  # each endpoint has its policy, whole, and that has its rulesets
            assert state.endpoints.keys() == before.endpoints.keys()
            for endpoint in state.endpoints.values():
                entries = state.policies[endpoint.policy].values()
                assert endpoint.ready
                assert {entry.ruleset for entry in entries} - {0} <= state.rulesets.keys()
        if not was_killed:
            break
    assert at > 6


async def restart_and_apply(host: Node, path: str, effect: Effect = run) -> tuple[MapState, MapState]:  # type: ignore[type-arg]
    """What the maps hold afterwards, and what they held when the agent had opened them."""
    agent = Agent(Datapath.start(host.pins, host.image, SIZES, effect), Store(host.state))
    found = agent.have()
    await agent.start()
    await agent.apply(build.wanted(build.web(), build.client(), path=path))
    await agent.tidy()
    agent.datapath.close()
    return Enforcer(Datapath.adopt(host.pins).maps).read_state(), found


async def test_maps_that_an_older_loader_did_not_pin_are_replaced_by_filled_ones(host: Node) -> None:
    first = await host.start()
    await first.apply(build.wanted(build.web(), build.client()))
    before = first.have()
    first.datapath.close()
    remove_tree(host.pins.inner)
    with pytest.raises(AbiMismatch, match="have no pin"):
        await host.start()
    Datapath.replace(
        host.pins, host.image, lambda datapath: fill(datapath, Store(host.state), OWN), SIZES
    ).close()
    second = await host.start()
    assert second.have().endpoints.keys() == before.endpoints.keys()
    assert all(endpoint.ready for endpoint in second.have().endpoints.values())
    assert list(second.have().rulesets.values()) == list(before.rulesets.values())
    await second.apply(build.wanted(build.web(), path="/other"))
    second.datapath.close()


def damage(path: Path) -> None:
    """Of a file that SQLite keeps, its log included."""
    for end in ("", "-wal"):
        path.with_name(path.name + end).write_bytes(b"damaged" * 1000)


async def test_a_damaged_snapshot_leaves_what_is_pinned_in_force(host: Node) -> None:
    first = await host.start()
    await first.apply(build.wanted(build.web()))
    before = first.have()
    first.datapath.close()
    damage(host.state / "state.db")
    second = await host.start()
    assert second.have() == before
    assert "what is pinned stays in force" in second.error
    second.datapath.close()


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


async def test_a_pod_whose_interface_changed_is_looked_for_though_no_endpoint_did(host: Node) -> None:
    """An application of what has the same endpoints does not look; what it knows of them stays true."""
    agent = await host.start()
    inside = Namespace("moves")

    def appear(name: str) -> int:
        ip(f"""
            link add {name} type veth peer name {name}p netns {inside.path}
            link set {name} up
            route add 10.70.0.1/32 dev {name}
        """)
        return if_nametoindex(name)

    pod = build.LocalEndpoint("default", "moves", build.WEB, ("10.70.0.1",))
    first = appear("moves0")
    await agent.apply(build.wanted(pod, path="/one"))
    await agent.apply(build.wanted(pod, path="/two"))
    assert agent.have().endpoints.keys() == {first}
    ip("link del moves0")
    second = appear("moves1")
    await agent.refresh()
    await agent.apply(build.wanted(pod, path="/three"))
    assert agent.have().endpoints.keys() == {second}
    assert second in agent.datapath.attached()
    ip("link del moves1")
    await agent.refresh()
    await agent.apply(build.wanted(pod, path="/four"))
    assert agent.have().endpoints == {}
    assert set(agent.waiting) == {"default/moves"}
    third = appear("moves2")
    await agent.apply(build.wanted(pod, path="/five"))  # something is waited for, so it looks
    assert agent.have().endpoints.keys() == {third}
    ip("link del moves2")
    inside.close()
    agent.datapath.close()


async def test_what_is_found_while_an_application_fails_is_found_again(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    late = build.LocalEndpoint("default", "late", build.WEB, ("10.70.0.1",))
    await agent.apply(build.wanted(late))
    assert set(agent.waiting) == {"default/late"}
    inside = Namespace("late")
    ip(f"""
        link add late0 type veth peer name eth0 netns {inside.path}
        link set late0 up
        route add 10.70.0.1/32 dev late0
    """)
    rows = tuple((f"10.1.{index}.0/24", 400) for index in range(65))
    with pytest.raises(MapFull):
        await agent.apply(Wanted(build.snapshot(build.document(), ipcache=rows), (late,)))
    assert agent.waiting == {}
    await agent.apply(build.wanted(late))
    assert agent.have().endpoints.keys() == {if_nametoindex("late0")}
    ip("link del late0")
    inside.close()
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
    monkeypatch.setattr(agent_module, "GRACE", 0.0)
    await agent.tidy()
    assert len(agent.have().rulesets) == 1
    assert agent.have() == agent._enforcer.read_state()
    agent.datapath.close()


async def test_a_pod_is_governed_once_its_interface_appears_and_forgotten_when_it_goes(host: Node) -> None:
    agent = await host.start()
    late = build.LocalEndpoint("default", "late", build.WEB, ("10.70.0.1",))
    await agent.apply(build.wanted(late))
    assert set(agent.waiting) == {"default/late"}
    inside = Namespace("late")
    ip(f"""
        link add late0 type veth peer name eth0 netns {inside.path}
        link set late0 up
        route add 10.70.0.1/32 dev late0
    """)
    index = if_nametoindex("late0")
    await agent.refresh()
    assert agent.waiting == {}
    assert index in agent.have().endpoints
    assert index in agent.datapath.attached()
    key = abi.pack("flow_key", ifindex=index, proto=6)
    agent.datapath.maps["flows"].update(key, bytes(abi.size("flow")))
    ip("link del late0")
    await agent.refresh()
    assert index not in agent.have().endpoints
    assert index not in agent._enforcer.read_state().endpoints
    assert agent.datapath.maps["flows"].lookup(key) is None
    assert set(agent.waiting) == {"default/late"}
    inside.close()
    agent.datapath.close()


@pytest.mark.parametrize("is_selected", [True, False])
async def test_a_new_interface_is_denied_everything_while_a_pod_that_a_policy_selects_is_expected(
    host: Node, is_selected: bool
) -> None:
    agent = await host.start()
    agent.interfaces.lost.told = lambda: True
    document = build.document()
    if not is_selected:
        entries = (replace(entry, reason=Reason.NOT_ENFORCED) for entry in document.entries)
        document = replace(document, entries=tuple(entries))
    coming = build.LocalEndpoint("default", "coming", build.WEB, ())
    await agent.apply(Wanted(build.snapshot(document), (coming,)))
    inside = Namespace("coming")
    ip(f"""
        link add coming0 type veth peer name coming1 netns {inside.path}
        link set coming0 up
        route add 10.71.0.1/32 dev coming0
    """)
    index = if_nametoindex("coming0")
    await agent.refresh()
    assert (index in agent.datapath.attached()) == is_selected
    assert agent.have().endpoints == {}  # no word on it: denied
    named = replace(coming, addresses=("10.71.0.1",))
    await agent.apply(Wanted(build.snapshot(document), (named,)))
    assert agent.have().endpoints.keys() == {index}
    assert not agent.interfaces.newcomers.waiting
    ip("link del coming0")
    inside.close()
    agent.datapath.close()


async def test_who_gets_the_address_of_a_pod_that_has_gone_is_denied_until_the_operator_had_time(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    now, told = 100.0, False
    agent.interfaces.lost = Lost(lambda: now)
    agent.interfaces.lost.told = lambda: told
    gone = build.LocalEndpoint("default", "gone", build.WEB, ("10.70.0.1",))
    inside = Namespace("reuse")

    def appear(name: str) -> int:
        ip(f"""
            link add {name} type veth peer name {name}p netns {inside.path}
            link set {name} up
            route add 10.70.0.1/32 dev {name}
        """)
        return if_nametoindex(name)

    first = appear("reuse0")
    await agent.apply(build.wanted(gone))
    assert first in agent.have().endpoints
    ip("link del reuse0")
    second = appear("reuse1")
    await agent.refresh()
    assert second in agent.datapath.attached()
    assert agent.have().endpoints == {}
    assert "is denied everything" in agent.waiting["default/gone"]
    now += HOLD + 1  # nobody could have told us
    await agent.refresh()
    assert agent.have().endpoints == {}
    told = True
    now += HOLD - 1
    await agent.refresh()
    assert agent.have().endpoints == {}
    other = replace(gone, pod="new", identity=build.CLIENT)
    await agent.apply(build.wanted(gone, other))
    assert agent.have().endpoints.keys() == {second}
    assert agent.names.endpoints[second] == "default/new"
    await agent.apply(build.wanted(gone))
    assert agent.have().endpoints == {}
    now += 2  # it is the same pod
    await agent.refresh()
    assert agent.names.endpoints[second] == "default/gone"
    ip("link del reuse1")
    inside.close()
    agent.datapath.close()


async def test_an_address_that_the_node_gets_is_host_until_the_node_loses_it(host: Node) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web()))
    prefix = Prefix.parse("10.70.0.1/32")
    ip("addr add 10.70.0.1/32 dev lo")
    await agent.refresh()
    assert agent._enforcer.read_state().ipcache[prefix] == HOST
    ip("addr del 10.70.0.1/32 dev lo")
    await agent.refresh()
    assert prefix not in agent._enforcer.read_state().ipcache
    agent.datapath.close()


async def test_a_pod_that_is_no_longer_listed_is_denied_not_released(host: Node, node: Topology) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web(), build.client()))
    await agent.apply(build.wanted(build.web()))
    assert node.client.ifindex not in agent.have().endpoints
    assert node.client.ifindex in agent.datapath.attached()
    agent.datapath.close()


async def test_an_interface_that_cannot_be_attached_keeps_nobody_else_waiting(
    host: Node, node: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()

    failures = iter([True])

    def no_room(step: str, action: Callable[[], object]) -> object:
        if step == "attach to_pod" and next(failures, False):
            raise KernelError("attach", "to_pod", 12)
        return action()

    agent.datapath.effect = no_room
    await agent.apply(build.wanted(build.client(), build.web()))
    assert agent.waiting == {"default/client": "cannot attach to_pod: Cannot allocate memory"}
    assert node.client.ifindex not in agent.have().endpoints
    await agent.refresh()
    assert agent.waiting == {}
    assert agent.have().endpoints.keys() == {node.server.ifindex, node.client.ifindex}
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


# -- the API ------------------------------------------------------------------------------


class Client:
    """What a command line tool does."""

    def __init__(self, agent: Agent, recorder: Recorder, session: aiohttp.ClientSession) -> None:
        self.agent = agent
        self.recorder = recorder
        self.session = session

    async def get(self, path: str) -> Any:
        async with self.session.get(f"http://node{path}") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    def event(self, **fields: object) -> None:
        """Write a record as the programs do: let the tiny program write one, read it over."""
        self.agent.observe(allowed=True)
        with Program.open(self.agent.datapath.pins.programs / "from_pod") as program:
            program.test_run(bytes(64), ifindex=1)


@asynccontextmanager
async def serving(host: Node, socket_path: Path, *, allow_push: bool = True) -> AsyncIterator[Client]:
    agent = await host.start()
    recorder = Recorder(agent.datapath.maps["events"], lambda: agent.names)
    server = Server(Api(agent, recorder, allow_push=allow_push), socket_path)
    await server.start()
    reading = asyncio.create_task(recorder.run())
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket_path))) as session:
        yield Client(agent, recorder, session)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await server.stop()
    recorder.close()
    agent.datapath.close()


async def test_only_root_can_open_the_socket(host: Node, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    async with serving(host, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_pushed_snapshot_is_answered_when_it_is_in_force(
    host: Node, node: Topology, tmp_path: Path
) -> None:
    wanted = build.wanted(build.web(), build.client())
    async with serving(host, tmp_path / "s") as api:
        async with api.session.put("http://node/v1/snapshot", data=to_bytes(wanted)) as response:
            answer = await response.json()
        assert response.status == 200
        assert answer["waiting"] == {}
        assert answer["documents"] == {str(d.identity): d.digest for d in wanted.snapshot.documents}
        status = await api.get("/v1/status")
        assert status["snapshot"]["digest"] == answer["digest"]
        assert status["endpoints"] == {"total": 2, "ready": 2, "waiting": {}}
        assert status["error"] == ""
        listed = await api.get("/v1/endpoints")
        assert [(e["pod"], e["state"], e["ifindex"]) for e in listed["endpoints"]] == [
            ("web", "ready", node.server.ifindex),
            ("client", "ready", node.client.ifindex),
        ]


async def test_a_policy_is_read_back_in_lookup_order_with_names(host: Node, tmp_path: Path) -> None:
    wanted = build.wanted(build.web())
    async with serving(host, tmp_path / "s") as api:
        await api.agent.apply(wanted)
        policy = await api.get("/v1/policy/default/web")
        first = policy["entries"][0]
        assert first["peer"] == build.CLIENT
        assert first["peer_labels"] == ["k8s:app=client"]
        assert (first["protocol"], first["ports"], first["verdict"]) == ("TCP", "80", "allow")
        assert first["rule"] == "L7Policy/default/web:ingress[0].toPorts[0]"
        assert first["ruleset"] == wanted.snapshot.rulesets[0].digest
        assert policy["entries"][1]["rule"] == "L7Policy/default/web:default-deny"
        assert policy["rulesets"][first["ruleset"]]["rules"] == [
            "L7Policy/default/web:ingress[0].toPorts[0].rules.http[0]"
        ]
        assert (await api.get("/v1/policy/web"))["entries"] == policy["entries"]


async def test_the_flow_table_is_read_with_names(host: Node, node: Topology, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        await api.agent.apply(build.wanted(build.web(), build.client()))
        key = abi.pack(
            "flow_key",
            ifindex=node.server.ifindex,
            proto=6,
            local_port=int.from_bytes((80).to_bytes(2, "big"), "little"),
            remote_port=int.from_bytes((40000).to_bytes(2, "big"), "little"),
            local=Prefix.parse("10.9.2.2/32").address,
            remote=Prefix.parse("10.9.1.2/32").address,
        )
        flags = abi.number("FLOW_HTTP") | abi.number("FLOW_ESTABLISHED")
        value = abi.pack(
            "flow", id=9, peer=build.CLIENT, flags=flags, verdict=Verdict.ALLOW, reason=1, requests=3
        )
        api.agent.datapath.maps["flows"].update(key, value)
        table = await api.get("/v1/flows-table/default/web")
        (flow,) = table["flows"]
        assert (flow["source"]["pod"], flow["source"]["port"]) == ("client", 40000)
        assert (flow["destination"]["pod"], flow["destination"]["port"]) == ("web", 80)
        assert (flow["verdict"], flow["requests"]) == ("allow", 3)
        assert set(flow["flags"]) == {"http", "established"}
        assert (await api.get("/v1/flows-table/default/client"))["flows"] == []


async def test_records_are_kept_and_followed(host: Node, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        api.event()
        async with api.session.get("http://node/v1/flows?last=10") as response:
            past = [json.loads(line) async for line in response.content]
        assert [record["type"] for record in past] == ["flow"]
        async with api.session.get("http://node/v1/flows?follow=1&last=1") as response:
            old = json.loads(await asyncio.wait_for(response.content.readline(), 5))
            assert old == past[0]
            api.event()
            record = json.loads(await asyncio.wait_for(response.content.readline(), 5))
        assert record["verdict"] == "allow"
        assert record["time"] > old["time"]
        metrics = await api.get("/v1/metrics-json")
        assert {"direction": "egress", "reason": "ALLOWED", "flows": 2, "requests": 0} in metrics["counters"]


async def test_prometheus_text_has_counters_by_reason(host: Node, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        api.event()
        async with api.session.get("http://node/metrics") as response:
            text = await response.text()
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'yett_flows_total{direction="egress",reason="ALLOWED"} 1\n' in text
        assert "# TYPE yett_endpoints gauge\n" in text


async def test_allowed_traffic_is_recorded_only_while_observed(
    host: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yett_loader.api.OBSERVE_SECONDS", 0.2)
    async with serving(host, tmp_path / "s") as api:
        assert api.agent._enforcer.config()["flags"] == 0
        async with api.session.post("http://node/v1/observe") as response:
            assert (await response.json()) == {"seconds": 0.2}
        assert api.agent._enforcer.config()["flags"] == abi.number("CONFIG_RECORD_ALLOWED")
        await asyncio.sleep(0.4)
        assert api.agent._enforcer.config()["flags"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("PUT", "/v1/snapshot", b"{", 400, "snapshot: this is not JSON"),
        ("PUT", "/v1/snapshot", b'{"schema": %d}' % SCHEMA, 400, "snapshot: field 'documents' is missing"),
        ("GET", "/v1/policy/default/nobody", b"", 404, "no endpoint 'default/nobody' on this node"),
        ("GET", "/v1/flows?last=-1", b"", 400, "last is '-1'; it must be a number in 0..4096"),
        ("GET", "/v1/flows?last=99999", b"", 400, "it must be a number in 0..4096"),
        ("GET", "/v1/nothing", b"", 404, "Not Found"),
        ("POST", "/v1/status", b"", 405, "Method Not Allowed"),
    ],
)
async def test_bad_requests_are_answered_in_a_sentence(
    host: Node, tmp_path: Path, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    async with (
        serving(host, tmp_path / "s") as api,
        api.session.request(method, f"http://node{path}", data=body) as response,
    ):
        assert response.status == status
        assert message in (await response.json())["error"]


async def test_snapshots_are_not_taken_unless_that_was_asked_for(host: Node, tmp_path: Path) -> None:
    async with (
        serving(host, tmp_path / "s", allow_push=False) as api,
        api.session.put("http://node/v1/snapshot", data=to_bytes(build.wanted())) as response,
    ):
        assert response.status == 403
        assert "--allow-push" in (await response.json())["error"]


async def test_a_slow_follower_is_told_what_it_missed(host: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yett_loader.recorder.QUEUE", 2)
    agent = await host.start()
    recorder = Recorder(agent.datapath.maps["events"], lambda: agent.names)
    with recorder.follow() as follower:
        for number in range(5):
            follower.offer({"number": number})
        assert follower.lost == 3
        assert await follower.next() == {"number": 0}
    recorder.close()
    agent.datapath.close()


@pytest.mark.parametrize("hook", ["ingress", "egress"])
async def test_a_program_that_somebody_took_off_is_attached_again(
    host: Node, node: Topology, hook: str
) -> None:
    agent = await host.start()
    await agent.apply(build.wanted(build.web()))
    pin = host.pins.link(node.server.ifindex, hook)
    with Link.open(pin) as link:
        link.detach()
        assert link.info().ifindex == 0
    await agent.tidy()
    with Link.open(pin) as link:
        assert link.info().ifindex == node.server.ifindex
    assert agent.have().endpoints.keys() == {node.server.ifindex}
    assert agent.waiting == {}
    agent.datapath.close()


async def test_many_retired_policies_are_dropped_while_changes_go_on(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    documents = tuple(build.document(400 + number) for number in range(20))
    await agent.apply(Wanted(build.snapshot(*documents), (build.web(),)))
    await agent.apply(build.wanted(build.web(), path="/one"))
    assert len(agent.have().policies) == 22
    monkeypatch.setattr(agent_module, "GRACE", 0.0)
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
