"""The loader may be killed, upgraded or gone: nobody must notice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from corpus.rules import PORTS, RULESETS
from support.daemon import LoaderDaemon
from support.enforce import CLIENT, IMAGE, SERVER, compiled, document
from support.judge import GET_PRIVATE, GET_PUBLIC
from support.load import load
from support.netns import Topology
from support.origin import Recorder
from yett_loader.endpoint import LocalEndpoint
from yett_loader.snapshot import Wanted
from yett_policy.document import Direction, Snapshot
from yett_policy.http.rule import HttpRule, RulesetSpec

pytestmark = [pytest.mark.net, pytest.mark.bpf]

PORT = PORTS["public"]


def wanted(topo: Topology, spec: RulesetSpec) -> Wanted:
    """The server allows these requests to its port; its interface must be found by the loader."""
    snapshot = Snapshot(
        documents=(
            document(CLIENT, Direction.EGRESS, None),
            document(SERVER, Direction.INGRESS, {PORT: spec}),
        ),
        rulesets=(compiled(spec),),
        ipcache=tuple(
            sorted(
                (f"{address}/{128 if ':' in address else 32}", identity)
                for side, identity in ((topo.client, CLIENT), (topo.server, SERVER))
                for address in (side.v4, side.v6)
            )
        ),
    )
    endpoints = tuple(
        LocalEndpoint("test", name, identity, (side.v4, side.v6), side.ifindex)
        for name, side, identity in (("client", topo.client, CLIENT), ("server", topo.server, SERVER))
    )
    return Wanted(snapshot, endpoints)


@pytest.fixture(scope="module")
def direction() -> str:
    """The server's pod is the one that matters here."""
    return "ingress"


@pytest.fixture
def daemon(topo: Topology, servers: Mapping[int, Recorder]) -> Iterator[LoaderDaemon]:
    """A running loader that enforces `GET /public`."""
    made = LoaderDaemon(topo.node, "survival")
    try:
        made.start()
        made.push(wanted(topo, RULESETS["public"]))
        yield made
    finally:
        made.close()


@pytest.fixture
def other_image(tmp_path: Path) -> Path:
    """The same programs in an object with another digest, as after a release."""
    image = tmp_path / "yett.bpf.o"
    shutil.copy(IMAGE, image)
    with image.open("ab") as file:
        file.write(b"\0another build\0")
    return image


def test_nothing_fails_while_the_loader_is_killed_and_started_again(
    daemon: LoaderDaemon, topo: Topology
) -> None:
    with load(topo.client.namespace, (topo.server.v4, PORT), GET_PUBLIC, GET_PRIVATE):
        for _ in range(3):
            time.sleep(0.3)
            daemon.kill()
            time.sleep(0.3)
            daemon.start()
    assert daemon.status()


def test_nothing_fails_while_the_loader_is_stopped_and_started_again(
    daemon: LoaderDaemon, topo: Topology
) -> None:
    with load(topo.client.namespace, (topo.server.v6, PORT), GET_PUBLIC, GET_PRIVATE):
        daemon.stop()
        time.sleep(0.5)
        daemon.start()


def test_nothing_fails_while_the_programs_are_upgraded(
    daemon: LoaderDaemon, topo: Topology, other_image: Path
) -> None:
    before = daemon.pins.mark("object")
    with load(topo.client.namespace, (topo.server.v4, PORT), GET_PUBLIC, GET_PRIVATE):
        for image in (other_image, IMAGE, other_image):
            daemon.stop()
            daemon.start(image)
            time.sleep(0.3)
    assert daemon.pins.mark("object") != before


def test_nothing_fails_when_the_loader_is_killed_in_the_middle_of_changes(
    daemon: LoaderDaemon, topo: Topology
) -> None:
    """Rules around the one under load come and go; the one under load is in all of them."""
    public = RULESETS["public"].rules[0]
    specs = [
        RulesetSpec(
            tuple(
                sorted(
                    [
                        public,
                        *(
                            HttpRule(f"L7Policy/test/extra:ingress[{n}]", method="GET", path=f"/extra/{n}")
                            for n in range(count)
                        ),
                    ]
                )
            ),
            "L7Policy/test/corpus:default-deny",
        )
        for count in (1, 2, 3, 5)
    ]
    for spec in specs:
        compiled(spec)
    with load(topo.client.namespace, (topo.server.v4, PORT), GET_PUBLIC, GET_PRIVATE):
        for round_ in range(3):
            for spec in specs:
                daemon.push(wanted(topo, spec))
            if round_ < 2:
                daemon.kill()
                daemon.start()


def test_a_loader_that_is_gone_leaves_the_policy_in_force(daemon: LoaderDaemon, topo: Topology) -> None:
    daemon.kill()
    with load(topo.client.namespace, (topo.server.v4, PORT), GET_PUBLIC, GET_PRIVATE):
        time.sleep(0.5)
