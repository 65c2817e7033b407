"""A cluster: a control plane and nodes, brought up, changed and taken away."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import binaries, cgroup, images, network, registry, state
from cluster.box import Box, marked
from cluster.control import Control
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.node import Node
from cluster.paths import CACHE_INSIDE, CONTROL, ROOT, SOURCES, Paths
from cluster.progress import step
from cluster.state import State
from yett_lab.run import signal_quietly, wait_gone


@dataclass(frozen=True)
class Cluster:
    """One cluster, by name; it may be up or not."""

    paths: Paths

    @property
    def exists(self) -> bool:
        return self.paths.state.exists()

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.paths.kubeconfig)

    @property
    def control(self) -> Control:
        known = self._state()
        return Control(Box(self.paths, CONTROL), self._binaries, known.uplink)

    @property
    def nodes(self) -> list[Node]:
        return [self._node(index) for index in self._state().nodes]

    def node(self, name: str) -> Node:
        """The node with this name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ClusterError(
            f"cannot find node {name}: there are {', '.join(node.name for node in self.nodes)}"
        )

    def up(self, count: int) -> None:
        """Everything from nothing: binaries, control plane, images, nodes, DNS."""
        built = binaries.ensure()
        with locked(self.paths):
            if self.exists or marked(self.paths.name):
                raise ClusterError(
                    f"cannot bring cluster {self.paths.name} up: it is there; take it down first"
                )
            self.paths.directory.mkdir(parents=True)
            registry.collect(self.paths.directory / "registry.yaml")
            self._save(State(network.free_uplink(), built.name))
            with step("starting the control plane"):
                control = self.control
                control.box.start()
                network.connect_control(control.box, control.uplink)
                control.issue()
                control.start()
            with step("providing the images"):
                images.provide(images.all_images(built), control.outer_registry)
            with step(f"starting {count} nodes"):
                for index in range(1, count + 1):
                    self._start_node(index)
                self._admit()
            with step("starting cluster DNS"):
                self.kubectl("apply", "-f", str(SOURCES / "dns.yaml"))
                self.kubectl(
                    "rollout",
                    "status",
                    "-n",
                    "kube-system",
                    "deployment/coredns",
                    "--timeout=90s",
                    timeout=100,
                )

    def join(self) -> Node:
        """One more node; ready on return."""
        with locked(self.paths):
            used = self._state().nodes
            index = next(number for number in range(1, 200) if number not in used)
            node = self._start_node(index)
            self._admit()
            return node

    def leave(self, name: str) -> None:
        """Drain a node, delete it, and take it away."""
        with locked(self.paths):
            node = self.node(name)
            drain = (
                "drain",
                name,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--force",
                "--timeout=120s",
            )
            self.kubectl(*drain, timeout=130)
            self.kubectl("delete", "node", name)
            node.stop()
            shutil.rmtree(node.box.directory)
            known = self._state()
            others = {index: cidr for index, cidr in known.nodes.items() if index != node.index}
            self._save(replace(known, nodes=others))
            if cidr := known.nodes[node.index]:
                for box in (self.control.box, *(other.box for other in self.nodes)):
                    network.unroute_pods(box, cidr)

    def update_images(self) -> list[str]:
        """Build yett's images if they changed, and have the nodes pull them again."""
        with locked(self.paths):
            changed = images.provide(images.yett_images(), self.control.outer_registry)
            for image in changed:
                for node in self.nodes:
                    node.forget(image.reference)
            return [image.reference for image in changed]

    def down(self) -> bool:
        """Take it away, whole, from whatever state it is in; False: there was none."""
        with locked(self.paths):
            existed = self.paths.directory.exists() or bool(marked(self.paths.name))
            for box in self._boxes():
                box.stop()
            left = wait_gone(marked(self.paths.name), timeout=0)
            for pid in left:
                signal_quietly(pid, signal.SIGKILL)
            if left := wait_gone(left):
                raise ClusterError(
                    f"cannot end processes {left} of cluster {self.paths.name}; end them and repeat"
                )
            for name in cgroup.names(self.paths.cgroup("")):
                cgroup.remove(name)
            shutil.rmtree(self.paths.directory, ignore_errors=True)
            if self.paths.directory.exists():
                raise ClusterError(f"cannot remove {self.paths.directory}; see what is mounted or open there")
            return existed

    def _boxes(self) -> list[Box]:
        """All that have a directory, nodes before the control plane."""
        if not self.paths.directory.exists():
            return []
        found = [
            Box(self.paths, entry.name)
            for entry in self.paths.directory.iterdir()
            if (entry / "run").is_dir()
        ]
        return sorted(found, key=lambda box: box.name == CONTROL)

    @property
    def _binaries(self) -> Path:
        return CACHE_INSIDE / "kubernetes" / self._state().binaries

    def _node(self, index: int) -> Node:
        return Node(Box(self.paths, f"node{index}"), index, self._binaries)

    def _start_node(self, index: int) -> Node:
        node = self._node(index)
        node.box.start()
        network.connect_node(self.control.box, node.box, index)
        node.configure(self.control.authority, self.control.server)
        node.start()
        known = self._state()
        self._save(replace(known, nodes={**known.nodes, index: None}))
        return node

    def _admit(self) -> None:
        """Give every node's pods their network, as the controllers allotted it; all ready on return."""
        nodes = self.nodes
        self._wait(lambda: len(self._cidrs()) == len(nodes), "the nodes did not register")
        numbered = self._cidrs()
        self._save(replace(self._state(), nodes=dict(numbered)))
        network.route_pods(self.control.box, numbered, own=None)
        for node in nodes:
            network.route_pods(node.box, numbered, own=node.index)
            node.allow_pods(numbered[node.index])
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s", timeout=70)

    def _cidrs(self) -> dict[int, str]:
        """Number of a node -> network of its pods, of those that have one."""
        items = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {
            int(item["metadata"]["name"].removeprefix("node")): item["spec"]["podCIDR"]
            for item in items
            if "podCIDR" in item["spec"]
        }

    def _wait(self, condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            for node in self.nodes:
                if not node.box.alive("kubelet"):
                    raise ClusterError(
                        f"cannot start {node.name}: its kubelet ended:\n{node.box.log('kubelet')}"
                    )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"cannot bring cluster {self.paths.name} up: {otherwise} within {seconds:g} s"
                )
            time.sleep(0.2)

    def _state(self) -> State:
        try:
            return state.load(self.paths.state)
        except FileNotFoundError:
            raise ClusterError(f"cannot find cluster {self.paths.name}; run `scripts/cluster up`") from None

    def _save(self, changed: State) -> None:
        changed.save(self.paths.state)


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """One at a time changes a cluster; the lock's file goes when the cluster has gone."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"cannot change cluster {paths.name}: another command is doing so; wait for it"
            ) from None
        try:
            yield
        finally:
            if not paths.directory.exists():
                paths.lock.unlink()
    if not any(ROOT.iterdir()):
        ROOT.rmdir()
