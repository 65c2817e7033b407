"""The API of the loader, over its socket."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import wanted as build
from support.agent import Node
from support.netns import Topology
from yett_loader.agent import Agent
from yett_loader.api import Api, Server
from yett_loader.kernel import Program, abi
from yett_loader.recorder import Recorder
from yett_loader.snapshot import to_bytes
from yett_loader.state import Prefix
from yett_policy.document import SCHEMA, Verdict

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]


class Client:
    """What a command line tool does."""

    def __init__(self, agent: Agent, recorder: Recorder, session: aiohttp.ClientSession) -> None:
        self.agent = agent
        self.recorder = recorder
        self.session = session

    async def get(self, path: str) -> Any:
        async with self.session.get(f"http://node{path}") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    def event(self, **fields: object) -> None:
        """Write a record as the programs do: let the tiny program write one, read it over."""
        self.agent.observe(allowed=True)
        with Program.open(self.agent.datapath.pins.programs / "from_pod") as program:
            program.test_run(bytes(64), ifindex=1)


@asynccontextmanager
async def serving(host: Node, socket_path: Path, *, allow_push: bool = True) -> AsyncIterator[Client]:
    agent = await host.start()
    recorder = Recorder(agent.datapath.maps["events"], lambda: agent.names)
    server = Server(Api(agent, recorder, allow_push=allow_push), socket_path)
    await server.start()
    reading = asyncio.create_task(recorder.run())
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket_path))) as session:
        yield Client(agent, recorder, session)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await server.stop()
    recorder.close()
    agent.datapath.close()


async def test_only_root_can_open_the_socket(host: Node, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    async with serving(host, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_pushed_snapshot_is_answered_when_it_is_in_force(
    host: Node, node: Topology, tmp_path: Path
) -> None:
    wanted = build.wanted(build.web(), build.client())
    async with serving(host, tmp_path / "s") as api:
        async with api.session.put("http://node/v1/snapshot", data=to_bytes(wanted)) as response:
            answer = await response.json()
        assert response.status == 200
        assert answer["waiting"] == {}
        assert answer["documents"] == {str(d.identity): d.digest for d in wanted.snapshot.documents}
        status = await api.get("/v1/status")
        assert status["snapshot"]["digest"] == answer["digest"]
        assert status["endpoints"] == {"total": 2, "ready": 2, "waiting": {}}
        assert status["error"] == ""
        listed = await api.get("/v1/endpoints")
        assert [(e["pod"], e["state"], e["ifindex"]) for e in listed["endpoints"]] == [
            ("web", "ready", node.server.ifindex),
            ("client", "ready", node.client.ifindex),
        ]


async def test_a_policy_is_read_back_in_lookup_order_with_names(host: Node, tmp_path: Path) -> None:
    wanted = build.wanted(build.web())
    async with serving(host, tmp_path / "s") as api:
        await api.agent.apply(wanted)
        policy = await api.get("/v1/policy/default/web")
        first = policy["entries"][0]
        assert first["peer"] == build.CLIENT
        assert first["peer_labels"] == ["k8s:app=client"]
        assert (first["protocol"], first["ports"], first["verdict"]) == ("TCP", "80", "allow")
        assert first["rule"] == "L7Policy/default/web:ingress[0].toPorts[0]"
        assert first["ruleset"] == wanted.snapshot.rulesets[0].digest
        assert policy["entries"][1]["rule"] == "L7Policy/default/web:default-deny"
        assert policy["rulesets"][first["ruleset"]]["rules"] == [
            "L7Policy/default/web:ingress[0].toPorts[0].rules.http[0]"
        ]
        assert (await api.get("/v1/policy/web"))["entries"] == policy["entries"]


async def test_the_flow_table_is_read_with_names(host: Node, node: Topology, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        await api.agent.apply(build.wanted(build.web(), build.client()))
        key = abi.pack(
            "flow_key",
            ifindex=node.server.ifindex,
            proto=6,
            local_port=int.from_bytes((80).to_bytes(2, "big"), "little"),
            remote_port=int.from_bytes((40000).to_bytes(2, "big"), "little"),
            local=Prefix.parse("10.9.2.2/32").address,
            remote=Prefix.parse("10.9.1.2/32").address,
        )
        flags = abi.number("FLOW_HTTP") | abi.number("FLOW_ESTABLISHED")
        value = abi.pack(
            "flow", id=9, peer=build.CLIENT, flags=flags, verdict=Verdict.ALLOW, reason=1, requests=3
        )
        api.agent.datapath.maps["flows"].update(key, value)
        table = await api.get("/v1/flows-table/default/web")
        (flow,) = table["flows"]
        assert (flow["source"]["pod"], flow["source"]["port"]) == ("client", 40000)
        assert (flow["destination"]["pod"], flow["destination"]["port"]) == ("web", 80)
        assert (flow["verdict"], flow["requests"]) == ("allow", 3)
        assert set(flow["flags"]) == {"http", "established"}
        assert (await api.get("/v1/flows-table/default/client"))["flows"] == []


async def test_records_are_kept_and_followed(host: Node, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        api.event()
        async with api.session.get("http://node/v1/flows?last=10") as response:
            past = [json.loads(line) async for line in response.content]
        assert [record["type"] for record in past] == ["flow"]
        async with api.session.get("http://node/v1/flows?follow=1&last=1") as response:
            old = json.loads(await asyncio.wait_for(response.content.readline(), 5))
            assert old == past[0]
            api.event()
            record = json.loads(await asyncio.wait_for(response.content.readline(), 5))
        assert record["verdict"] == "allow"
        assert record["time"] > old["time"]
        metrics = await api.get("/v1/metrics-json")
        assert {"direction": "egress", "reason": "ALLOWED", "flows": 2, "requests": 0} in metrics["counters"]


async def test_prometheus_text_has_counters_by_reason(host: Node, tmp_path: Path) -> None:
    async with serving(host, tmp_path / "s") as api:
        api.event()
        async with api.session.get("http://node/metrics") as response:
            text = await response.text()
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'yett_flows_total{direction="egress",reason="ALLOWED"} 1\n' in text
        assert "# TYPE yett_endpoints gauge\n" in text


async def test_allowed_traffic_is_recorded_only_while_observed(
    host: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yett_loader.api.OBSERVE_SECONDS", 0.2)
    async with serving(host, tmp_path / "s") as api:
        assert api.agent._enforcer.config()["flags"] == 0
        async with api.session.post("http://node/v1/observe") as response:
            assert (await response.json()) == {"seconds": 0.2}
        assert api.agent._enforcer.config()["flags"] == abi.number("CONFIG_RECORD_ALLOWED")
        await asyncio.sleep(0.4)
        assert api.agent._enforcer.config()["flags"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("PUT", "/v1/snapshot", b"{", 400, "snapshot: this is not JSON"),
        ("PUT", "/v1/snapshot", b'{"schema": %d}' % SCHEMA, 400, "snapshot: field 'documents' is missing"),
        ("GET", "/v1/policy/default/nobody", b"", 404, "no endpoint 'default/nobody' on this node"),
        ("GET", "/v1/flows?last=-1", b"", 400, "last is '-1'; it must be a number in 0..4096"),
        ("GET", "/v1/flows?last=99999", b"", 400, "it must be a number in 0..4096"),
        ("GET", "/v1/nothing", b"", 404, "Not Found"),
        ("POST", "/v1/status", b"", 405, "Method Not Allowed"),
    ],
)
async def test_bad_requests_are_answered_in_a_sentence(
    host: Node, tmp_path: Path, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    async with (
        serving(host, tmp_path / "s") as api,
        api.session.request(method, f"http://node{path}", data=body) as response,
    ):
        assert response.status == status
        assert message in (await response.json())["error"]


async def test_snapshots_are_not_taken_unless_that_was_asked_for(host: Node, tmp_path: Path) -> None:
    async with (
        serving(host, tmp_path / "s", allow_push=False) as api,
        api.session.put("http://node/v1/snapshot", data=to_bytes(build.wanted())) as response,
    ):
        assert response.status == 403
        assert "--allow-push" in (await response.json())["error"]


async def test_a_slow_follower_is_told_what_it_missed(host: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yett_loader.recorder.QUEUE", 2)
    agent = await host.start()
    recorder = Recorder(agent.datapath.maps["events"], lambda: agent.names)
    with recorder.follow() as follower:
        for number in range(5):
            follower.offer({"number": number})
        assert follower.lost == 3
        assert await follower.next() == {"number": 0}
    recorder.close()
    agent.datapath.close()
