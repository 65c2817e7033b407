"""Replicas of the operator against a real API server: policies and what their statuses say."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from support.apiserver import ApiServer, eventually
from support.replica import (
    Node,
    get,
    l7policy,
    make_pod,
    pods,
    put,
    ready,
    refused,
    replica,
)
from yett_operator.app import Operator
from yett_operator.ports import Failure
from yett_policy.sync import decode
from yett_policy.sync.message import RulesetPart

pytestmark = pytest.mark.cluster


async def test_a_policy_becomes_ready_when_its_node_has_it(api: ApiServer, namespace: str) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        node = Node("n1", one.operator)
        await put(api, namespace, l7policy())
        await asyncio.to_thread(
            api.kubectl, "wait", "-n", namespace, "--for=condition=Ready", "l7p/p", "--timeout=10s"
        )
        detail = (await get(api, namespace, "polst", "l7policy-p"))["status"]
        assert detail["enforced"] == "1/1"
        assert detail["engine"] == "kernel"
        assert detail["engineReason"].startswith("fits the kernel budget")
        assert detail["pods"] == 1
        assert detail["nodes"] == {"desired": 1, "enforced": 1, "failed": 0}
        table = await asyncio.to_thread(api.kubectl, "get", "polst", "-n", namespace)
        assert table.splitlines()[0].split() == [
            "NAME",
            "POLICY",
            "ENFORCED",
            "ENGINE",
            "DENIED",
            "READY",
            "AGE",
        ]
        one.operator.sink.counted(
            "n1", {f"L7Policy/{namespace}/p:default-deny": 3, f"L7Policy/{namespace}/p:ingress[0]": 2}
        )

        async def denied() -> bool:
            status = (await get(api, namespace, "polst", "l7policy-p"))["status"]
            return bool(status["requests"] == {"allowed": 2, "denied": 3, "audited": 0})

        await eventually(denied)
        events = (await get(api, namespace, "events"))["items"]
        assert [event["reason"] for event in events if event["involvedObject"]["name"] == "p"] == [
            "PolicyProgrammed"
        ]
        node.leave()


async def test_a_status_of_an_older_version_is_never_taken_for_one_of_the_newer(
    api: ApiServer, namespace: str
) -> None:
    """What kubectl wait, kstatus and Argo CD compare: generations of one and the same object."""
    versions = 4
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        node = Node("n1", one.operator)
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        seen: list[Any] = []
        path = f"/apis/yett.dev/v1alpha1/namespaces/{namespace}/policystatuses"

        async def watch() -> None:
            async for event in one.operator.kube.watch(path):
                if event["type"] in {"ADDED", "MODIFIED"}:
                    seen.append(event["object"])  # noqa: PERF401 - it never ends

        watching = asyncio.create_task(watch())
        for version in range(2, versions + 1):
            await put(api, namespace, l7policy(path=f"/v{version}"))
            wait = ["wait", "-n", namespace, "--for=condition=Ready", "polst/l7policy-p", "--timeout=10s"]
            await eventually(lambda v=version: any(each["spec"]["policyGeneration"] == v for each in seen))
            await asyncio.to_thread(api.kubectl, *wait)
            stored = await get(api, namespace, "polst", "l7policy-p")
            assert stored["status"]["policyGeneration"] == version
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        node.leave()
    stale = [each for each in seen if each["metadata"]["generation"] > each["status"]["observedGeneration"]]
    current = [each for each in seen if each not in stale]
    assert {each["spec"]["policyGeneration"] for each in stale} == {2, 3, 4}, "each was announced"
    assert all(each["status"]["policyGeneration"] == each["spec"]["policyGeneration"] for each in current)
    assert all(
        condition["observedGeneration"] == each["status"]["observedGeneration"]
        for each in seen
        for condition in each["status"]["conditions"]
    )


async def test_a_namespace_says_how_denials_are_answered_and_is_told_if_it_says_nonsense(
    api: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        await put(api, namespace, l7policy())
        publisher = one.operator.publisher

        def answered() -> set[bool]:
            pod = publisher.pods.get(f"{namespace}/server")
            document = publisher.documents.get(pod.identity) if pod is not None else None
            digests = document.rulesets if document is not None else ()
            parts = [decode.from_operator(publisher.rulesets[digest].frame) for digest in digests]
            return {part.ruleset.spec.forbidden for part in parts if isinstance(part, RulesetPart)}

        async def annotate(response: str) -> None:
            annotation = f"yett.dev/deny-response={response}"
            await asyncio.to_thread(
                api.kubectl, "annotate", "--overwrite", "namespace", namespace, annotation
            )

        await eventually(lambda: answered() == {False})
        await annotate("Forbidden")
        await eventually(lambda: answered() == {True})
        await annotate("Teapot")
        await eventually(lambda: answered() == {False})

        async def told() -> Any:
            items = (await get(api, namespace, "events"))["items"]
            return [item for item in items if item["reason"] == "InvalidDenyResponse"]

        (event,) = await eventually(told)
        assert event["involvedObject"]["name"] == "p"
        assert "'Teapot' is none of Reset and Forbidden" in event["message"]
        said = [record for record in caplog.records if "Teapot" in record.getMessage()]
        assert len(said) == 1


async def test_a_policystatus_that_others_change_or_delete_is_written_again(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        before = await get(api, namespace, "polst", "l7policy-p")
        await asyncio.to_thread(api.kubectl, "delete", "polst", "l7policy-p", "-n", namespace)

        async def back() -> Any:
            found = await get(api, namespace, "polst", "l7policy-p")
            return found if found.get("status") else None

        after = await eventually(back)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        await eventually(lambda: one.operator.writer._clock() - written_at(one.operator, namespace) > 2.5)
        lie = {"spec": {"policyGeneration": 9}}
        patch = ["patch", "polst", "l7policy-p", "-n", namespace, "--type=merge", "-p", json.dumps(lie)]
        await asyncio.to_thread(api.kubectl, *patch)

        async def repaired() -> bool:
            found = await get(api, namespace, "polst", "l7policy-p")
            return bool(
                found["spec"]["policyGeneration"] == 1
                and found["status"]["observedGeneration"] == found["metadata"]["generation"]
            )

        await eventually(repaired)


def written_at(operator: Operator, namespace: str) -> float:
    return operator.writer._written[f"L7Policy/{namespace}/p"].at


async def test_a_node_that_fails_lags_or_is_gone_shows_within_five_seconds(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        node = Node("n1", one.operator)
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))

        node.ack(Failure(0, "MapFull", "cannot place 9 entries: map policy holds 8"))
        found = await eventually(lambda: ready(api, namespace, "False"), within=5)
        assert found[1] == "MapFull"
        assert "map policy holds 8" in found[2]
        node.ack()
        await eventually(lambda: ready(api, namespace), within=5)

        node.works = False
        await put(api, namespace, l7policy(path="/other"))
        await eventually(lambda: ready(api, namespace, "False", "Lagging"), within=5)
        node.ack()
        await eventually(lambda: ready(api, namespace), within=5)

        node.leave()
        found = await eventually(lambda: ready(api, namespace, "False", "Disconnected"), within=5)
        assert "stays in force" in found[2]
        reasons = {event["reason"] for event in (await get(api, namespace, "events"))["items"]}
        assert "PolicyDegraded" in reasons


async def test_a_bad_version_is_refused_and_the_good_one_stays_also_over_a_restart(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        node = Node("n1", one.operator)
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        before = {n: d.digest for n, d in one.operator.publisher.documents.items()}
        bad = l7policy(path="/(public")
        await put(api, namespace, bad)
        found = await eventually(lambda: refused(api, namespace))
        assert found[1] == "Invalid"
        assert found[2].startswith("spec.ingress[0].toPorts[0].rules.http[0].path: ")
        assert {n: d.digest for n, d in one.operator.publisher.documents.items()} == before
        node.leave()
    async with replica(api, namespace, "op-1") as other:
        assert {n: d.digest for n, d in other.operator.publisher.documents.items()} == before
        assert (await refused(api, namespace))[1] == "Invalid"
        await put(api, namespace, l7policy(path="/new"))
        Node("n1", other.operator)
        await eventually(lambda: ready(api, namespace))
        assert {n: d.digest for n, d in other.operator.publisher.documents.items()} != before


async def test_churn_of_pods_writes_a_status_now_and_then_and_all_are_counted_in_the_end(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await put(api, namespace, l7policy())
        await pods(api, namespace)
        nodes = [Node(name, one.operator) for name in ("n0", "n1", "n2")]
        await eventually(lambda: ready(api, namespace))
        first = (await get(api, namespace, "polst", "l7policy-p"))["metadata"]["resourceVersion"]
        counted = await watch_churn(namespace, first, one.operator, CHURN + 1)
        assert 1 <= len(counted) <= 3, "4 s of churn, and some more until all are counted"
        for node in nodes:
            node.leave()


CHURN = 40


async def watch_churn(namespace: str, first: str, operator: Operator, pods: int) -> list[int]:
    """The numbers of pods in the statuses that are written, to the one that counts all."""
    path = f"/apis/yett.dev/v1alpha1/namespaces/{namespace}/policystatuses"
    seen: list[int] = []

    async def watch() -> None:
        async with aclosing(operator.kube.watch(path, resourceVersion=first)) as events:
            async for event in events:
                if event["type"] == "MODIFIED":
                    seen.append(event["object"]["status"]["pods"])
                    if seen[-1] == pods:
                        return

    task = asyncio.create_task(watch())
    pod = "/api/v1/namespaces/" + namespace + "/pods"
    for i in range(CHURN):
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"churn-{i}", "labels": {"app": "server"}},
            "spec": {"nodeName": f"n{i % 3}", "containers": [{"name": "c", "image": "i"}]},
        }
        await operator.kube.post(pod, body)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        await task
    return seen


async def test_that_it_is_in_force_on_one_node_more_waits_a_little_and_is_said_in_both_objects(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        nodes = [Node(name, one.operator) for name in ("n1", "n2")]
        await put(api, namespace, l7policy())
        await eventually(lambda: ready(api, namespace))
        written = one.operator.writer._written[f"L7Policy/{namespace}/p"]
        at = written.at
        await asyncio.to_thread(make_pod, api, namespace, "more", "server", "10.1.0.3", node="n2")
        await eventually(lambda: written.waiting)
        assert written.at == at

        async def said() -> bool:
            objects = [await get(api, namespace, *what) for what in (("l7p", "p"), ("polst", "l7policy-p"))]
            return all(each["status"]["enforced"] == "2/2" for each in objects)

        await eventually(said)
        for node in nodes:
            node.leave()


async def test_nothing_of_ours_is_on_users_objects(api: ApiServer, namespace: str) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        Node("n1", one.operator)
        policy = l7policy()
        await put(api, namespace, policy)
        await eventually(lambda: ready(api, namespace))
        stored = await get(api, namespace, "l7p", "p")
        assert "finalizers" not in stored["metadata"]
        assert set(stored["metadata"]["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
        assert "labels" not in stored["metadata"]
        assert (await put(api, namespace, policy)).strip().endswith("unchanged")
        diff = await asyncio.to_thread(
            api.kubectl, "diff", "-n", namespace, "-f", "-", stdin=json.dumps(policy)
        )
        assert diff == ""
