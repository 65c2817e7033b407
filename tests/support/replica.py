"""Replicas of the operator in the test's process, and loaders that call their port or listen beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web

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


async def refused(api: ApiServer, namespace: str) -> Any:
    found = await condition(api, namespace, "Accepted")
    return found if found[0] == "False" else None


async def holds(ask: Callable[[], Awaitable[Any]], test: Callable[[Any], bool]) -> bool:
    """Whether what is asked for now passes the test."""
    return test(await ask())


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


async def loader_of(
    api: ApiServer, namespace: str, operator: Operator, target: Target, directory: Path
) -> SyncClient:
    """The client of a real loader on node n1, with a token of its own."""
    token, ca = directory / "token", directory / "ca.crt"
    token.write_text(await asyncio.to_thread(loader_token, api, namespace, "n1"))
    config_map = await get(api, namespace, "configmap", "yett-operator-ca")
    ca.write_text(config_map["data"]["ca.crt"])
    address = OperatorAddress.parse(f"wss://localhost:{operator.sync.port}")
    return SyncClient(address, "n1", Credentials(token, ca), Follower(target), FAST)
