"""The verdict prober: pods on every node that send requests all the time, and the reference for each.

On every node there are a server `hear-NODE`, a client `friend-NODE`, which the policy lets in, and a client
`stranger-NODE`, which it does not.  Every client asks every server for a path that friends may have and
for one that nobody may, on connections that are kept and on new ones.  Use it so:

    with probing(cluster) as prober:                       # all verdicts are as they should be
        with prober.under_load():                          # every series runs on, inside
            prober.change("label", "pod", "friend-node1", "group=stranger", "--overwrite")
            prober.agree()                                 # until the newest verdicts are those of the change
        prober.check()                                     # 0 wrong, 0 failed, from the beginning on

The reference for the policies and pods that the API server holds is worked out at every `change`.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from cluster import reference
from cluster.cluster import Cluster
from cluster.history import History, Probe
from cluster.history import Reference as Passes
from cluster.node import Node
from cluster.paths import SOURCES
from yett_lab.errors import LabError

NAMESPACE = "probe"
PERIOD = 0.5
"""Seconds between two requests of a series."""
PATHS = ("/public", "/private")
_IMAGE = "mendhak/http-https-echo"

POLICY: dict[str, Any] = {
    "apiVersion": "yett.dev/v1alpha1",
    "kind": "L7Policy",
    "metadata": {"name": "hear", "namespace": NAMESPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "hear"}},
        "ingress": [
            {
                "fromEndpoints": [
                    {
                        "matchLabels": {
                            "group": "friend",
                            "k8s:io.cilium.k8s.namespace.labels.team": "inside",
                        }
                    }
                ],
                "toPorts": [
                    {
                        "ports": [{"port": "80", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET", "path": "/public"}]},
                    }
                ],
            }
        ],
    },
}
"""Friends of namespaces that are inside may GET /public."""


def policy(name: str = "hear", path: str = "/public") -> dict[str, Any]:
    """That policy for another path, under another name."""
    made = copy.deepcopy(POLICY)
    made["metadata"]["name"] = name
    made["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"][0]["path"] = path
    return made


class Prober:
    """Reads what the clients wrote down from the nodes' disks: the API server need not be there."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes = [node.name for node in cluster.nodes]
        self.clients = [f"{kind}-{node}" for kind in ("friend", "stranger") for node in self.nodes]
        self.servers = [f"hear-{node}" for node in self.nodes]
        self.began = 0.0
        self.history = History(lambda _: False)

    def afresh(self) -> None:
        """Policies and labels as they were at first, all verdicts accordingly, and nothing of before counts."""
        label = ("label", "-n", NAMESPACE, "--overwrite", "pod")
        for group in ("friend", "stranger"):
            names = [name for name in self.clients if name.startswith(group)]
            self.cluster.kubectl(*label, *names, f"group={group}")
        self.cluster.kubectl("label", "namespace", NAMESPACE, "team=inside", "--overwrite")
        other = ("-n", NAMESPACE, "--field-selector", "metadata.name!=hear", "--ignore-not-found")
        self.cluster.kubectl("delete", "l7policies,ciliumnetworkpolicies", *other)
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(POLICY))
        self.history = History(self.passes_now())
        self.agree()
        self.began = time.monotonic()

    # -- what happens

    def change(self, *kubectl: str, stdin: str = "") -> None:
        """Run kubectl; what it changes may be in force from now on."""
        issued = time.monotonic()
        self.cluster.kubectl(*kubectl, stdin=stdin)
        self.changed(issued)

    def changed(self, issued: float) -> None:
        """Policies or pods were changed, not before `issued`."""
        self.history.change(self.passes_now(), issued)

    def settle(self) -> None:
        """The newest change is known to be in force everywhere."""
        self.history.settle(time.monotonic())

    def ready(self, policy: str = "l7policy/hear", seconds: float = 90) -> None:
        """Wait until the status says that the policy is in force, and take its word from then on."""
        timeout = f"--timeout={seconds:g}s"
        wait = ("wait", "-n", NAMESPACE, policy, "--for=condition=Ready", timeout)
        self.cluster.kubectl(*wait, timeout=seconds + 10)
        self.settle()

    def agree(self, servers: Collection[str] = (), seconds: float = 90) -> float:
        """Wait until every series, or each to these servers, goes by the newest change; seconds that it took."""
        begin = time.monotonic()
        passes = self.history.revisions[-1].passes
        wanted = {series for series in self.all_series if not servers or series[1] in servers}
        while True:
            newest = {
                probe.series: probe
                for probe in self.probes()
                if probe.begin >= begin and probe.series in wanted
            }
            odd = [probe for probe in newest.values() if probe.passed != passes(probe)]
            missing = len(wanted) - len(newest)
            if not odd and not missing:
                if not servers:
                    self.settle()
                return time.monotonic() - begin
            assert time.monotonic() < begin + seconds, (
                f"after {seconds:g} s {missing} series are silent and {len(odd)} have other verdicts than the "
                f"reference, such as {odd[:3]}"
            )
            time.sleep(PERIOD)

    def following(self, seconds: float = 90) -> None:
        """Wait until the status says that all nodes are connected, with all that is theirs in force."""
        count = len(self.nodes)
        get = ("get", "policystatus", "-n", NAMESPACE, "l7policy-hear", "-o", "jsonpath={.status.enforced}")
        deadline = time.monotonic() + seconds
        while (said := self.cluster.kubectl(*get)) != f"{count}/{count}":
            assert time.monotonic() < deadline, f"the status says {said}, not {count}/{count}"
            time.sleep(0.2)

    # -- what was seen

    def probes(self) -> list[Probe]:
        """All requests so far, each client's in the order of their ends."""
        return [probe for client in self.clients for probe in self._of(client)]

    def _of(self, client: str) -> Iterator[Probe]:
        node = self.cluster.node(client.partition("-")[2])
        for log in sorted(node.box.log_directory.glob(f"pods/{NAMESPACE}_{client}_*/talk/*.log")):
            for line in log.read_text().splitlines():
                _, stream, tag, text = line.split(" ", 3)
                fields = text.split(" ", 6)
                if (stream, tag, len(fields)) == ("stdout", "F", 7):
                    server, path, kept, begin, end, verdict, why = fields
                    yield Probe(
                        client,
                        server,
                        path,
                        kept == "kept",
                        float(begin),
                        float(end),
                        verdict == "passed",
                        why,
                    )

    def passes_now(self) -> Passes:
        """The reference for what the API server holds."""
        state = reference.compiled(self.cluster)
        verdicts = {
            (client, server, path): reference.passes(
                state, f"{NAMESPACE}/{client}", f"{NAMESPACE}/{server}", path
            )
            for client in self.clients
            for server in self.servers
            for path in PATHS
        }
        return lambda probe: verdicts[probe.source, probe.target, probe.path]

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Every series has a request before what is done inside, and one that began in it; some must pass."""
        before = self._of_all_series(time.monotonic())
        begin = time.monotonic()
        yield
        inside = self._of_all_series(begin)
        assert any(probe.passed for probe in (*before, *inside)), "no load: nothing passed"

    def _of_all_series(self, since: float) -> list[Probe]:
        """What began since then, as soon as every series has an answer to such a request."""
        deadline = time.monotonic() + 60  # a client that is denied waits a while for each answer
        while True:
            found = [probe for probe in self.probes() if probe.begin >= since]
            silent = self.all_series - {probe.series for probe in found}
            if not silent:
                return found
            assert time.monotonic() < deadline, f"no load: nothing came of {sorted(silent)[:3]}"
            time.sleep(PERIOD)

    def check(self) -> None:
        """No verdict was wrong, and there were enough of both kinds; prints how many."""
        seen = [probe for probe in self.probes() if probe.begin >= self.began]
        silent = self.all_series - {probe.series for probe in seen}
        assert not silent, f"no load: nothing came of {sorted(silent)[:3]}"
        kinds = Counter(probe.passed for probe in seen)
        assert min(kinds[True], kinds[False]) >= 50, (
            f"no load: only {kinds[True]} passed, {kinds[False]} denied"
        )
        wrong = self.history.wrong(seen)
        print(
            f"prober: {len(seen)} requests in {time.monotonic() - self.began:.0f} s: {kinds[True]} passed, "
            f"{kinds[False]} denied, {len(wrong)} wrong"
        )
        assert not wrong, f"{len(wrong)} of {len(seen)} verdicts are wrong:\n" + "\n".join(
            map(str, wrong[:20])
        )

    @property
    def all_series(self) -> set[tuple[str, str, str, bool]]:
        return {
            (client, server, path, kept)
            for client in self.clients
            for server in self.servers
            for path in PATHS
            for kept in (True, False)
        }


@contextmanager
def serving(cluster: Cluster) -> Iterator[None]:
    """Inside there are the servers, and the policy is in force."""
    labels = {"team": "inside"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    try:
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(space))
        start(cluster, [server(f"hear-{node.name}", node.name, {"app": "hear"}) for node in cluster.nodes])
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(POLICY))
        ready = ("wait", "-n", NAMESPACE, "l7policy/hear", "--for=condition=Ready", "--timeout=90s")
        cluster.kubectl(*ready, timeout=100)
        yield
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)


@contextmanager
def probing(cluster: Cluster) -> Iterator[Prober]:
    """The same with clients, and every series agrees with the reference on entry."""
    prober = Prober(cluster)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "talk", "namespace": NAMESPACE},
        "data": {"talk.py": (SOURCES / "talk.py").read_text()},
    }
    with serving(cluster):
        # Clients come after the policy: connections from before the first HTTP rule would be reset.
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(config))
        servers = [target(cluster, name) for name in prober.servers]
        groups = [(group, node) for group in ("friend", "stranger") for node in prober.nodes]
        start(cluster, [client(f"{group}-{node}", node, group, servers) for group, node in groups])
        prober.afresh()
        yield prober


def start(cluster: Cluster, pods: list[dict[str, Any]]) -> None:
    """Make pods and wait until they are ready."""
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(pods))
    wait = ("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=90s")
    cluster.kubectl(*wait, timeout=100)


def server(name: str, node: str, labels: dict[str, str]) -> dict[str, Any]:
    """One that answers on port 80."""
    return _pod(name, node, labels, {"name": "hear", "image": _IMAGE})


def client(name: str, node: str, group: str, servers: list[str]) -> dict[str, Any]:
    """One that asks all of them."""
    container = {
        "name": "talk",
        "image": _IMAGE,
        "command": ["python3", "/talk/talk.py", str(PERIOD), ",".join(PATHS), *servers],
        "volumeMounts": [{"name": "talk", "mountPath": "/talk"}],
    }
    volumes = [{"name": "talk", "configMap": {"name": "talk"}}]
    return _pod(name, node, {"app": "talk", "group": group}, container, volumes=volumes)


def target(cluster: Cluster, name: str) -> str:
    """A server as clients want it."""
    return f"{name}={address_of(cluster, name)}:80"


def said_by(node: Node, client: str) -> list[Probe]:
    """What a client has written down so far, from the disk of its node."""
    found = []
    for log in sorted(node.box.log_directory.glob(f"pods/{NAMESPACE}_{client}_*/talk/*.log")):
        for line in log.read_text().splitlines():
            _, stream, tag, text = line.split(" ", 3)
            fields = text.split(" ", 6)
            if (stream, tag, len(fields)) == ("stdout", "F", 7):
                server, path, kept, begin, end, verdict, why = fields
                found.append(
                    Probe(
                        client,
                        server,
                        path,
                        kept == "kept",
                        float(begin),
                        float(end),
                        verdict == "passed",
                        why,
                    )
                )
    return found


def address_of(cluster: Cluster, pod: str, namespace: str = NAMESPACE) -> str:
    """Of a pod that has one."""
    found = cluster.kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.podIP}")
    if not found:
        raise LabError(f"cannot reach pod {pod}: it has no address")
    return found


def _pod(
    name: str, node: str, labels: dict[str, str], container: dict[str, Any], **spec: object
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [{**container, "imagePullPolicy": "IfNotPresent"}],
            **spec,
        },
    }
