"""Identities, addresses and Services as a real API server tells of them."""

from __future__ import annotations

import asyncio

import pytest

from support.apiserver import ApiServer, eventually
from support.replica import (
    Node,
    get,
    holds,
    l7policy,
    make_pod,
    pods,
    put,
    ready,
    replica,
)
from yett_operator.app import Operator
from yett_policy.cluster import pod_name
from yett_policy.identity import TOO_MANY
from yett_policy.prefix import packed_prefix
from yett_policy.service import Frontend

pytestmark = pytest.mark.cluster


async def test_numbers_survive_a_restart_and_are_never_given_twice(api: ApiServer, namespace: str) -> None:
    def numbers(operator: Operator) -> dict[str, int]:
        return {
            key: pod.identity for key, pod in operator.publisher.pods.items() if pod_name(key)[0] == namespace
        }

    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        await eventually(lambda: len(numbers(one.operator)) == 2)
        before = numbers(one.operator)
    await asyncio.to_thread(make_pod, api, namespace, "aaa", "first-in-order", "10.1.0.9")
    async with replica(api, namespace, "op-1") as other:
        await eventually(lambda: len(numbers(other.operator)) == 3)
        after = numbers(other.operator)
        assert {name: after[name] for name in before} == before
        assert len(set(after.values())) == 3
        objects = {item["metadata"]["name"] for item in (await get(api, namespace, "secid"))["items"]}
        assert {str(number) for number in after.values()} <= objects


async def test_numbers_that_nothing_uses_go_and_deleted_ones_in_use_come_back(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        operator = one.operator
        operator.identities._unused = 0.0
        await pods(api, namespace)
        await eventually(lambda: f"{namespace}/client" in operator.publisher.pods)
        await eventually(lambda: f"{namespace}/server" in operator.publisher.pods)
        client = operator.publisher.pods[f"{namespace}/client"].identity
        server = operator.publisher.pods[f"{namespace}/server"].identity

        async def objects() -> set[str]:
            return {item["metadata"]["name"] for item in (await get(api, namespace, "secid"))["items"]}

        await asyncio.to_thread(
            api.kubectl, "delete", "pod", "client", "-n", namespace, "--force", "--grace-period=0"
        )
        await asyncio.to_thread(api.kubectl, "delete", "secid", str(server))
        await eventually(lambda: client not in operator.publisher.identities)

        async def swept() -> bool:
            operator.identities.sweep(operator.publisher.identities)
            await asyncio.sleep(0.3)
            found = await objects()
            return str(client) not in found and str(server) in found

        await eventually(swept)
        assert operator.publisher.pods[f"{namespace}/server"].identity == server
        await asyncio.to_thread(make_pod, api, namespace, "again", "client", "10.1.0.8")
        await eventually(lambda: f"{namespace}/again" in operator.publisher.pods)
        assert operator.publisher.pods[f"{namespace}/again"].identity not in {client, server}


async def test_labels_and_namespace_labels_move_a_pod_to_another_identity(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        Node("n1", one.operator)
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        publisher = one.operator.publisher

        def governed(name: str) -> bool:
            pod = publisher.pods[f"{namespace}/{name}"]
            return bool(publisher.documents[pod.identity].rulesets)

        assert governed("server")
        assert not governed("client")
        label = ["label", "pod", "-n", namespace, "--overwrite"]
        await asyncio.to_thread(api.kubectl, *label, "client", "app=server")
        await eventually(lambda: governed("client"))
        assert (
            publisher.pods[f"{namespace}/client"].identity == publisher.pods[f"{namespace}/server"].identity
        )
        await asyncio.to_thread(api.kubectl, *label, "server", "app=other")
        await eventually(lambda: not governed("server"))
        old = publisher.pods[f"{namespace}/client"].identity
        await asyncio.to_thread(api.kubectl, "label", "namespace", namespace, "team=red")
        await eventually(lambda: publisher.pods[f"{namespace}/client"].identity != old)
        assert publisher.ipcache[packed_prefix("10.1.0.2")] == publisher.pods[f"{namespace}/client"].identity


async def test_a_pod_with_more_labels_than_an_identity_holds_is_denied_and_holds_up_nobody(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        publisher = one.operator.publisher
        await asyncio.to_thread(make_pod, api, namespace, "many", "many", "10.1.0.9")
        labels = [f"a-label-{number}=x" for number in range(300)]
        await asyncio.to_thread(api.kubectl, "label", "pod", "-n", namespace, "many", *labels)
        await pods(api, namespace)

        def labels_of(name: str) -> tuple[str, ...]:
            pod = publisher.pods.get(f"{namespace}/{name}")
            return () if pod is None else publisher.identities[pod.identity]

        await eventually(lambda: labels_of("many") == (TOO_MANY,))
        await eventually(lambda: "k8s:app=server" in labels_of("server"))
        await eventually(lambda: "k8s:app=client" in labels_of("client"))
        assert publisher.pods[f"{namespace}/many"].identity in publisher.documents


async def test_a_pod_that_is_gone_leaves_nothing_to_who_gets_its_address(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        await eventually(lambda: packed_prefix("10.1.0.1") in one.operator.publisher.ipcache)
        old = one.operator.publisher.ipcache[packed_prefix("10.1.0.1")]
        seen: list[int | None] = []
        one.operator.publisher.listen(
            lambda change: seen.append(change.ipcache.get(packed_prefix("10.1.0.1"), -1))
        )
        await asyncio.to_thread(
            api.kubectl, "delete", "pod", "server", "-n", namespace, "--force", "--grace-period=0"
        )
        await asyncio.to_thread(make_pod, api, namespace, "thief", "thief", "10.1.0.1")
        await eventually(
            lambda: one.operator.publisher.ipcache.get(packed_prefix("10.1.0.1")) not in {None, old}
        )
        assert None in seen
        assert old not in seen


async def test_a_service_is_followed_with_who_is_behind_it_and_what_is_spoken_there(
    api: ApiServer, namespace: str
) -> None:
    port = {"port": 8000, "targetPort": 80, "protocol": "TCP", "name": "rpc"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "api"},
        "spec": {"selector": {"app": "server"}, "ports": [port]},
    }
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}},
        "addressType": "IPv4",
        "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": True}}],
    }

    async def engine() -> tuple[str, str]:
        found = (await get(api, namespace, "polst"))["items"]
        status = found[0].get("status", {}) if found else {}
        return status.get("engine", ""), status.get("engineReason", "")

    async with replica(api, namespace, "op-0") as one:
        publisher = one.operator.publisher
        await pods(api, namespace)
        await put(api, namespace, l7policy())
        await put(api, namespace, service)
        address = (await get(api, namespace, "service", "api"))["spec"]["clusterIP"]
        front = Frontend(address, 6, 8000)
        await eventually(lambda: publisher.services.get(front) == ())
        await put(api, namespace, piece)
        await eventually(lambda: len(publisher.services.get(front, ())) == 1)
        server = publisher.pods[f"{namespace}/server"].identity
        assert publisher.services[front] == ((server, 80),)
        await eventually(lambda: holds(engine, lambda said: said[0] == "kernel"))
        said = {**port, "appProtocol": "kubernetes.io/h2c"}
        await put(api, namespace, {**service, "spec": {**service["spec"], "ports": [said]}})
        await eventually(lambda: holds(engine, lambda said: said[0] == "sidecar"))
        assert (await engine())[1] == f"appProtocol kubernetes.io/h2c of Service {namespace}/api"
        await asyncio.to_thread(api.kubectl, "delete", "service,endpointslice", "--all", "-n", namespace)
        await eventually(lambda: front not in publisher.services)
        await eventually(lambda: holds(engine, lambda said: said[0] == "kernel"))
