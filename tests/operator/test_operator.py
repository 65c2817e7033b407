"""Replicas of the operator against a real API server; loaders are the callers of its port."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from support.apiserver import ApiServer, eventually, free_ports
from support.sync import FAST, Target
from yett_loader.sync.client import SyncClient
from yett_loader.sync.follower import Follower
from yett_loader.sync.settings import Credentials
from yett_loader.sync.settings import Operator as OperatorAddress
from yett_operator.app import Operator
from yett_operator.kube.client import Kube
from yett_operator.ports import Ack, Change, Failure, NodeInfo
from yett_operator.relay import PATH as RELAY
from yett_operator.settings import Settings
from yett_policy.service import Frontend
from yett_policy.sync import decode
from yett_policy.sync.message import RulesetPart

pytestmark = pytest.mark.cluster


class Replica:
    """One operator in this process, without Kopf (admission has tests of its own)."""

    def __init__(self, operator: Operator, task: asyncio.Task[None], server: Any) -> None:
        self.operator = operator
        self.task = task
        self._server = server

    async def kill(self) -> None:
        """As SIGTERM does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._server.cleanup()


class Node:
    """A loader that puts in force whatever it is told, at once."""

    def __init__(self, name: str, operator: Operator, *, works: bool = True) -> None:
        self.name, self.operator, self.works = name, operator, works
        operator.sink.connected(name, NodeInfo("test", "6.18"))
        self._end = operator.publisher.listen(self._changed)
        self.ack()

    def _changed(self, _: Change) -> None:
        if self.works:
            self.ack()

    def ack(self, *failures: Failure) -> None:
        if self.operator.publisher.revision:
            documents = self.operator.publisher.snapshot(self.name).documents
            applied = {number: document.digest for number, document in documents.items()}
            self.operator.sink.acked(self.name, Ack(applied, whole=True, failures=failures))

    def leave(self) -> None:
        self._end()
        self.operator.sink.disconnected(self.name)


@asynccontextmanager
async def replica(api: ApiServer, namespace: str, name: str) -> AsyncIterator[Replica]:
    (port,) = free_ports(1)
    settings = Settings(
        namespace=namespace,
        pod=name,
        service="localhost",
        host="127.0.0.1",
        http_port=0,
        webhook_port=port,
        sync_port=0,
        kubeconfig=str(api.kubeconfig),
    )
    async with await Kube.connect(settings.kubeconfig) as kube:
        operator = Operator(settings, kube)
        task = asyncio.create_task(operator.run())
        await operator.keeper.ready.wait()
        app = aiohttp.web.Application()
        app.add_routes([aiohttp.web.get(RELAY, operator.relay_server.handle)])
        runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", port, ssl_context=operator.keeper.context).start()
        try:
            await eventually(lambda: operator.publisher.revision or (task.done() and task.result()))
            yield Replica(operator, task, runner)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await runner.cleanup()


@pytest.fixture
def namespace(api: ApiServer, request: pytest.FixtureRequest) -> str:
    """One of the test's own: for the operator and for policies and pods."""
    name = "t" + format(abs(hash(request.node.nodeid)) % 10**12, "x")
    api.kubectl("create", "namespace", name)
    return name


@pytest.fixture(autouse=True)
def clean(api: ApiServer, namespace: str) -> Any:
    yield
    for kind in ("l7p", "netpol", "polst", "pods"):
        api.kubectl("delete", kind, "--all", "-n", namespace, "--force", "--grace-period=0", "--wait=false")
    api.kubectl("delete", "cl7p", "--all")


def l7policy(name: str = "p", path: str = "/public", **spec: Any) -> dict[str, Any]:
    port = {"port": "80", "protocol": "TCP"}
    rules = {"ports": [port], "rules": {"http": [{"path": path}]}}
    return {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": "L7Policy",
        "metadata": {"name": name},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"toPorts": [rules]}],
            **spec,
        },
    }


def make_pod(api: ApiServer, namespace: str, name: str, app: str, address: str, node: str = "n1") -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }
    api.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
    status = {"status": {"phase": "Running", "podIPs": [{"ip": address}], "podIP": address}}
    api.kubectl(
        "patch",
        "pod",
        name,
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps(status),
    )


async def put(api: ApiServer, namespace: str, *objects: Any) -> str:
    return await asyncio.to_thread(
        api.kubectl, "apply", "-n", namespace, "-f", "-", stdin="\n---\n".join(map(json.dumps, objects))
    )


async def pods(api: ApiServer, namespace: str) -> None:
    await asyncio.to_thread(make_pod, api, namespace, "server", "server", "10.1.0.1")
    await asyncio.to_thread(make_pod, api, namespace, "client", "client", "10.1.0.2")


async def get(api: ApiServer, namespace: str, *what: str) -> Any:
    return await asyncio.to_thread(api.get, "-n", namespace, *what)


async def condition(api: ApiServer, namespace: str, name: str, *what: str) -> tuple[str, str, str]:
    obj = await get(api, namespace, *(what or ("l7p", "p")))
    for each in obj.get("status", {}).get("conditions", []):
        if each["type"] == name and each["observedGeneration"] == obj["metadata"]["generation"]:
            return each["status"], each["reason"], each["message"]
    return "", "", ""


async def ready(api: ApiServer, namespace: str, status: str = "True", reason: str = "") -> Any:
    found = await condition(api, namespace, "Ready")
    return found if found[0] == status and reason in found[1] else None


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
            pod = publisher.pods.get((namespace, "server"))
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


async def refused(api: ApiServer, namespace: str) -> Any:
    found = await condition(api, namespace, "Accepted")
    return found if found[0] == "False" else None


async def test_numbers_survive_a_restart_and_are_never_given_twice(api: ApiServer, namespace: str) -> None:
    def numbers(operator: Operator) -> dict[str, int]:
        return {name: pod.identity for (ns, name), pod in operator.publisher.pods.items() if ns == namespace}

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
        await eventually(lambda: (namespace, "client") in operator.publisher.pods)
        await eventually(lambda: (namespace, "server") in operator.publisher.pods)
        client = operator.publisher.pods[namespace, "client"].identity
        server = operator.publisher.pods[namespace, "server"].identity

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
        assert operator.publisher.pods[namespace, "server"].identity == server
        await asyncio.to_thread(make_pod, api, namespace, "again", "client", "10.1.0.8")
        await eventually(lambda: (namespace, "again") in operator.publisher.pods)
        assert operator.publisher.pods[namespace, "again"].identity not in {client, server}


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
            pod = publisher.pods[namespace, name]
            return bool(publisher.documents[pod.identity].rulesets)

        assert governed("server")
        assert not governed("client")
        label = ["label", "pod", "-n", namespace, "--overwrite"]
        await asyncio.to_thread(api.kubectl, *label, "client", "app=server")
        await eventually(lambda: governed("client"))
        assert publisher.pods[namespace, "client"].identity == publisher.pods[namespace, "server"].identity
        await asyncio.to_thread(api.kubectl, *label, "server", "app=other")
        await eventually(lambda: not governed("server"))
        old = publisher.pods[namespace, "client"].identity
        await asyncio.to_thread(api.kubectl, "label", "namespace", namespace, "team=red")
        await eventually(lambda: publisher.pods[namespace, "client"].identity != old)
        assert publisher.ipcache["10.1.0.2/32"] == publisher.pods[namespace, "client"].identity


async def test_a_pod_that_is_gone_leaves_nothing_to_who_gets_its_address(
    api: ApiServer, namespace: str
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await pods(api, namespace)
        await eventually(lambda: "10.1.0.1/32" in one.operator.publisher.ipcache)
        old = one.operator.publisher.ipcache["10.1.0.1/32"]
        seen: list[int | None] = []
        one.operator.publisher.listen(lambda change: seen.append(change.ipcache.get("10.1.0.1/32", -1)))
        await asyncio.to_thread(
            api.kubectl, "delete", "pod", "server", "-n", namespace, "--force", "--grace-period=0"
        )
        await asyncio.to_thread(make_pod, api, namespace, "thief", "thief", "10.1.0.1")
        await eventually(lambda: one.operator.publisher.ipcache.get("10.1.0.1/32") not in {None, old})
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
        server = publisher.pods[namespace, "server"].identity
        assert publisher.services[front] == ((server, 80),)
        await eventually(lambda: holds(engine, lambda said: said[0] == "kernel"))
        said = {**port, "appProtocol": "kubernetes.io/h2c"}
        await put(api, namespace, {**service, "spec": {**service["spec"], "ports": [said]}})
        await eventually(lambda: holds(engine, lambda said: said[0] == "sidecar"))
        assert (await engine())[1] == f"appProtocol kubernetes.io/h2c of Service {namespace}/api"
        await asyncio.to_thread(api.kubectl, "delete", "service,endpointslice", "--all", "-n", namespace)
        await eventually(lambda: front not in publisher.services)
        await eventually(lambda: holds(engine, lambda said: said[0] == "kernel"))


async def holds(ask: Callable[[], Awaitable[Any]], test: Callable[[Any], bool]) -> bool:
    """Whether what is asked for now passes the test."""
    return test(await ask())


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
            assert "198.51.100.0/24" in two.operator.publisher.ipcache
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


def loader_token(api: ApiServer, namespace: str, node: str, audience: str = "yett-operator") -> str:
    """As the kubelet of the node would get it for the loader there."""
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "yett-loader"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"loader-{node}"},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "yett-loader",
            "hostNetwork": True,
            "containers": [{"name": "c", "image": "i"}],
        },
    }
    for each in (account, pod):
        api.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(each))
    bound = ["--bound-object-kind=Pod", f"--bound-object-name=loader-{node}", f"--audience={audience}"]
    return api.kubectl("create", "token", "yett-loader", "-n", namespace, *bound).strip()


async def test_a_secret_reaches_the_loaders_that_need_it_and_nothing_that_is_shown(
    api: ApiServer, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(api, namespace, "op-0") as one:
        await eventually(lambda: one.operator.sync.port)
        await pods(api, namespace)
        token, ca = tmp_path / "token", tmp_path / "ca.crt"
        token.write_text(await asyncio.to_thread(loader_token, api, namespace, "n1"))
        config_map = await get(api, namespace, "configmap", "yett-operator-ca")
        ca.write_text(config_map["data"]["ca.crt"])
        target = Target()
        address = OperatorAddress.parse(f"wss://localhost:{one.operator.sync.port}")
        client = SyncClient(address, "n1", Credentials(token, ca), Follower(target), FAST)
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
        token, ca = tmp_path / "token", tmp_path / "ca.crt"
        token.write_text(await asyncio.to_thread(loader_token, api, namespace, "n1"))
        config_map = await get(api, namespace, "configmap", "yett-operator-ca")
        ca.write_text(config_map["data"]["ca.crt"])
        target = Target()
        client = SyncClient(
            OperatorAddress.parse(f"wss://localhost:{one.operator.sync.port}"),
            "n1",
            Credentials(token, ca),
            Follower(target),
            FAST,
        )
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
        keys = [(namespace, "server"), (namespace, "client")]
        await eventually(lambda: all(key in publisher.pods for key in keys))
        server, client = (publisher.pods[key].identity for key in keys)
        await eventually(lambda: publisher.documents[server].rulesets)
        ours = {server, client}
        changes: list[Change] = []
        operator.publisher.listen(changes.append)
        assert operator.process._pool is not None
        (process,) = operator.process._pool._processes.values()
        process.kill()
        await asyncio.to_thread(make_pod, api, namespace, "late", "client", "10.1.0.7")
        await eventually(lambda: "10.1.0.7/32" in operator.publisher.ipcache)
        touched = {prefix for change in changes for prefix in change.ipcache}
        assert not touched & {"10.1.0.1/32", "10.1.0.2/32"}
        assert not any(ours & (change.documents.keys() | change.gone) for change in changes)


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
