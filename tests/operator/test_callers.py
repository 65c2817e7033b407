"""Several replicas, the loaders that call them, and what is lost when one dies."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from support.apiserver import ApiServer, eventually
from support.replica import (
    Node,
    condition,
    get,
    l7policy,
    loader_of,
    loader_token,
    make_pod,
    pods,
    put,
    ready,
    replica,
)
from support.sync import Target
from yett_operator.ports import Change
from yett_policy.prefix import packed_prefix

pytestmark = pytest.mark.cluster


async def test_two_replicas_publish_the_same_and_the_second_takes_over(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await eventually(lambda: one.operator.election.leading)
        async with replica(api, namespace, "op-1") as two:
            assert not two.operator.election.leading
            await pods(api, namespace)
            node = Node("n1", two.operator)  # connected to the one that does not lead
            await put(api, namespace, l7policy(egress=[{"toCIDR": ["198.51.100.0/24"]}]))
            await eventually(lambda: ready(api, namespace))
            await eventually(
                lambda: (
                    one.operator.publisher.ipcache == two.operator.publisher.ipcache
                    and one.operator.publisher.documents == two.operator.publisher.documents
                )
            )
            assert packed_prefix("198.51.100.0/24") in two.operator.publisher.ipcache
            written = await get(api, namespace, "polst", "l7policy-p")
            await one.kill()
            await eventually(lambda: two.operator.election.leading, within=15)
            await put(api, namespace, l7policy(path="/later"))
            await eventually(lambda: ready(api, namespace))
            after = await get(api, namespace, "polst", "l7policy-p")
            assert after["metadata"]["uid"] == written["metadata"]["uid"]
            transitions = [
                (await get(api, namespace, "lease", "yett-operator"))["spec"].get("leaseTransitions")
            ]
            assert transitions == [1]
            node.leave()


async def test_a_node_behind_a_replica_that_dies_is_missed(api: ApiServer, namespace: str) -> None:
    async with replica(api, namespace, "op-0") as one, replica(api, namespace, "op-1") as two:
        await eventually(lambda: one.operator.election.leading or two.operator.election.leading)
        leader, other = (one, two) if one.operator.election.leading else (two, one)
        await pods(api, namespace)
        Node("n1", other.operator)
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        await other.kill()
        await eventually(lambda: ready(api, namespace, "False", "Disconnected"), within=5)
        Node("n1", leader.operator)
        await eventually(lambda: ready(api, namespace), within=5)


async def test_a_secret_reaches_the_loaders_that_need_it_and_nothing_that_is_shown(
    api: ApiServer, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await eventually(lambda: one.operator.sync.port)
        await pods(api, namespace)
        target = Target()
        client = await loader_of(api, namespace, one.operator, target, tmp_path)
        loader = asyncio.create_task(client.run())
        policy = l7policy()
        (http,) = policy["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
        http["headerMatches"] = [{"name": "X-A", "mismatch": "REPLACE", "secret": {"name": "s"}}]
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
        try:
            await put(api, namespace, policy)
            problem = f"Secret {namespace}/s is not there: the rules that name it match nothing"

            async def accepted(message: str) -> Any:
                return (await condition(api, namespace, "Accepted"))[2] == message

            await eventually(lambda: accepted(f"the policy is valid; {problem}"))
            await eventually(lambda: ready(api, namespace))
            assert target.wanted is not None
            assert target.wanted.secrets == {}
            for value in ("value-one", "value-two"):
                await put(api, namespace, {**secret, "stringData": {"key": value}})
                await eventually(lambda v=value: target.wanted.secrets == {f"{namespace}/s": v})
            await eventually(lambda: accepted("the policy is valid"))
            await asyncio.to_thread(api.kubectl, "delete", "secret", "s", "-n", namespace)
            await eventually(lambda: target.wanted.secrets == {})
            events = (await get(api, namespace, "events"))["items"]
            assert problem in {each["message"] for each in events if each["reason"] == "SecretMissing"}
            objects = await get(api, namespace, "l7p,polst,events,configmaps")
        finally:
            loader.cancel()
            await asyncio.gather(loader, return_exceptions=True)
    assert "value-" not in json.dumps(objects) + caplog.text + repr(target)


async def test_a_real_loaders_stream_makes_the_status_true(
    api: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await eventually(lambda: one.operator.sync.port)
        await pods(api, namespace)
        target = Target()
        client = await loader_of(api, namespace, one.operator, target, tmp_path)
        loader = asyncio.create_task(client.run())
        try:
            await put(api, namespace, l7policy())
            await eventually(lambda: ready(api, namespace))
            assert target.wanted is not None
            assert [each.name for each in target.wanted.endpoints] == [
                f"{namespace}/client",
                f"{namespace}/server",
            ]
            target.refuse = "no more room"
            await put(api, namespace, l7policy(path="/other"))
            found = await eventually(lambda: ready(api, namespace, "False"), within=6)
            assert found[1] == "KernelError"
            assert "no more room" in found[2]
            target.refuse = ""
            await eventually(lambda: ready(api, namespace))
        finally:
            loader.cancel()
            await asyncio.gather(loader, return_exceptions=True)
        await eventually(lambda: ready(api, namespace, "False", "Disconnected"), within=5)


@pytest.mark.parametrize("kind", ["forged", "of another audience", "of another account"])
async def test_a_caller_that_is_no_loader_is_refused(api: ApiServer, namespace: str, kind: str) -> None:
    async with replica(api, namespace, "op-0") as one:
        await eventually(lambda: one.operator.sync.port)
        good = await asyncio.to_thread(loader_token, api, namespace, "n1")
        match kind:
            case "forged":
                token = good[:-10] + "A" * 10
            case "of another audience":
                token = await asyncio.to_thread(loader_token, api, namespace, "n1", "somebody-else")
            case _:
                await asyncio.to_thread(api.kubectl, "create", "serviceaccount", "other", "-n", namespace)
                arguments = ["token", "other", "-n", namespace, "--audience=yett-operator"]
                token = (await asyncio.to_thread(api.kubectl, "create", *arguments)).strip()
        bundle = one.operator.keeper.bundle
        assert bundle is not None
        context = ssl.create_default_context(cadata=bundle.ca.decode())
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"https://localhost:{one.operator.sync.port}/v1/sync",
                headers={"Authorization": f"Bearer {token}"},
                ssl=context,
            ) as answer,
        ):
            assert answer.status == 401
        assert one.operator.tracker.nodes.states == {}


async def test_a_killed_compiler_is_replaced_without_a_wrong_change(api: ApiServer, namespace: str) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        await put(api, namespace, l7policy())
        operator = one.operator
        publisher = operator.publisher
        keys = [f"{namespace}/server", f"{namespace}/client"]
        await eventually(lambda: all(key in publisher.pods for key in keys))
        server, client = (publisher.pods[key].identity for key in keys)
        await eventually(lambda: publisher.documents[server].rulesets)
        ours = {server, client}
        changes: list[Change] = []
        operator.publisher.listen(changes.append)
        assert operator.process._child is not None
        operator.process._child.process.kill()
        await asyncio.to_thread(make_pod, api, namespace, "late", "client", "10.1.0.7")
        await eventually(lambda: packed_prefix("10.1.0.7") in operator.publisher.ipcache)
        touched = {prefix for change in changes for prefix in change.ipcache}
        assert not touched & {packed_prefix("10.1.0.1"), packed_prefix("10.1.0.2")}
        assert not any(ours & (change.documents.keys() | change.gone) for change in changes)
