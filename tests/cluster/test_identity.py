"""Who a pod is: its labels now, never those of whoever had its address before."""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster
from cluster.prober import NAMESPACE, probing

pytestmark = pytest.mark.cluster


def test_a_change_of_a_pods_labels_moves_its_verdicts(yett: Cluster):
    with probing(yett) as prober:
        for name, group in (("friend-node1", "stranger"), ("stranger-node2", "friend")):
            with prober.under_load():
                prober.change("label", "pod", "-n", NAMESPACE, name, f"group={group}", "--overwrite")
                print(f"{name} is a {group} everywhere after {prober.agree():.2f} s")
        prober.check()


def test_a_change_of_a_namespaces_labels_moves_the_verdicts_of_its_pods(yett: Cluster):
    with probing(yett) as prober:
        for team in ("outside", "inside"):
            with prober.under_load():
                prober.change("label", "namespace", NAMESPACE, f"team={team}", "--overwrite")
                print(f"all pods are {team} after {prober.agree():.2f} s")
        prober.check()
