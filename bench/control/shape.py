"""PURE: the cluster of the benchmark, as objects of the API: namespaces, nodes, pods and policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

Json = dict[str, Any]

PORT = 8080
_POD_ADDRESSES = ip_address("10.64.0.0")
_NODE_ADDRESSES = ip_address("172.16.0.0")
_TIERS = ("web", "api", "db")
_NAMESPACE = "k8s:io.kubernetes.pod.namespace"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much there is of everything."""

    pods: int = 10_000
    identities: int = 250
    """Workloads; the pods of one have the same labels."""
    policies: int = 1_000
    nodes: int = 100
    namespaces: int = 10

    @property
    def few(self) -> int:
        """Pods of which every workload has one; those of the real node are two more."""
        return self.identities + 2

    # -- what there is

    def namespace_of(self, app: int) -> str:
        """Of a workload."""
        return f"team-{app % self.namespaces}"

    def namespace_objects(self) -> Iterator[Json]:
        """With labels that policies select by."""
        for number in range(self.namespaces):
            yield _object("v1", "Namespace", f"team-{number}", labels={"team": str(number)})

    def node_objects(self) -> Iterator[Json]:
        """Simulated ones."""
        for number in range(self.nodes):
            address = str(_NODE_ADDRESSES + number + 1)
            yield node_object(node_name(number), address)

    def pod_objects(self, count: int | None = None) -> Iterator[Json]:
        """Of all workloads in turn, each spread over the nodes."""
        for number in range(self.pods if count is None else count):
            copy, app = divmod(number, self.identities)
            yield self.pod_object(
                app,
                _suffix(number),
                str(_POD_ADDRESSES + number + 1),
                node_name((app + 3 * copy) % self.nodes),
            )

    def pod_object(self, app: int, suffix: str, address: str, node: str) -> Json:
        """With the labels that a Deployment's pods have, and its status."""
        roll_out = _hash(app)[:9]
        pod = _object(
            "v1",
            "Pod",
            f"{app_name(app)}-{roll_out}-{suffix}",
            namespace=self.namespace_of(app),
            labels={"app": app_name(app), "tier": _TIERS[app % 3], "pod-template-hash": roll_out},
        )
        pod["spec"] = {
            "nodeName": node,
            "serviceAccountName": "default",
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/app:1",
                    "ports": [{"name": "http", "containerPort": PORT}],
                }
            ],
        }
        pod["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        return pod

    def policy_objects(self, first: int = 0, last: int | None = None) -> Iterator[Json]:
        """Four of five kinds for each workload in turn."""
        for number in range(first, self.policies if last is None else last):
            yield self.policy_object(number)

    def policy_object(self, number: int) -> Json:
        """One of them."""
        turn, app = divmod(number, self.identities)
        make = (self._http, self._egress, self._kubernetes, self._wide)[turn % 4]
        return make(app, f"{app_name(app)}-{turn}")

    # -- policies

    def http_policy(self, app: int, name: str, paths: tuple[str, ...], peers: list[Json]) -> Json:
        """Whom a workload serves what."""
        rules = [{"method": "GET", "path": path} for path in paths]
        return self._l7(
            app,
            name,
            ingress=[
                {"fromEndpoints": peers, "toPorts": [{"ports": [_port(PORT)], "rules": {"http": rules}}]}
            ],
        )

    def peer(self, app: int) -> Json:
        """A selector of one workload, wherever it is."""
        return {"matchLabels": {"app": app_name(app), _NAMESPACE: self.namespace_of(app)}}

    def _http(self, app: int, name: str) -> Json:
        """Two other workloads may ask for three kinds of things."""
        paths = tuple(f"/{app_name(app)}/{path}" for path in ("v[12]/items/[0-9]+", "health", "search(/.*)?"))
        peers = [self.peer((app + step) % self.identities) for step in (1, 7)]
        return self.http_policy(app, name, paths, peers)

    def _egress(self, app: int, name: str) -> Json:
        """Databases of the namespace, names, and one network outside."""
        return self._l7(
            app,
            name,
            egress=[
                {"toEndpoints": [{"matchLabels": {"tier": "db"}}], "toPorts": [{"ports": [_port(5432)]}]},
                {"toPorts": [{"ports": [_port(53, "UDP"), _port(53)]}]},
                {"toCIDR": [f"203.0.{app % 50}.0/24"], "toPorts": [{"ports": [_port(443)]}]},
            ],
        )

    def _kubernetes(self, app: int, name: str) -> Json:
        """NetworkPolicy: what serves people in two namespaces."""
        teams = [str((app + step) % self.namespaces) for step in (0, 1)]
        policy = _object("networking.k8s.io/v1", "NetworkPolicy", name, namespace=self.namespace_of(app))
        policy["spec"] = {
            "podSelector": {"matchLabels": {"app": app_name(app)}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [{"key": "team", "operator": "In", "values": teams}]
                            },
                            "podSelector": {"matchLabels": {"tier": "web"}},
                        }
                    ],
                    "ports": [{"port": "http", "protocol": "TCP"}, {"port": 9090, "protocol": "TCP"}],
                }
            ],
        }
        return policy

    def _wide(self, app: int, name: str) -> Json:
        """The whole namespace; for every tenth workload the whole cluster."""
        peers: Json = {"fromEntities": ["cluster"]} if app % 10 == 0 else {"fromEndpoints": [{}]}
        return self._l7(app, name, ingress=[{**peers, "toPorts": [{"ports": [_port(9100)]}]}])

    def _l7(self, app: int, name: str, **rules: list[Json]) -> Json:
        policy = _object("yett.dev/v1alpha1", "L7Policy", name, namespace=self.namespace_of(app))
        policy["spec"] = {"endpointSelector": {"matchLabels": {"app": app_name(app)}}, **rules}
        return policy


def app_name(app: int) -> str:
    """Of a workload."""
    return f"app-{app:03}"


def node_name(number: int) -> str:
    """Of a simulated node."""
    return f"node-{number:03}"


def node_object(name: str, address: str) -> Json:
    """A node and its address."""
    node = _object("v1", "Node", name)
    node["status"] = {"addresses": [{"type": "InternalIP", "address": address}]}
    return node


def _suffix(number: int) -> str:
    return _hash(number)[-5:] + f"{number:04x}"


def _hash(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def _port(number: int, protocol: str = "TCP") -> Json:
    return {"port": str(number), "protocol": protocol}


def _object(version: str, kind: str, name: str, *, namespace: str = "", labels: Json | None = None) -> Json:
    metadata: Json = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
