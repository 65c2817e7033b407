"""A real API server with our kinds and roles, and somebody who writes what a cluster's users write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bench.control.shape import Json
from bench.control.wire import Wire
from support.apiserver import ApiServer, api_server
from yett_operator.kube.client import ApiError, Kube
from yett_operator.sync.auth import AUDIENCE

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "yett-system"
_WRITER = "bench-writer"
_AT_ONCE = 24
"""Writes under way."""
_SELDOM_COLLECTED = {"GOGC": "800"}
"""Of API server and etcd: with Go's ordinary setting a quarter of what they do is to save memory, and what is left
of two processors is too little to store a hundred pods a second."""
_NO_QUEUES = "--enable-priority-and-fairness=false"
"""Of requests in the API server: nobody here is to wait for anybody, and a fourteenth of what it does is to manage them."""
_PLURALS = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/namespaces/{}/pods",
    "L7Policy": "/apis/yett.dev/v1alpha1/namespaces/{}/l7policies",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}


@contextmanager
def cluster(directory: Path) -> Iterator[ApiServer]:
    """An API server with everything of yett that is installed once."""
    with api_server(directory, _NO_QUEUES, environment=_SELDOM_COLLECTED) as server:
        for folder in ("crds", "manifests/optional"):
            server.kubectl("apply", "--server-side", "-f", str(ROOT / folder))
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.kubectl("create", "namespace", NAMESPACE)
        server.kubectl("apply", "-f", str(ROOT / "manifests/base/operator/rbac.yaml"))
        server.kubectl("apply", "-f", str(ROOT / "manifests/base/loader/serviceaccount.yaml"))
        server.kubectl("create", "serviceaccount", _WRITER, "-n", NAMESPACE)
        grant = f"--serviceaccount={NAMESPACE}:{_WRITER}"
        server.kubectl("create", "clusterrolebinding", _WRITER, "--clusterrole=cluster-admin", grant)
        yield server


@asynccontextmanager
async def writer(server: ApiServer) -> AsyncIterator[Writer]:
    """As an administrator, with a token: a certificate would be verified anew with each request."""
    async with await Kube.connect(str(server.kubeconfig_of(_WRITER, NAMESPACE))) as kube:
        wire = await Wire.like(kube)
        try:
            yield Writer(kube, wire)
        finally:
            wire.close()


class Writer:
    """Creates, changes and deletes objects."""

    def __init__(self, kube: Kube, wire: Wire) -> None:
        self.kube = kube
        self._wire = wire
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def create_all(self, objects: Iterable[Json]) -> int:
        """Several at a time, in no order; how many."""
        return len(await asyncio.gather(*map(self.create, objects)))

    async def delete_all(self, objects: Iterable[Json]) -> None:
        """Several at a time."""
        await asyncio.gather(*map(self.delete, objects))

    async def create(self, obj: Json) -> None:
        """An object, and its status if it has one: what a controller, then a kubelet do."""
        async with self._turn:
            await self._wire.send("POST", collection(obj), obj)
            if "status" in obj:
                await self.status(obj, obj["status"])

    async def status(self, obj: Json, status: Json) -> float:
        """Of an object that is there; when the API server has answered (time.monotonic())."""
        await self._wire.send("PUT", f"{path(obj)}/status", {**obj, "status": status})
        return time.monotonic()

    async def respecify(self, obj: Json) -> float:
        """Another spec; when the API server has answered."""
        await self.kube.patch(path(obj), [{"op": "replace", "path": "/spec", "value": obj["spec"]}])
        return time.monotonic()

    async def delete(self, obj: Json) -> None:
        """At once, as a kubelet does in the end."""
        async with self._turn:
            await self._wire.send("DELETE", f"{path(obj)}?gracePeriodSeconds=0")

    async def list(self, where: str) -> list[Any]:
        """All objects of a collection, page by page."""
        found: list[Any] = []
        more = ""
        while True:
            page = await self.kube.get(where, limit="500", **({"continue": more} if more else {}))
            found += page["items"]
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    async def token(self, node: str) -> str:
        """A loader's token, bound to its node."""
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/yett-loader/token"
        uid = (await self.kube.get(f"/api/v1/nodes/{node}"))["metadata"]["uid"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [AUDIENCE],
                "expirationSeconds": 7200,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
            },
        }
        return str((await self.kube.post(account, request))["status"]["token"])

    async def authority(self) -> str:
        """Certificates that the operator published, for loaders; waits until they are there."""
        while True:
            try:
                found = await self.kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/yett-operator-ca")
                return str(found["data"]["ca.crt"])
            except ApiError as error:
                if error.status != 404:
                    raise
            await asyncio.sleep(0.1)


def collection(obj: Json) -> str:
    """The path that objects of the kind are created at."""
    return _PLURALS[obj["kind"]].format(obj["metadata"].get("namespace", ""))


def path(obj: Json) -> str:
    """Of one object."""
    return f"{collection(obj)}/{obj['metadata']['name']}"
