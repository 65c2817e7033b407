"""Reflectors and leader election against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest

from support.apiserver import ApiServer, eventually
from yett_operator.kube import slim
from yett_operator.kube.client import ApiError, Kube
from yett_operator.kube.reflector import Reflector
from yett_operator.leader import ADDRESS, Election

pytestmark = pytest.mark.cluster

CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"


@pytest.fixture
async def kube(api: ApiServer) -> AsyncIterator[Kube]:
    async with await Kube.connect(str(api.kubeconfig)) as made:
        yield made


def small(obj: dict[str, Any]) -> tuple[str, str | None]:
    return obj["metadata"]["name"], (obj.get("data") or {}).get("x")


class Seen:
    """A reflector that runs, and what it said."""

    def __init__(self, kube: Kube, path: str = CONFIG_MAPS, **more: Any) -> None:
        self.changes: list[tuple[str, str | None]] = []
        self.reflector: Reflector[str, str] = Reflector(
            kube, path, small, lambda key, value: self.changes.append((key, value)), **more
        )
        self.task = asyncio.create_task(self.reflector.run())

    async def __aenter__(self) -> Self:
        await asyncio.wait_for(self.reflector.synced.wait(), 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def config_map(name: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": value}}


async def put(kube: Kube, name: str, value: str) -> None:
    await kube.apply(f"{CONFIG_MAPS}/{name}", config_map(name, value))


async def test_only_what_counts_is_reported(kube: Kube) -> None:
    await put(kube, "a", "1")
    async with Seen(kube) as seen:
        await put(kube, "a", "2")
        label = {"op": "add", "path": "/metadata/labels", "value": {"noise": "1"}}
        await kube.patch(f"{CONFIG_MAPS}/a", [label])
        await put(kube, "b", "1")
        await kube.delete(f"{CONFIG_MAPS}/a")
        await kube.delete(f"{CONFIG_MAPS}/b")
        await eventually(lambda: ("b", None) in seen.changes)
        about = [change for change in seen.changes if change[0] in "ab"]
        assert about == [("a", "1"), ("a", "2"), ("b", "1"), ("a", None), ("b", None)]
        assert seen.reflector.lists == 1


async def test_after_a_gap_what_was_deleted_meanwhile_is_seen_to_be_gone(api: ApiServer, kube: Kube) -> None:
    for name in ("stays", "goes", "changes"):
        await put(kube, name, "1")
    async with Seen(kube) as seen:
        seen.task.cancel()
        await asyncio.gather(seen.task, return_exceptions=True)
        await kube.delete(f"{CONFIG_MAPS}/goes")
        await put(kube, "changes", "2")
        seen.changes.clear()
        api.kill_server()
        await asyncio.to_thread(api.start)  # it has forgotten what was before: 410
        seen.task = asyncio.create_task(seen.reflector.run())
        await eventually(lambda: seen.reflector.lists == 2)
        assert sorted(seen.changes, key=str) == [("changes", "2"), ("goes", None)]
        await put(kube, "stays", "3")
        await eventually(lambda: ("stays", "3") in seen.changes)
    for name in ("stays", "changes"):
        await kube.delete(f"{CONFIG_MAPS}/{name}")


async def test_a_list_of_many_pages_is_whole(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yett_operator.kube.reflector.PAGE", 3)
    names = [f"page-{i}" for i in range(8)]
    for name in names:
        await put(kube, name, "1")
    async with Seen(kube) as seen:
        assert set(names) <= seen.reflector.items.keys()
    for name in names:
        await kube.delete(f"{CONFIG_MAPS}/{name}")


async def test_a_kind_that_comes_later_is_found_and_one_that_goes_leaves_nothing(
    api: ApiServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yett_operator.kube.reflector._ABSENT", 0.2)
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.test.example"},
        "spec": {
            "group": "test.example",
            "scope": "Cluster",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "data": {"type": "object", "additionalProperties": {"type": "string"}}
                            },
                        }
                    },
                }
            ],
        },
    }
    path = "/apis/test.example/v1/things"
    async with Seen(kube, path, optional=True) as seen:
        assert seen.reflector.items == {}
        await asyncio.to_thread(api.apply, definition)
        thing = {
            "apiVersion": "test.example/v1",
            "kind": "Thing",
            "metadata": {"name": "t"},
            "data": {"x": "1"},
        }

        async def created() -> bool:
            try:
                await kube.post(path, thing)
            except ApiError:
                return False
            return True

        await eventually(created)
        await eventually(lambda: seen.reflector.items == {"t": "1"})
        await asyncio.to_thread(api.kubectl, "delete", "crd", "things.test.example")
        await eventually(lambda: seen.reflector.items == {})
        assert seen.changes[-1] == ("t", None)


async def test_a_reflector_survives_a_restart_of_the_api_server(api: ApiServer, kube: Kube) -> None:
    async with Seen(kube) as seen:
        api.kill_server()
        await eventually(lambda: seen.reflector.error)
        await asyncio.to_thread(api.start)
        await put(kube, "back", "1")
        await eventually(lambda: ("back", "1") in seen.changes, within=30)
        assert seen.reflector.error == ""
    await kube.delete(f"{CONFIG_MAPS}/back")


async def test_silence_is_no_error(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=0.3)
    monkeypatch.setattr("yett_operator.kube.client._WATCH_TIMEOUT", quick)
    async with Seen(kube) as seen:
        await asyncio.sleep(1.5)
        assert seen.reflector.error == ""
        await put(kube, "quiet", "1")
        await eventually(lambda: ("quiet", "1") in seen.changes)
        assert seen.reflector.lists == 1
    await kube.delete(f"{CONFIG_MAPS}/quiet")


async def test_an_error_is_one_sentence(kube: Kube) -> None:
    with pytest.raises(ApiError, match=r'cannot get .*/none: configmaps "none" not found') as caught:
        await kube.get(f"{CONFIG_MAPS}/none")
    assert caught.value.status == 404
    assert caught.value.reason == "NotFound"


async def test_the_policies_of_a_cluster_are_read_as_they_are(api: ApiServer, kube: Kube) -> None:
    await asyncio.to_thread(
        api.apply,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "n", "namespace": "default"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        },
    )
    listed = await kube.get("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies")
    (source, policy) = slim.policy(listed["items"][0], "NetworkPolicy")
    assert source == "NetworkPolicy/default/n"
    assert policy.generation == 1
    await asyncio.to_thread(api.kubectl, "delete", "netpol", "n")


# -- leaders


class Candidate:
    """Writes down when it works, as a leader's work would."""

    working: int = 0

    def __init__(self, kube: Kube, name: str, lease: str, **times: Any) -> None:
        self.name = name
        self.terms = 0
        self.election = Election(
            kube, "kube-system", lease, name, self._lead, address=f"{name}:1", **{"period": 0.2, **times}
        )
        self.task = asyncio.create_task(self.election.run())

    async def _lead(self) -> None:
        assert Candidate.working == 0, "two work at once"
        Candidate.working += 1
        self.terms += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)  # the end of the work takes time, too
            Candidate.working -= 1

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_of_three_leads_and_another_follows_at_once_when_it_stops(kube: Kube) -> None:
    candidates = [Candidate(kube, name, "lease-a") for name in ("x", "y", "z")]
    await eventually(lambda: any(each.election.leading for each in candidates))
    await asyncio.sleep(1)
    leaders = [each for each in candidates if each.election.leading]
    assert len(leaders) == 1
    others = [each for each in candidates if each not in leaders]
    assert {each.election.leader_address for each in others} == {f"{leaders[0].name}:1"}
    await leaders[0].stop()
    await eventually(lambda: any(each.election.leading for each in others), within=3)
    for each in others:
        await each.stop()
    assert Candidate.working == 0
    assert sum(each.terms for each in candidates) == 3 or sum(each.terms for each in candidates) == 2


async def test_a_leader_that_cannot_renew_stops_before_another_begins(kube: Kube, api: ApiServer) -> None:
    times = {"duration": 4, "deadline": 1.5}
    async with await Kube.connect(str(api.kubeconfig)) as cut_off:
        first = Candidate(cut_off, "x", "lease-b", **times)
        await eventually(lambda: first.election.leading)
        second = Candidate(kube, "y", "lease-b", **times)

        async def unreachable(*_: Any, **__: Any) -> Any:
            raise ApiError("get the lease", 0, "Unreachable", "partition")

        cut_off.get = cut_off.put = cut_off.post = unreachable  # type: ignore[method-assign]
        await eventually(lambda: second.election.leading, within=15)
        assert not first.election.leading
        await first.stop()
        await second.stop()


async def test_work_that_fails_is_not_hidden(kube: Kube) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    election = Election(kube, "kube-system", "lease-c", "x", fail, period=0.2)
    with pytest.raises(RuntimeError, match="broken"):
        await election.run()
    assert not election.leading
    lease = await kube.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/lease-c")
    assert lease["spec"]["holderIdentity"] == ""
    assert ADDRESS in lease["metadata"]["annotations"]
