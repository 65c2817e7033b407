"""Pods that come and go: whose interface is whose, and who is governed meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from support import wanted as build
from support.agent import Elsewhere, Node, elsewhere
from support.netns import Topology, ip
from yett_loader.assign import MapFull
from yett_loader.errors import KernelError
from yett_loader.kernel import abi
from yett_loader.kernel.link import Link
from yett_loader.lost import HOLD, Lost
from yett_loader.snapshot import Wanted
from yett_loader.state import Prefix
from yett_policy.document import Document
from yett_policy.identity import HOST
from yett_policy.reason import Reason

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]


@pytest.fixture
def away(node: Topology) -> Iterator[Elsewhere]:
    """Where a pod is that the topology does not have."""
    with elsewhere() as made:
        yield made


async def test_a_pod_whose_interface_changed_is_looked_for_though_no_endpoint_did(
    host: Node, away: Elsewhere
) -> None:
    """An application of what has the same endpoints does not look; what it knows of them stays true."""
    agent = await host.start()
    pod = build.LocalEndpoint("default", "moves", build.WEB, (away.address,))
    first = away.appear("moves0")
    await agent.apply(build.wanted(pod, path="/one"))
    await agent.apply(build.wanted(pod, path="/two"))
    assert agent.have().endpoints.keys() == {first}
    away.vanish("moves0")
    second = away.appear("moves1")
    await agent.refresh()
    await agent.apply(build.wanted(pod, path="/three"))
    assert agent.have().endpoints.keys() == {second}
    assert second in agent.datapath.attached()
    away.vanish("moves1")
    await agent.refresh()
    await agent.apply(build.wanted(pod, path="/four"))
    assert agent.have().endpoints == {}
    assert set(agent.waiting) == {"default/moves"}
    third = away.appear("moves2")
    await agent.apply(build.wanted(pod, path="/five"))  # something is waited for, so it looks
    assert agent.have().endpoints.keys() == {third}
    away.vanish("moves2")
    agent.datapath.close()


async def test_the_loop_goes_on_while_the_kernel_attaches(host: Node, node: Topology) -> None:
    agent = await host.start()
    loop, passed = asyncio.get_running_loop(), threading.Event()

    def slow(step: str, action: Callable[[], object]) -> object:
        if step.startswith("attach"):
            loop.call_soon_threadsafe(passed.set)
            assert passed.wait(10), "the loop stands still"
            passed.clear()
        return action()

    agent.datapath.effect = slow
    await agent.apply(build.wanted(build.web()))
    assert agent.have().endpoints.keys() == {node.server.ifindex}
    agent.datapath.close()


async def test_what_is_found_while_an_application_fails_is_found_again(host: Node, away: Elsewhere) -> None:
    agent = await host.start()
    late = build.LocalEndpoint("default", "late", build.WEB, (away.address,))
    await agent.apply(build.wanted(late))
    assert set(agent.waiting) == {"default/late"}
    index = away.appear("late0")
    rows = tuple((f"10.1.{index}.0/24", 400) for index in range(65))
    with pytest.raises(MapFull):
        await agent.apply(Wanted(build.snapshot(build.document(), ipcache=rows), (late,)))
    assert agent.waiting == {}
    await agent.apply(build.wanted(late))
    assert agent.have().endpoints.keys() == {index}
    away.vanish("late0")
    agent.datapath.close()


async def test_a_pod_is_governed_once_its_interface_appears_and_forgotten_when_it_goes(
    host: Node, away: Elsewhere
) -> None:
    agent = await host.start()
    late = build.LocalEndpoint("default", "late", build.WEB, (away.address,))
    await agent.apply(build.wanted(late))
    assert set(agent.waiting) == {"default/late"}
    index = away.appear("late0")
    await agent.refresh()
    assert agent.waiting == {}
    assert index in agent.have().endpoints
    assert index in agent.datapath.attached()
    key = abi.pack("flow_key", ifindex=index, proto=6)
    agent.datapath.maps["flows"].update(key, bytes(abi.size("flow")))
    away.vanish("late0")
    await agent.refresh()
    assert index not in agent.have().endpoints
    assert index not in agent._enforcer.read_state().endpoints
    assert agent.datapath.maps["flows"].lookup(key) is None
    assert set(agent.waiting) == {"default/late"}
    agent.datapath.close()


@pytest.mark.parametrize("is_selected", [True, False])
async def test_a_new_interface_is_denied_everything_while_a_pod_that_a_policy_selects_is_expected(
    host: Node, away: Elsewhere, is_selected: bool
) -> None:
    agent = await host.start()
    agent.interfaces.lost.told = lambda: True
    document = build.document()
    if not is_selected:
        entries = (replace(entry, reason=Reason.NOT_ENFORCED) for entry in document.entries)
        document = Document.of(document.identity, entries, document.rules)
    coming = build.LocalEndpoint("default", "coming", build.WEB, ())
    await agent.apply(Wanted(build.snapshot(document), (coming,)))
    index = away.appear("coming0")
    await agent.refresh()
    assert (index in agent.datapath.attached()) == is_selected
    assert agent.have().endpoints == {}  # no word on it: denied
    named = replace(coming, addresses=(away.address,))
    await agent.apply(Wanted(build.snapshot(document), (named,)))
    assert agent.have().endpoints.keys() == {index}
    assert not agent.interfaces.newcomers.waiting
    away.vanish("coming0")
    agent.datapath.close()


async def test_who_gets_the_address_of_a_pod_that_has_gone_is_denied_until_the_operator_had_time(
    host: Node, away: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await host.start()
    now, told = 100.0, False
    agent.interfaces.lost = Lost(lambda: now)
    agent.interfaces.lost.told = lambda: told
    gone = build.LocalEndpoint("default", "gone", build.WEB, (away.address,))
    first = away.appear("reuse0")
    await agent.apply(build.wanted(gone))
    assert first in agent.have().endpoints
    away.vanish("reuse0")
    second = away.appear("reuse1")
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
    away.vanish("reuse1")
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
