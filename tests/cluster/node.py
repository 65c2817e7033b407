"""A node: containerd, a kubelet and kube-proxy in a box, registered with the API server."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import cgroup, network, registry
from cluster.box import Box
from cluster.certificates import Authority
from cluster.errors import ClusterError
from yett_lab.errors import LabError
from yett_lab.run import command

PAUSE = "docker.io/library/pause:1"
_CONTAINERD = """\
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true # this machine may not let root lower it
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/run/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/run/registries"
"""
_CERTIFICATES = Path("/run/pki")


@dataclass(frozen=True, slots=True)
class Node:
    """One of them, by its number from 1."""

    box: Box
    index: int
    binaries: Path
    """As the box sees them."""

    @property
    def name(self) -> str:
        return self.box.name

    @property
    def cgroup(self) -> str:
        return self.box.paths.cgroup(self.name)

    def configure(self, authority: Authority, server: str) -> None:
        """Write every file that its programs read, with a certificate of its own."""
        run = self.box.run_directory
        pki = run / "pki"
        pki.mkdir(mode=0o700)
        address = network.node_ip(self.index)
        user = f"system:node:{self.name}"
        authority.issue(self.name, user, "system:nodes", [f"DNS:{self.name}", f"IP:{address}"])
        authority.kubeconfig(pki / "kubelet.kubeconfig", self.name, server)
        for name in ("ca.crt", f"{self.name}.crt", f"{self.name}.key", "kube-proxy.kubeconfig"):
            shutil.copy(authority.directory / name, pki)
        registry.trust(run / "registries")
        (run / "cni/net.d").mkdir(parents=True)
        (run / "containerd.toml").write_text(_CONTAINERD.format(pause=PAUSE, snapshotter=self._snapshotter()))
        (run / "resolv.conf").write_text("")  # DNS beyond the cluster there is none
        (run / "kubelet.yaml").write_text(json.dumps(self._kubelet()))
        (run / "kube-proxy.yaml").write_text(json.dumps(_kube_proxy(self.name)))

    def start(self) -> None:
        """Start its programs; the kubelet registers the node."""
        cgroup.create(self.cgroup)
        for service, argv in self._commands().items():
            self.box.spawn(service, argv)
            if service == "containerd":
                self._wait_runtime()

    def restart(self, service: str) -> None:
        """Kill one of its programs and start it again."""
        self.box.end(service)
        self.box.spawn(service, self._commands()[service])
        if service == "containerd":
            self._wait_runtime()

    def allow_pods(self, cidr: str) -> None:
        """Tell containerd the network of its pods: with that the node becomes ready."""
        ipam = {"type": "host-local", "ranges": [[{"subnet": cidr}]], "routes": [{"dst": "0.0.0.0/0"}]}
        plugins = [{"type": "ptp", "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
        path = self.box.run_directory / "cni/net.d/10-pods.conflist"
        path.write_text(json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}))

    def forget(self, image: str) -> None:
        """Remove an image, so that it is pulled again."""
        self.box.run(["ctr", "-n", "k8s.io", "images", "rm", image], what=f"remove {image} from {self.name}")

    def stop(self) -> None:
        """End everything in it, and its cgroups."""
        self.box.stop()
        cgroup.remove(self.cgroup)

    def _wait_runtime(self) -> None:
        """Until containerd listens: a kubelet gives up where nobody does."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.box.run(["ctr", "version"], what=f"reach containerd on {self.name}")
            except LabError:
                if not self.box.alive("containerd") or time.monotonic() > deadline:
                    log = self.box.log("containerd")
                    raise ClusterError(f"cannot start containerd on {self.name}:\n{log}") from None
                time.sleep(0.1)
            else:
                return

    def _snapshotter(self) -> str:
        kind = command(
            ["stat", "-f", "-c", "%T", str(self.box.directory)], what="see the file system"
        ).strip()
        return "native" if kind == "overlayfs" else "overlayfs"  # an overlay does not stand on another

    def _commands(self) -> dict[str, list[str]]:
        return {
            "containerd": ["containerd", "--config", "/run/containerd.toml"],
            "kubelet": [
                str(self.binaries / "kubelet"),
                "--config=/run/kubelet.yaml",
                f"--kubeconfig={_CERTIFICATES}/kubelet.kubeconfig",
                f"--hostname-override={self.name}",
                f"--node-ip={network.node_ip(self.index)}",
            ],
            "kube-proxy": [str(self.binaries / "kube-proxy"), "--config=/run/kube-proxy.yaml"],
        }

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{_CERTIFICATES}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{_CERTIFICATES}/{self.name}.crt",
            "tlsPrivateKeyFile": f"{_CERTIFICATES}/{self.name}.key",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDNS": [network.DNS_IP],
            "clusterDomain": "cluster.local",
            "resolvConf": "/run/resolv.conf",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "oomScoreAdj": 0,
            # The nodes share a disk that is not theirs: its filling up is no reason to evict pods.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }


def _kube_proxy(node: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{_CERTIFICATES}/kube-proxy.kubeconfig"},
        "clusterCIDR": network.POD_CIDR,
        "hostnameOverride": node,
        "oomScoreAdj": 0,
        # It may not write these sysctls of the machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
