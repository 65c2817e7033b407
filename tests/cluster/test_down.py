"""Taking a cluster down leaves nothing, in whatever state it is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import leftovers
from cluster.cluster import Cluster
from cluster.errors import ClusterError
from cluster.images import yett_images
from cluster.leftovers import Picture
from cluster.paths import ROOT, Paths
from cluster.workload import APP, LOADER_CAPABILITIES, apply, echoed, pod

pytestmark = pytest.mark.cluster


@pytest.fixture
def other() -> Iterator[Cluster]:
    """A cluster beside that of the other tests, not up yet."""
    cluster = Cluster(Paths(f"down-{os.getpid()}"))
    yield cluster
    cluster.down()


def left(before: Picture, during: Picture) -> list[str]:
    """What came with the cluster and stays; namespaces and programs go in the kernel's own time."""
    deadline = time.monotonic() + 60
    while True:
        after = leftovers.picture()
        stays = {kind: after[kind] & during[kind] for kind in after}
        found = leftovers.added(before, stays)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def test_a_cluster_with_running_pods_and_pinned_programs_leaves_nothing(other: Cluster):
    before = leftovers.picture()
    other.up(1)
    _, loader = yett_images()
    apply(other, APP + "\n---\n" + pod("loader", loader.reference, LOADER_CAPABILITIES))
    echoed(other, "http://api-service/")
    other.kubectl("exec", "loader", "--", "yett-loader", "load")
    during = leftovers.picture()
    came = {line.split()[0] for line in leftovers.added(before, during)}
    assert came >= {"cgroup", "file", "interface", "map", "namespace", "program", "route"}
    assert other.down()
    assert left(before, during) == []


def test_a_cluster_that_lost_its_state_and_half_of_its_processes_leaves_nothing(other: Cluster):
    before = leftovers.picture()
    other.up(1)
    during = leftovers.picture()
    control, node = other.control.box, other.nodes[0].box
    os.kill(node.pid, signal.SIGKILL)
    control.end("kube-apiserver")
    (control.run_directory / "box").unlink()
    other.paths.state.unlink()
    assert other.down()
    assert left(before, during) == []
    assert not other.down()


def test_a_second_cluster_of_the_same_name_is_refused(cluster: Cluster):
    with pytest.raises(ClusterError, match="it is there; take it down first"):
        cluster.up(1)
    assert Path(ROOT, cluster.paths.name).exists()
