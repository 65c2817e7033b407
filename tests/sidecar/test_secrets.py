"""Values of Secrets on their way through Envoy: they come by SDS, change under way, and go nowhere else."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from support import echo_headers
from support.netns import Namespace
from yett_loader.sidecar.access import judgement, mismatched
from yett_loader.sidecar.changes import asking, secret_name
from yett_loader.sidecar.listeners import bootstrap, listener, listener_name
from yett_loader.sidecar.process import environment, find_envoy
from yett_loader.sidecar.routes import CLUSTER, route_table
from yett_loader.sidecar.xds import Ads
from yett_policy.document import Direction
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.http.rule import HttpRule, RulesetSpec
from yett_policy.reason import Reason

pytestmark = pytest.mark.net

PORT = 20_000
NAME = listener_name(PORT)
FIRST, SECOND = "the-first-secret", "the-second-secret"
SPEC = RulesetSpec(
    (
        HttpRule("a", path="/a", changes=(HeaderChange("authorization", ChangeOp.REPLACE, None, "n/one"),)),
        HttpRule(
            "b",
            path="/b",
            changes=(HeaderChange("x-a", ChangeOp.LOG, "v"), HeaderChange("x-b", ChangeOp.LOG)),
        ),
        HttpRule("c", path="/c", changes=(HeaderChange("x-c", ChangeOp.LOG, None, "n/one"),)),
    ),
    "default",
    forbidden=True,
)


class World:
    """An Envoy, its loader's side, and a server."""

    def __init__(self, ads: Ads, inside: Namespace, entries: asyncio.Queue[Any]) -> None:
        self.ads = ads
        self.inside = inside
        self.entries = entries

    async def publish(self, secrets: set[str]) -> None:
        made = listener(PORT, Direction.INGRESS)
        http = deepcopy(made["filter_chains"][0]["filters"][-1])
        address = {"socket_address": {"address": "127.0.0.1", "port_value": PORT}}
        wanted = {"name": NAME, "address": address, "filter_chains": [{"filters": [http]}]}
        routes = {NAME: route_table(NAME, SPEC, secrets)}
        assert await self.ads.publish({NAME: wanted, **asking(secrets)}, routes, 20)

    async def ask(self, path: str, connection: HTTPConnection | None = None, **headers: str) -> Any:
        """Headers as the server got them, or the status; `connection`: one that must stay open."""
        return await asyncio.to_thread(self._ask, path, connection, headers)

    def _ask(self, path: str, kept: HTTPConnection | None, headers: dict[str, str]) -> Any:
        with self.inside:
            connection = kept or HTTPConnection("127.0.0.1", PORT, timeout=5)
            sockets = connection.sock
            try:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
            except RemoteDisconnected:
                assert kept is None
                return 0
            finally:
                if kept is None:
                    connection.close()
            assert sockets is None or sockets is connection.sock
        if answer.status != 200:
            return answer.status
        return {name.lower(): value for name, value in json.loads(body)}

    async def until(
        self, path: str, name: str, value: str | None, connection: HTTPConnection | None = None
    ) -> set[Any]:
        """All that the server saw of a header before it saw `value`; None: that the request is denied."""
        seen: set[Any] = set()
        async with asyncio.timeout(20):
            while True:
                got = await self.ask(path, connection)
                found = got.get(name) if isinstance(got, dict) else None
                if found == value:
                    return seen
                seen.add(found)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    entries: asyncio.Queue[Any] = asyncio.Queue()
    ads = Ads(lambda _, entry: entries.put_nowait(entry))
    await ads.start(directory / "s" / "xds.sock")
    config = bootstrap(str(directory / "s" / "xds.sock"), "node", str(directory / "s" / "admin.sock"))
    clusters = config["static_resources"]["clusters"]
    clusters[-1] = echo_headers.cluster(CLUSTER)
    (directory / "envoy.json").write_text(json.dumps(config))
    inside = Namespace("envoy")
    command = [
        find_envoy(),
        "-c",
        str(directory / "envoy.json"),
        "--disable-hot-restart",
        "--concurrency",
        "2",
    ]
    with echo_headers.echoing(inside), (directory / "log").open("wb") as log:
        process = inside.popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(directory))
        try:
            yield World(ads, inside, entries)
        finally:
            process.kill()
            process.wait()
            await ads.stop()
    inside.close()


def admin(directory: Path, path: str) -> str:
    """What root sees at Envoy's admin socket."""
    return subprocess.run(
        [
            "curl",
            "-s",
            "-m",
            "5",
            "--unix-socket",
            str(directory / "s" / "admin.sock"),
            f"http://envoy{path}",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_secret_comes_changes_and_goes_without_a_connection_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as envoy:
            await envoy.publish(set())
            assert await envoy.ask("/a", authorization="mine") in {0, 403}
            # Routes that wait for a value deny, and what they say of it is no rule's fault.
            await envoy.publish({"n/one"})
            assert await envoy.ask("/a", authorization="mine") in {0, 403}
            async with asyncio.timeout(10):
                while True:
                    verdict, reason, _ = judgement(await envoy.entries.get())
                    if reason is Reason.SIDECAR_DOWN:
                        break
            assert verdict == "deny"
            envoy.ads.give({secret_name("n/one"): FIRST})
            assert await envoy.until("/a", "authorization", FIRST) <= {None}
            with envoy.inside:
                kept = HTTPConnection("127.0.0.1", PORT, timeout=5)
                kept.connect()
            assert (await envoy.ask("/a", kept, Authorization="mine"))["authorization"] == FIRST
            dump = await asyncio.to_thread(admin, tmp_path, "/config_dump?include_eds")
            assert secret_name("n/one") in dump
            assert FIRST not in dump
            envoy.ads.give({secret_name("n/one"): SECOND})
            assert await envoy.until("/a", "authorization", SECOND, kept) <= {FIRST}
            kept.close()
            envoy.ads.give({})
            await envoy.publish(set())
            assert await envoy.until("/a", "authorization", None) <= {SECOND}
        assert FIRST not in (tmp_path / "log").read_text()
        assert SECOND not in (tmp_path / "log").read_text()

    asyncio.run(run())


def test_the_access_record_names_what_mismatches_and_holds_no_value(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as envoy:
            envoy.ads.give({secret_name("n/one"): FIRST})
            await envoy.publish({"n/one"})
            assert await envoy.until("/a", "authorization", FIRST) <= {None}
            assert (await envoy.ask("/b", **{"x-a": "other-value"}))["x-a"] == "other-value"
            assert "x-b" in await envoy.ask("/b", **{"x-a": "v", "x-b": ""})
            assert (await envoy.ask("/c", **{"x-c": FIRST}))["x-c"] == FIRST
            assert (await envoy.ask("/c", **{"x-c": SECOND}))["x-c"] == SECOND
            found: dict[str, list[tuple[str, ...]]] = {}
            async with asyncio.timeout(10):
                while sum(map(len, found.values())) < 2:
                    entry = await envoy.entries.get()
                    if entry.request.path != "/a":
                        found.setdefault(entry.request.path, []).append(mismatched(entry))
                        assert FIRST.encode() not in entry.SerializeToString()
                        assert b"other-value" not in entry.SerializeToString()
            assert found == {"/b": [("x-a", "x-b")], "/c": [("x-c",)]}

    asyncio.run(run())
