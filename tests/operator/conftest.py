from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import ApiServer, api_server

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that has our kinds and Cilium's."""
    with api_server(tmp_path_factory.mktemp("api")) as server:
        server.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        server.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/optional"))
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        yield server


@pytest.fixture
def namespace(api: ApiServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """One of the test's own: for the operator and for policies and pods, which go when it ends."""
    name = "t" + format(abs(hash(request.node.nodeid)) % 10**12, "x")
    api.kubectl("create", "namespace", name)
    yield name
    for kind in ("l7p", "netpol", "polst", "pods"):
        api.kubectl("delete", kind, "--all", "-n", name, "--force", "--grace-period=0", "--wait=false")
    api.kubectl("delete", "cl7p", "--all")
