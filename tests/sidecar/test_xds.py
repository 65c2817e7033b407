"""What is sent to Envoy when something changes: no more than that; and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from yett_loader.sidecar.listeners import listener
from yett_loader.sidecar.xds import LISTENER, ROUTES, Ads, SidecarNack
from yett_policy.document import Direction


def table(name: str, number: int = 0) -> dict[str, Any]:
    return {"name": name, "virtual_hosts": [{"name": f"v{number}", "domains": ["*"]}]}


class Client:
    """An Envoy that we play."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, kind: str, *names: str, nonce: str = "", refusal: str = "") -> None:
        request = DiscoveryRequest(type_url=kind, resource_names=names, response_nonce=nonce)
        if refusal:
            request.error_detail.message = refusal
        await self._call.write(request)

    async def told(self) -> DiscoveryResponse:
        async with asyncio.timeout(5):
            return await self._call.read()


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[Ads, Client]]:
    ads = Ads(lambda *_: None)
    await ads.start(directory / "xds.sock")
    try:
        async with grpc.aio.insecure_channel(f"unix:{directory / 'xds.sock'}") as channel:
            call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
            yield ads, Client(call)
            call.cancel()
    finally:
        await ads.stop()


async def _begin(ads: Ads, envoy: Client, *names: str) -> Any:
    """Both tables and the listeners, acknowledged."""
    listeners = {name: listener(61_001 + n, Direction.INGRESS) for n, name in enumerate(names)}
    publishing = asyncio.create_task(ads.publish(listeners, {name: table(name) for name in names}))
    await envoy.ask(LISTENER)
    await envoy.ask(LISTENER, nonce=(await envoy.told()).nonce)
    await envoy.ask(ROUTES, *names)
    response = await envoy.told()
    assert len(response.resources) == len(names)
    await envoy.ask(ROUTES, *names, nonce=response.nonce)
    assert await publishing
    return listeners


async def test_a_change_of_one_ruleset_sends_that_one(tmp_path: Path) -> None:
    async with connected(tmp_path) as (ads, envoy):
        listeners = await _begin(ads, envoy, "a", "b")
        publishing = asyncio.create_task(ads.publish(listeners, {"a": table("a"), "b": table("b", 1)}))
        response = await envoy.told()
        assert response.type_url == ROUTES
        assert [b"v1" in item.value for item in response.resources] == [True]
        assert not publishing.done()
        await envoy.ask(ROUTES, "a", "b", nonce=response.nonce)
        assert await publishing


async def test_changes_in_a_row_are_each_acknowledged(tmp_path: Path) -> None:
    async with connected(tmp_path) as (ads, envoy):
        listeners = await _begin(ads, envoy, "a", "b")
        first = asyncio.create_task(ads.publish(listeners, {"a": table("a", 1), "b": table("b")}))
        one = await envoy.told()
        second = asyncio.create_task(ads.publish(listeners, {"a": table("a", 1), "b": table("b", 2)}))
        two = await envoy.told()
        await envoy.ask(ROUTES, "a", "b", nonce=one.nonce)
        await envoy.ask(ROUTES, "a", "b", nonce=two.nonce)
        assert await second
        assert await first


async def test_a_table_that_was_given_up_and_is_asked_for_again_is_sent_again(tmp_path: Path) -> None:
    async with connected(tmp_path) as (ads, envoy):
        await _begin(ads, envoy, "a", "b")
        await envoy.ask(ROUTES, "b")
        await envoy.ask(ROUTES, "a", "b")
        assert len((await envoy.told()).resources) == 1


async def test_a_refusal_takes_the_change_back(tmp_path: Path) -> None:
    async with connected(tmp_path) as (ads, envoy):
        listeners = await _begin(ads, envoy, "a", "b")
        publishing = asyncio.create_task(ads.publish(listeners, {"a": table("a"), "b": table("b", 1)}))
        response = await envoy.told()
        await envoy.ask(ROUTES, "a", "b", nonce=response.nonce, refusal="no such thing")
        with pytest.raises(SidecarNack, match="no such thing"):
            await publishing
        again = await envoy.told()
        assert [b"v0" in item.value for item in again.resources] == [True]
