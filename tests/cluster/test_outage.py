"""The operator and the API server go and come back under load: no verdict is wrong, and statuses converge."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.node import Node
from cluster.operator import (
    SYSTEM,
    another_leads,
    eventually,
    holder,
    metric,
    names,
    restarts,
    rolled_out,
    send,
    without_operator,
)
from cluster.prober import NAMESPACE, Prober, policy
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster

ENFORCED = ("get", "policystatus", "-n", NAMESPACE, "l7policy-hear", "-o", "jsonpath={.status.enforced}")


def takes_news(prober: Prober) -> None:
    """A change of now is in force everywhere, and the status says so when it is."""
    with prober.under_load():
        for path in ("/private", "/public"):
            prober.change("apply", "-f", "-", stdin=yaml.safe_dump(policy(path=path)))
            prober.ready()
            prober.agree()
    prober.following()


def test_nobody_notices_that_all_replicas_are_killed_at_once(yett: Cluster, prober: Prober):
    before, old = restarts(yett), holder(yett)
    with prober.under_load():
        for name in before:
            send(yett, name, signal.SIGKILL)
        killed = lambda: all(restarts(yett)[name] == before[name] + 1 for name in before)  # noqa: E731
        eventually(killed, "both containers are started again")
        rolled_out(yett)
        print(f"somebody leads {another_leads(yett, old):.1f} s after both are ready again")
    takes_news(prober)
    prober.check()


def test_nobody_notices_that_replicas_are_killed_one_after_the_other(yett: Cluster, prober: Prober):
    with prober.under_load():
        for _ in range(2):
            old = holder(yett)
            send(yett, old.partition("_")[0], signal.SIGKILL)
            print(f"another one leads after {another_leads(yett, old):.1f} s")
            rolled_out(yett)
    takes_news(prober)
    prober.check()


def test_nobody_notices_that_the_leader_is_deleted(yett: Cluster, prober: Prober):
    with prober.under_load():
        old = holder(yett)
        yett.kubectl("delete", "pod", "-n", SYSTEM, old.partition("_")[0])
        print(f"another one leads {another_leads(yett, old):.1f} s after the end of the pod")
        rolled_out(yett)
    takes_news(prober)
    prober.check()


def test_nobody_notices_a_rollout_of_the_operator(yett: Cluster, prober: Prober):
    before = names(yett)
    with prober.under_load():
        yett.kubectl("rollout", "restart", "-n", SYSTEM, "deployment/yett-operator")
        rolled_out(yett)
        eventually(lambda: not names(yett) & before, "the old replicas are gone")
    takes_news(prober)
    prober.check()


def test_what_changes_while_there_is_no_operator_is_in_force_once_there_is_one(yett: Cluster, prober: Prober):
    cilium = policy("hear-cilium", "/private") | {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
    }
    old = prober.history.revisions[-1].passes
    with without_operator(yett), prober.under_load():
        with pytest.raises(LabError, match="failed calling webhook"):
            yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(policy(path="/private")))
        prober.change("apply", "-f", "-", stdin=yaml.safe_dump(cilium))
        prober.change("delete", "-n", NAMESPACE, "l7policy", "hear")
        since = time.monotonic()
        eventually(
            lambda: {p.series for p in prober.probes() if p.begin > since} >= prober.all_series,
            "every series goes on",
        )
        assert all(p.passed == old(p) for p in prober.probes() if p.begin > since)
    print(f"all goes by the changes {prober.agree():.1f} s after the operator is ready")
    prober.check()


def test_a_restart_of_the_api_server_changes_no_verdict(yett: Cluster, prober: Prober):
    with prober.under_load():
        yett.control.restart("kube-apiserver")
        rolled_out(yett)
    takes_news(prober)
    prober.check()


def test_what_was_deleted_while_the_operator_could_not_watch_is_gone(yett: Cluster, prober: Prober):
    prober.change("apply", "-f", "-", stdin=yaml.safe_dump(policy("more", "/private")))
    prober.ready("l7policy/more")
    resources = ("l7policies", "pods")
    lists = {(name, of): listed(yett, name, of) for name in names(yett) for of in resources}
    with prober.under_load():
        for name in names(yett):
            send(yett, name, signal.SIGSTOP)
        try:
            prober.change("delete", "-n", NAMESPACE, "l7policy", "more")
            prober.change("label", "pod", "-n", NAMESPACE, "friend-node3", "group=stranger", "--overwrite")
            compact(yett)
            yett.control.restart("kube-apiserver")  # its caches begin after what the operator knows
        finally:
            for name in names(yett):
                send(yett, name, signal.SIGCONT)
        print(f"all goes by the changes after {prober.agree():.1f} s")
    prober.check()
    # Of one kind or the other: the last event before the end may wait in the socket of a stopped process.
    again = {name for name, of in lists if listed(yett, name, of) > lists[name, of]}
    assert again == {name for name, _ in lists}, "nothing was listed anew"


def listed(cluster: Cluster, name: str, resource: str) -> float:
    return metric(cluster, name, f'yett_reflector_lists_total{{resource="{resource}"}}')


def compact(cluster: Cluster) -> None:
    """Etcd forgets all history: a watch from before now is answered with 410."""

    def ask(path: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        argv = ["curl", "-sSf", "-m", "5", f"http://127.0.0.1:2379/v3/kv/{path}", "-d", json.dumps(body)]
        answer: dict[str, dict[str, str]] = json.loads(cluster.control.box.run(argv, what="ask etcd"))
        return answer

    revision = ask("range", {"key": "AA=="})["header"]["revision"]
    ask("compaction", {"revision": revision, "physical": True})


def test_a_loader_without_its_operator_goes_on_and_the_status_says_so(yett: Cluster, prober: Prober):
    node = yett.node("node2")
    with prober.under_load(), partitioned(node):
        begin = time.monotonic()
        failed = "jsonpath={.status.failedNodes[*].node} {.status.failedNodes[*].reason}"
        lost = lambda: yett.kubectl(*ENFORCED[:-1], failed) == "node2 Disconnected"  # noqa: E731
        print(f"the status shows the loss after {eventually(lost, 'the status shows it', 5):.1f} s")
        old = prober.history.revisions[-1].passes
        prober.change("apply", "-f", "-", stdin=yaml.safe_dump(policy(path="/private")))
        prober.agree(["hear-node1", "hear-node3"])
        since = time.monotonic()
        eventually(lambda: time.monotonic() > begin + 60, "a minute passes", 70)
        there = [p for p in prober.probes() if p.target == "hear-node2" and p.begin > since]
        assert there, "no load on the node"
        assert all(p.passed == old(p) for p in there), "what was in force there is not any more"
        assert yett.kubectl(*ENFORCED) == "2/3"
    print(f"the node goes by the change {prober.agree():.1f} s after it is back")
    prober.ready()
    assert yett.kubectl(*ENFORCED) == "3/3"
    prober.check()


@contextmanager
def partitioned(node: Node) -> Iterator[None]:
    """Inside, nothing passes between the node's loader and any operator; all else does."""
    rules = """
        table inet partition {
            chain out { type filter hook output priority -300; tcp dport 8443 drop; }
            chain in { type filter hook input priority -300; tcp sport 8443 drop; }
        }
    """
    node.box.run(["nft", "-f", "-"], stdin=rules, what=f"cut {node.name} off")
    try:
        yield
    finally:
        node.box.run(["nft", "delete", "table", "inet", "partition"], what=f"connect {node.name} again")
