"""A node with kube-proxy: the very rules that the real one writes, in a namespace where nothing else is."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.load import LoadError
from bench.systems.system import System
from bench.systems.tproxy import restore
from cluster import binaries
from support.apiserver import ApiServer, api_server
from support.netns import Namespace, ip

SERVICES = 100
_BACKENDS = 2
_PODS = "10.9.0.0/16"
_NODE = "bench"
_PATIENCE = 60
"""Seconds that kube-proxy may take for its rules."""
_COUNTER = re.compile(r" -m nfacct --nfacct-name +\S+")
"""Of packets that the same rule drops: its counter is an object of its own, which iptables-restore does not make."""
_MET = re.compile(r"^\[(\d+):\d+\] -A PREROUTING .*-j KUBE-SERVICES$", re.MULTILINE)


def rules() -> str:
    """As iptables-save prints them, comments and all: what kube-proxy in its iptables mode makes of some services."""
    items = [_node(), *(item for number in range(SERVICES) for item in _service(number))]
    with (
        tempfile.TemporaryDirectory(prefix="yett-kube-proxy-") as name,
        closing(Namespace("kube-proxy")) as namespace,
        namespace,
    ):
        _address()
        with api_server(Path(name)) as server:
            server.apply({"apiVersion": "v1", "kind": "List", "items": items})
            with _running(server) as process:
                return _written(process)


def with_kube_proxy(make: Callable[[], System], text: str) -> Callable[[], System]:
    """The same system, on a node that has these rules, and so connection tracking; LoadError at its end if no
    connection met them.
    """

    def made() -> System:
        system = make()
        node = system.world.topology.node
        with node:
            restore(text, keep=True)

        def met() -> None:
            found = _MET.search(node.run(["iptables-save", "-c", "-t", "nat"]).stdout.decode())
            if found is None or not int(found[1]):
                raise LoadError(f"cannot trust the numbers of {system.label}: nothing met kube-proxy's rules")

        system.cleanup.callback(met)
        return system

    return made


def _address() -> None:
    """And a default route: an API server does not start without."""
    ip("""
        link add eth0 type veth peer name peer0
        addr add 192.0.2.1/24 dev eth0
        link set eth0 up
        link set peer0 up
        route add default via 192.0.2.2
    """)


@contextmanager
def _running(server: ApiServer) -> Iterator[subprocess.Popen[bytes]]:
    config = server.directory / "kube-proxy.json"
    config.write_text(json.dumps(_config(server)))
    with (server.directory / "kube-proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries.ensure() / "kube-proxy"), f"--config={config}"], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _written(process: subprocess.Popen[bytes]) -> str:
    """When there is a target for every backend."""
    wanted, deadline = SERVICES * _BACKENDS, time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
        if saved.count("-j DNAT --to-destination") == wanted:
            return _COUNTER.sub("", saved)
        time.sleep(0.1)
    raise LoadError("cannot measure a node with kube-proxy: it does not write its rules")


def _config(server: ApiServer) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(server.kubeconfig)},
        "clusterCIDR": _PODS,
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": _NODE,
        # These sysctls are the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _node() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": _NODE},
        "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]},
    }


def _service(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One of many that nobody asks here: each is a rule that every new connection of the node meets."""
    name = f"service-{number}"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [f"10.9.{100 + backend}.{number + 1}"], "conditions": {"ready": True}}
            for backend in range(_BACKENDS)
        ],
    }
    return service, slice_
