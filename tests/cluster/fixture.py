"""The pytest fixture `cluster`: one for a whole run of the tests that are marked `cluster`.

These tests run where CLUSTER=1 is set, as `make test-cluster` does: the first run compiles Kubernetes.
With YETT_CLUSTER=NAME they use the cluster of that name and leave it up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cluster import Cluster
from cluster.paths import REPOSITORY, ROOT, Paths
from cluster.prober import Prober, probing
from yett_lab.errors import LabError

NODES = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the marked tests out, unless they are wanted."""
    if os.environ.get("CLUSTER") == "1":
        return
    wanted = [item for item in items if item.get_closest_marker("cluster") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes, up; shared by all tests, so each takes away what it made."""
    if name := os.environ.get("YETT_CLUSTER"):
        yield Cluster(Paths(name))
        return
    remove_orphans()
    made = Cluster(Paths(f"test-{os.getpid()}"))
    try:
        made.up(NODES)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def yett(cluster: Cluster) -> Cluster:
    """The same cluster, with yett as its manifests have it; tests on it come after those on the bare one."""
    for directory in ("manifests", "manifests/optional"):
        cluster.kubectl("apply", "-k", str(REPOSITORY / directory))
    for workload in ("deployment/yett-operator", "daemonset/yett-loader", "daemonset/yett-sidecar"):
        roll = ("rollout", "status", "-n", "yett-system", workload, "--timeout=180s")
        cluster.kubectl(*roll, timeout=190)
    return cluster


@pytest.fixture(scope="module")
def talking(yett: Cluster) -> Iterator[Prober]:
    """The prober, for all tests of a file."""
    with probing(yett) as prober:
        yield prober


@pytest.fixture
def prober(talking: Prober) -> Prober:
    """The same, with everything as it was at first."""
    talking.afresh()
    return talking


def remove_orphans() -> None:
    """Clusters of test runs that were killed."""
    for path in ROOT.glob("test-*/"):
        name = path.name
        if not Path("/proc", name.removeprefix("test-")).exists():
            try:
                Cluster(Paths(name)).down()
            except LabError as error:
                print(f"cluster: {error}")
