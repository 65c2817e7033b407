"""Fixtures of the network tests: everything real except the cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.netns import Topology, topology
from support.origin import Recorder, recorder
from support.rawtcp import Wire


@pytest.fixture(scope="module")
def topo() -> Iterator[Topology]:
    """client -- node -- server."""
    with topology() as made:
        yield made


@pytest.fixture(scope="module")
def wire(topo: Topology) -> Iterator[Wire]:
    """The client's eth0."""
    made = Wire(topo.client)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(topo: Topology) -> Iterator[Recorder]:
    """The recording server on port 80."""
    with recorder(topo.server.namespace, 80) as made:
        yield made
