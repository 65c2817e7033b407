"""The control plane: etcd, API server, controllers, scheduler and the registry, in one box."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster import network, registry
from cluster.box import Box
from cluster.certificates import Authority
from cluster.errors import ClusterError
from cluster.registry import REGISTRY_PORT
from yett_lab.errors import LabError

API_PORT = 6443
DOMAIN = "cluster.local"
_ETCD = "http://127.0.0.1:2379"
_USERS = {
    "admin": ("yett-admin", "system:masters"),
    "apiserver-kubelet": ("kube-apiserver", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
}
"""File name -> user and group of a client certificate."""


@dataclass(frozen=True, slots=True)
class Control:
    """The box and what runs in it."""

    box: Box
    binaries: Path
    """As the box sees them."""
    uplink: int

    @property
    def authority(self) -> Authority:
        return Authority(self.box.paths.certificates)

    @property
    def server(self) -> str:
        """The API server's address among nodes."""
        return f"https://{network.CONTROL_IP}:{API_PORT}"

    @property
    def outer_server(self) -> str:
        """The API server's address from the machine."""
        return f"https://{network.uplink_ip(self.uplink)}:{API_PORT}"

    @property
    def outer_registry(self) -> str:
        """The registry's address from the machine, host and port."""
        return f"{network.uplink_ip(self.uplink)}:{REGISTRY_PORT}"

    def issue(self) -> None:
        """Every certificate of the control plane, and the kubeconfigs."""
        authority = self.authority
        authority.create()
        names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{DOMAIN}",
        ]
        addresses = [network.API_SERVICE_IP, network.CONTROL_IP, network.uplink_ip(self.uplink), "127.0.0.1"]
        alternatives = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
        authority.issue("apiserver", "kube-apiserver", addresses=alternatives)
        for name, (user, group) in _USERS.items():
            authority.issue(name, user, group)
            authority.kubeconfig(authority.directory / f"{name}.kubeconfig", name, self.server)
        authority.kubeconfig(self.box.paths.kubeconfig, "admin", self.outer_server)

    def start(self) -> None:
        """Everything, in order; ready on return."""
        registry.configure(self.box.run_directory / "registry.yaml", REGISTRY_PORT)
        for service, arguments in self._commands().items():
            self.box.spawn(service, arguments)
            if service == "etcd":
                self._wait(service, self._etcd_ready)
            elif service == "kube-apiserver":
                self._wait(service, self.ready)
            elif service == "registry":
                self._wait(service, self.registry_ready)

    def restart(self, service: str) -> None:
        """Kill one of them and start it again; ready on return."""
        self.box.end(service)
        self.box.spawn(service, self._commands()[service])
        if service == "kube-apiserver":
            self._wait(service, self.ready)

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate()))
        context.load_cert_chain(self.authority.certificate("admin"), self.authority.key("admin"))
        return _answers(f"{self.outer_server}/readyz", context)

    def registry_ready(self) -> bool:
        return _answers(f"http://{self.outer_registry}/v2/")

    def _etcd_ready(self) -> bool:
        try:
            self.box.run(["curl", "-sf", "-m", "1", f"{_ETCD}/health"], what="ask etcd for its health")
        except LabError:
            return False
        return True

    def _wait(self, service: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if not self.box.alive(service) or time.monotonic() > deadline:
                raise ClusterError(f"cannot start {service}; the end of its log:\n{self.box.log(service)}")
            time.sleep(0.1)

    def _commands(self) -> dict[str, list[str]]:
        pki = Path("/var/lib/pki")  # as the box sees it
        return {
            # The storage is every cluster's: who holds the lock shared forbids collecting its garbage.
            "registry": [
                "flock",
                "-s",
                f"{registry.INSIDE}.lock",
                "docker-registry",
                "serve",
                "/run/registry.yaml",
            ],
            "etcd": [
                str(self.binaries / "etcd"),
                "--data-dir=/var/lib/etcd",
                f"--listen-client-urls={_ETCD}",
                f"--advertise-client-urls={_ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            "kube-apiserver": [
                str(self.binaries / "kube-apiserver"),
                f"--etcd-servers={_ETCD}",
                f"--secure-port={API_PORT}",
                f"--advertise-address={network.CONTROL_IP}",
                f"--service-cluster-ip-range={network.SERVICE_CIDR}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                f"--client-ca-file={pki}/ca.crt",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet.key",
                "--kubelet-preferred-address-types=InternalIP",  # nobody resolves the nodes' names
                f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
                f"--service-account-key-file={pki}/accounts.pub",
                f"--service-account-signing-key-file={pki}/accounts.key",
                "--enable-aggregator-routing",  # webhooks by endpoint: no kube-proxy runs here
                "--allow-privileged",
            ],
            "kube-controller-manager": [
                str(self.binaries / "kube-controller-manager"),
                *_kubeconfig(pki / "kube-controller-manager.kubeconfig"),
                "--leader-elect=false",
                "--allocate-node-cidrs",
                f"--cluster-cidr={network.POD_CIDR}",
                "--use-service-account-credentials",
                "--flex-volume-plugin-dir=/var/lib/volume-plugins",
                f"--root-ca-file={pki}/ca.crt",
                f"--service-account-private-key-file={pki}/accounts.key",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
            ],
            "kube-scheduler": [
                str(self.binaries / "kube-scheduler"),
                *_kubeconfig(pki / "kube-scheduler.kubeconfig"),
                "--leader-elect=false",
            ],
        }


def _kubeconfig(path: Path) -> list[str]:
    kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{kind}={path}" for kind in kinds]


def _answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
