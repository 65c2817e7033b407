"""Server and client over real websockets and TLS on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from support import wanted as build
from support.sync import Loader, Replica, Source, Target, pod, until
from yett_operator.sync.settings import Settings
from yett_policy.document import Verdict

Serve = Callable[..., Awaitable[Replica]]
Load = Callable[..., Loader]


async def test_a_loader_gets_what_its_node_needs_and_says_what_is_in_force(serve: Serve, load: Load) -> None:
    source = Source()
    source.begin("node-a", "node-b")
    replica = await serve(source)
    loader = load(replica)
    await until(lambda: replica.sink.nodes.get("node-a"))
    wanted = loader.target.wanted
    assert wanted is not None
    assert [item.name for item in wanted.endpoints] == ["default/web-node-a"]
    assert [item.identity for item in wanted.snapshot.documents] == [build.WEB]
    assert dict(wanted.snapshot.ipcache) == {
        "10.0.0.2/32": build.WEB,
        "10.0.1.2/32": build.WEB,
        "192.168.0.1/32": 1,
    }
    assert len(wanted.snapshot.pods) == 2
    assert replica.sink.nodes["node-a"] == {build.WEB: source.documents[build.WEB].digest}
    assert replica.sink.info["node-a"].kernel
