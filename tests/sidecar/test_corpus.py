"""The HTTP corpus through the sidecar, with real servers behind it: what do they execute?

Envoy repairs some of what the kernel engine drops (it writes the request anew), so the question is
not whether a malformed request arrives, but whether anything arrives that the rules do not allow.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import pytest

from corpus import confusion, framing
from corpus.case import Case
from corpus.rules import RULESETS
from support.netns import Namespace
from support.origins import Origin
from yett_loader.sidecar.listeners import bootstrap, listener
from yett_loader.sidecar.process import environment, find_envoy
from yett_loader.sidecar.routes import CLUSTER, route_table
from yett_policy.document import Direction, Verdict
from yett_policy.evaluate import judge_request
from yett_policy.http.rule import HttpRule, Request, RulesetSpec
from yett_policy.reason import Reason

pytestmark = pytest.mark.net

KINDS = ("nginx", "stdlib", "tornado")
ONLY = "only"
SPECS = {
    **RULESETS,
    # Framing is about requests inside of others: these are for /private.
    ONLY: RulesetSpec((HttpRule("L7Policy/test/only:ingress[0]", path="/public.*"),), "default-deny"),
}
FIRST_PORT, ORIGIN_PORT = 20_000, 9000
CASES = [*framing.CASES, *confusion.CASES]


def port(kind: str, rules: str) -> int:
    return FIRST_PORT + 100 * KINDS.index(kind) + list(SPECS).index(rules)


def judged(kind: str, rules: str) -> dict[str, Any]:
    """The listener of production without the redirect around it."""
    made = listener(port(kind, rules), Direction.INGRESS)
    http = deepcopy(made["filter_chains"][0]["filters"][-1])
    config = http["typed_config"]
    del config["rds"], config["access_log"]
    text = json.dumps(route_table("rules", SPECS[rules]))
    config["route_config"] = json.loads(text.replace(f'"cluster": "{CLUSTER}"', f'"cluster": "{kind}"'))
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port(kind, rules)}}
    return {"name": f"{kind}-{rules}", "address": address, "filter_chains": [{"filters": [http]}]}


def upstream(kind: str) -> dict[str, Any]:
    """The cluster of production, but with one server in it."""
    made = bootstrap("", "", "")["static_resources"]["clusters"]
    (cluster,) = [deepcopy(item) for item in made if item["name"] == CLUSTER]
    place = {"address": "127.0.0.1", "port_value": ORIGIN_PORT + KINDS.index(kind)}
    del cluster["lb_policy"]
    return {
        **cluster,
        "name": kind,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": kind,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": place}}}]}],
        },
    }


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, dict[str, Origin]]]:
    """Three servers, and one Envoy with a listener for each of them and each ruleset."""
    home = tmp_path_factory.mktemp("envoy")
    resources = {
        "listeners": [judged(kind, rules) for kind in KINDS for rules in SPECS],
        "clusters": [upstream(kind) for kind in KINDS],
    }
    (home / "envoy.json").write_text(json.dumps({"static_resources": resources}))
    argv = [find_envoy(), "-c", str(home / "envoy.json"), "--disable-hot-restart", "--concurrency", "1"]
    with ExitStack() as stack:
        inside = Namespace("corpus")
        stack.callback(inside.close)
        servers = {kind: Origin(kind, inside, ORIGIN_PORT + KINDS.index(kind)) for kind in KINDS}
        for server in servers.values():
            stack.callback(server.close)
            server.ready()
        output = stack.enter_context((home / "log").open("wb"))
        envoy = inside.popen(
            [*argv, "-l", "error"], stdout=output, stderr=subprocess.STDOUT, env=environment(home)
        )
        stack.callback(envoy.wait)
        stack.callback(envoy.kill)
        with inside:
            end = time.monotonic() + 20
            while envoy.poll() is None and time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port(KINDS[-1], ONLY)), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
        assert envoy.poll() is None, (home / "log").read_text()
        yield inside, servers


def answer(number: int, data: bytes, seconds: float = 0.4) -> bytes:
    """All that comes back until the other side closes, or says no more."""
    said = b""
    with socket.create_connection(("127.0.0.1", number), timeout=5) as connection:
        connection.settimeout(seconds)
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                said += part
        except OSError:
            pass
    return said


def answers(inside: Namespace, requests: list[tuple[int, bytes]]) -> list[bytes]:
    """To (port, what is sent), some at a time: most of the time is waiting for silence."""

    def ask(request: tuple[int, bytes]) -> bytes:
        with inside:
            return answer(*request)

    with ThreadPoolExecutor(24) as pool:
        return list(pool.map(ask, requests))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_hidden_in_a_request_is_executed(
    origins: tuple[Namespace, dict[str, Origin]], kind: str
) -> None:
    inside, servers = origins
    before = len(servers[kind].executed())
    # Alone, and behind a request that is fine, on the same connection.
    sent = [part + case.whole for case in framing.CASES for part in (b"", framing.GET)]
    answers(inside, [(port(kind, ONLY), data) for data in sent])
    executed = servers[kind].executed()[before:]
    assert len(executed) > len(framing.CASES)  # the requests in front, at least
    assert not [line for line in executed if "/public" not in line or "private" in line]


def is_policy(case: Case) -> bool:
    """Denied by rules or for ambiguity, not for what Envoy repairs."""
    return bool(case.reasons) and all(
        reason in (Reason.POLICY_DENIED_L7, Reason.DENY_RULE_L7) or reason.name.startswith("AMBIGUOUS")
        for reason in case.reasons
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_rules_deny_is_executed(origins: tuple[Namespace, dict[str, Origin]], kind: str) -> None:
    inside, servers = origins
    cases = [case for case in CASES if is_policy(case) and case.rules != "audit"]
    assert len(cases) > 60
    for rules in sorted({case.rules for case in cases}):
        before = len(servers[kind].executed())
        answers(inside, [(port(kind, rules), case.whole) for case in cases if case.rules == rules])
        executed = servers[kind].executed()[before:]
        if rules in ("host", "header"):  # all their cases are single requests
            assert not executed
        for line in executed:  # what stood before the request that is denied
            method, _, target = line.partition(" ")
            request = Request(method.encode(), target.strip("'").encode(), ((b"Host", b"api"),))
            assert judge_request(SPECS[rules], request).verdict is Verdict.ALLOW, line


def test_what_the_kernel_engine_allows_the_sidecar_allows(
    origins: tuple[Namespace, dict[str, Origin]],
) -> None:
    inside, _ = origins
    cases = [case for case in CASES if case.allowed]
    assert len(cases) > 40
    said = answers(inside, [(port("nginx", case.rules), case.whole) for case in cases])
    refused = {
        case.id: text[:12]
        for case, text in zip(cases, said, strict=True)
        if text[:12] in (b"", b"HTTP/1.1 403", b"HTTP/1.1 400")
    }
    assert not refused
