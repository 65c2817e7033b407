"""An agent that is restarted, killed, or finds what another one left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from support import wanted as build
from support.agent import OWN, SIZES, Node
from support.killed import killed
from yett_loader import agent as agent_module
from yett_loader.agent import Agent, fill
from yett_loader.datapath import Datapath
from yett_loader.enforce import Enforcer
from yett_loader.errors import AbiMismatch
from yett_loader.image import Effect, run
from yett_loader.pins import remove_tree
from yett_loader.plan import Grace
from yett_loader.state import MapState
from yett_loader.store import Store

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]


async def left(host: Node, *endpoints: build.LocalEndpoint) -> MapState:
    """What a loader that has ended leaves in force."""
    agent = await host.start()
    await agent.apply(build.wanted(*endpoints))
    before = agent.have()
    agent.datapath.close()
    return before


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
    before = await left(host, build.web())
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
    before = await left(host, build.web(), build.client())
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
    monkeypatch.setattr(agent_module, "GRACE", Grace(0.0, 0.0))
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
    before = await left(host, build.web(), build.client())
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
    before = await left(host, build.web())
    damage(host.state / "state.db")
    second = await host.start()
    assert second.have() == before
    assert "what is pinned stays in force" in second.error
    second.datapath.close()
