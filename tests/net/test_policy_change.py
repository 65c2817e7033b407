"""Policies that change under live connections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pytest

from corpus.rules import PORTS
from support.enforce import CLIENT, SERVER, Gate, Ports
from support.enforce import gate as make_gate
from support.judge import GET_PRIVATE, GET_PUBLIC, Judge
from support.netns import Topology
from support.origin import Recorder
from support.rawtcp import ClosedError, RawTcp, Wire
from yett_loader.datapath import Sizes
from yett_policy.document import Direction
from yett_policy.http.rule import HttpRule, PathKind, RulesetSpec
from yett_policy.reason import Reason

pytestmark = [pytest.mark.net, pytest.mark.bpf]

PORT = PORTS["public"]


def rules(*paths: str) -> Ports:
    """GET of these paths on the port."""
    made = tuple(
        HttpRule(f"L7Policy/test/change:ingress[0].toPorts[0].rules.http[{number}]", method="GET", path=path)
        for number, path in enumerate(paths)
    )
    return {PORT: RulesetSpec(made, "L7Policy/test/change:default-deny")}


@pytest.fixture(scope="module")
def loaded(topo: Topology, direction: str) -> Iterator[Gate]:
    """One set of programs for the module."""
    with make_gate(topo, Direction[direction.upper()]) as made:
        yield made


@pytest.fixture
def gate(loaded: Gate) -> Gate:
    """A gate that is attached and says nothing yet; each test applies its own policies."""
    loaded.enforcer.configure(head_timeout_ms=10_000)
    loaded.apply(None)
    return loaded


@pytest.fixture
def idle(loaded: Gate) -> Iterator[Gate]:
    """For tests with programs of their own: those of the module let go of the interfaces."""
    with loaded.topology.node:
        for side in loaded.topology.sides:
            loaded.datapath.detach(side.ifindex)
    yield loaded
    loaded.attach()


@pytest.fixture
def family(direction: str) -> int:
    """One for each direction: the state machine is the same code for both."""
    return 4 if direction == "ingress" else 6


def test_a_keep_alive_connection_that_became_forbidden_is_reset_at_its_next_request(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.gate.apply(rules("/other"))
    raw.send(GET_PUBLIC)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PUBLIC * 2, below=len(GET_PUBLIC) + 6)


def test_a_new_allow_is_seen_by_the_next_request_of_a_live_connection(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.gate.apply(rules("/public", "/privat"))
    raw.send(GET_PRIVATE)
    judge.answered(raw, [GET_PUBLIC, GET_PRIVATE])


@pytest.mark.parametrize("cut", [1, 4, 8, 11, 20, 34])
def test_a_head_finishes_under_the_rules_it_began_with(cut: int, judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC[:cut])
    assert raw.wait_acked()
    judge.gate.apply(rules("/other"))
    raw.send(GET_PUBLIC[cut:])
    judge.answered(raw, [GET_PUBLIC])
    raw.send(GET_PUBLIC)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PUBLIC * 2, below=len(GET_PUBLIC) + 6)


def test_one_packet_may_end_a_head_under_the_old_rules_and_begin_one_under_the_new(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC[:10])
    assert raw.wait_acked()
    judge.gate.apply(rules("/privat"))
    raw.send(GET_PUBLIC[10:] + GET_PRIVATE)
    judge.answered(raw, [GET_PUBLIC, GET_PRIVATE])
    raw.send(GET_PUBLIC)
    judge.denied(raw, Reason.POLICY_DENIED_L7)


def test_a_body_in_progress_survives_a_change_of_rules(judge: Judge) -> None:
    post = HttpRule("L7Policy/test/change:ingress[0].toPorts[0].rules.http[9]", method="POST", path="/upload")
    spec = RulesetSpec((post,), "L7Policy/test/change:default-deny")
    for head, body in (
        (b"Content-Length: 10\r\n\r\n", b"0123456789"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"),
    ):
        for cut in range(1, len(body)):
            judge.gate.apply({PORT: spec})
            judge.restart()
            raw = judge.connect()
            request = b"POST /upload HTTP/1.1\r\nHost: api\r\n" + head + body
            raw.send(request[: len(request) - cut])
            judge.gate.apply(rules("/public"))
            raw.send(request[len(request) - cut :])
            judge.answered(raw, [request])
            raw.send(request)
            judge.denied(raw, Reason.POLICY_DENIED_L7, stream=request * 2, below=len(request) + 1)


def test_a_connection_whose_stream_was_never_followed_is_reset_when_http_rules_appear(judge: Judge) -> None:
    """Where the next request begins is unknown, so nothing may pass."""
    judge.gate.apply({PORT: None})
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.gate.apply(rules("/public"))
    raw.send(GET_PUBLIC)
    judge.denied(raw, Reason.MIDSTREAM, stream=GET_PUBLIC * 2, below=len(GET_PUBLIC) + 1)
    again = judge.connect()
    again.send(GET_PUBLIC)
    judge.answered(again, [GET_PUBLIC])


@pytest.mark.usefixtures("idle")
def test_a_connection_older_than_the_programs_is_reset_when_http_rules_govern_it(
    topo: Topology, wire: Wire, servers: Mapping[int, Recorder], direction: str, family: int
) -> None:
    with make_gate(topo, Direction[direction.upper()], attach=False) as late:
        late.apply(rules("/public"))
        judge = Judge(late, topo, wire, servers, family)
        raw = judge.connect()
        raw.send(GET_PUBLIC)
        judge.answered(raw, [GET_PUBLIC])
        late.attach()
        raw.send(GET_PUBLIC)
        judge.denied(raw, Reason.MIDSTREAM, stream=GET_PUBLIC * 2, below=len(GET_PUBLIC) + 1)


@pytest.mark.usefixtures("idle")
def test_a_connection_older_than_the_programs_goes_on_where_nothing_governs_it(
    topo: Topology, wire: Wire, servers: Mapping[int, Recorder], direction: str, family: int
) -> None:
    with make_gate(topo, Direction[direction.upper()], attach=False) as late:
        late.apply(None)
        judge = Judge(late, topo, wire, servers, family)
        raw = judge.connect()
        raw.send(GET_PUBLIC)
        judge.answered(raw, [GET_PUBLIC])
        late.attach()
        raw.send(GET_PRIVATE)
        judge.answered(raw, [GET_PUBLIC, GET_PRIVATE])


def test_rules_that_go_away_leave_the_connection_alone(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.gate.apply({PORT: None})
    raw.send(GET_PRIVATE)
    judge.answered(raw, [GET_PUBLIC, GET_PRIVATE])


def test_a_port_that_is_closed_while_a_connection_lives_is_closed_for_it_too(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.gate.apply({})
    raw.send(GET_PUBLIC)
    raw.until(lambda: bool(raw.resets) or raw.responses() > 1, 0.3)
    assert judge.delivered(raw) == GET_PUBLIC
    assert Reason.POLICY_DENIED in judge.denials()


def test_a_pod_without_its_document_is_closed(judge: Judge) -> None:
    snapshot = judge.gate.snapshot(rules("/public"))
    closed = type(snapshot)(ipcache=snapshot.ipcache)
    judge.gate.apply_snapshot(closed)
    with pytest.raises((TimeoutError, ClosedError)):
        judge.connect(timeout=0.1)
    assert set(judge.denials()) == {Reason.NOT_READY}


def test_an_interface_without_a_pod_is_closed(judge: Judge) -> None:
    snapshot = judge.gate.snapshot(rules("/public"))
    judge.gate.apply_snapshot(snapshot, without=(CLIENT, SERVER))
    with pytest.raises((TimeoutError, ClosedError)):
        judge.connect(timeout=0.1)
    assert set(judge.denials()) == {Reason.UNKNOWN_ENDPOINT}


def test_a_connection_whose_flow_was_forgotten_is_reset(judge: Judge) -> None:
    judge.gate.apply(rules("/public"))
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    flows = judge.gate.datapath.maps["flows"]
    for key in list(flows.keys()):
        flows.delete(key)
    raw.send(GET_PUBLIC)
    judge.denied(raw, Reason.MIDSTREAM, stream=GET_PUBLIC * 2, below=len(GET_PUBLIC) + 1)


@pytest.mark.usefixtures("idle")
def test_a_full_flow_table_refuses_new_connections_and_leaves_old_ones_alone(
    topo: Topology, wire: Wire, servers: Mapping[int, Recorder], direction: str, family: int
) -> None:
    with make_gate(topo, Direction[direction.upper()], sizes=Sizes(flows=64)) as small:
        small.apply(rules("/public"))
        judge = Judge(small, topo, wire, servers, family)
        old = judge.connect()
        refused = 0
        for _ in range(200):
            raw = RawTcp(wire, judge.address())
            try:
                raw.open(timeout=0.02)
            except (TimeoutError, ClosedError):
                refused += 1
                if refused == 3:
                    break
        assert refused == 3, "200 connections fitted into 64 flows"
        assert set(judge.denials()) == {Reason.FLOW_TABLE_FULL}
        old.send(GET_PUBLIC)
        judge.answered(old, [GET_PUBLIC])
        old.send(GET_PRIVATE)
        assert old.wait_reset()


def test_a_head_that_takes_too_long_is_denied(judge: Judge) -> None:
    """Slowloris."""
    judge.gate.apply(rules("/public"))
    judge.gate.enforcer.configure(head_timeout_ms=200)
    raw = judge.connect()
    raw.send(GET_PUBLIC[:10])
    time.sleep(0.5)
    raw.send(GET_PUBLIC[10:20])
    judge.denied(raw, Reason.HTTP_HEAD_TIMEOUT, stream=GET_PUBLIC)


def test_a_slow_body_is_no_slow_head(judge: Judge) -> None:
    judge.gate.apply(
        {PORT: RulesetSpec((HttpRule("L7Policy/t/c:x", path="/", path_kind=PathKind.PREFIX),), "d")}
    )
    judge.gate.enforcer.configure(head_timeout_ms=200)
    raw = judge.connect()
    request = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n0123456789"
    raw.send(request[:-5])
    time.sleep(0.5)
    raw.send(request[-5:])
    judge.answered(raw, [request])
    time.sleep(0.5)
    raw.send(request)
    judge.answered(raw, [request, request])
