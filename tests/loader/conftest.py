"""The tiny object, a BPF file system of one's own, and values to build snapshots from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent import Node
from support.capabilities import confined
from support.netns import Topology, topology
from yett_loader.datapath import Datapath

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("tiny.bpf.c")


def compile_tiny(target: Path, *defines: str) -> Path:
    """`tiny.bpf.c` with `-D` options."""
    subprocess.run(
        ["clang", "-g", "-O2", "-Wall", "-Werror", "-target", "bpf", f"-I{ROOT}/bpf_src/include"]
        + [f"-D{define}" for define in defines]
        + ["-c", str(SOURCE), "-o", str(target)],
        check=True,
        timeout=60,
    )
    return target


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="session")
def tiny(objects: Path) -> Path:
    """Passes everything on to the stack."""
    return compile_tiny(objects / "tiny.bpf.o")


@pytest.fixture(scope="session")
def tiny_newer(objects: Path) -> Path:
    """The next version: other code, the same maps."""
    return compile_tiny(objects / "newer.bpf.o", "TINY_VERDICT=-1")


@pytest.fixture(scope="session")
def tiny_other_flows(objects: Path) -> Path:
    """A version whose flow table cannot be shared."""
    return compile_tiny(objects / "other.bpf.o", "TINY_EXTRA")


@pytest.fixture(scope="session")
def tiny_fewer_metrics(objects: Path) -> Path:
    return compile_tiny(objects / "fewer.bpf.o", "TINY_METRICS=REASON_COUNT")


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system that goes with the test, and all pins with it."""
    where = tmp_path / "bpffs"
    where.mkdir()
    subprocess.run(["mount", "-t", "bpf", "yett-test", str(where)], check=True, timeout=20)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True, timeout=20)


@pytest.fixture(scope="module")
def pods() -> Iterator[Topology]:
    """Two pods on a node, routed."""
    with topology() as made:
        yield made


@pytest.fixture
def as_in_the_container() -> Iterator[None]:
    """The test may do what its loader may in the cluster, and no more."""
    with confined():
        yield


@pytest.fixture
def node(pods: Topology) -> Iterator[Topology]:
    """The test runs in the node's namespace."""
    with pods.node:
        yield pods


@pytest.fixture
def host(bpffs: Path, tmp_path: Path, tiny: Path, node: Topology) -> Iterator[Node]:
    """A node without an agent yet."""
    made = Node(bpffs, tmp_path / "state", tiny)
    yield made
    Datapath.remove(made.pins)
