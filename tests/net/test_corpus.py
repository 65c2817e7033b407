"""The HTTP corpus against the enforced server: does a denied request ever reach it?"""

from __future__ import annotations

import pytest

from corpus import confusion, framing
from corpus.case import Case
from support.judge import Judge
from support.rawtcp import RawTcp

pytestmark = [pytest.mark.net, pytest.mark.bpf]

CASES = [*framing.CASES, *confusion.CASES]
SHORT = [case for case in CASES if len(case.whole) <= 400]
ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
EACH_SHORT = pytest.mark.parametrize("case", SHORT, ids=lambda case: case.id)

FIRST = {
    "host": b"GET /public HTTP/1.1\r\nHost: api.example\r\n\r\n",
    "header": b"GET /public HTTP/1.1\r\nHost: api\r\nX-Token: secret\r\n\r\n",
    "prefix": b"GET /api HTTP/1.1\r\nHost: api\r\n\r\n",
    "regex": b"GET /item/1 HTTP/1.1\r\nHost: api\r\n\r\n",
    "chunky": b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 0\r\n\r\n",
    "tolerant": b"GET /strict/x HTTP/1.1\r\nHost: api\r\n\r\n",
}
"""A request that each ruleset allows."""


@pytest.fixture
def family(direction: str) -> int:
    """One family for each direction is enough here; the segment tests have all four."""
    return 4 if direction == "ingress" else 6


def check(judge: Judge, case: Case, raw: RawTcp, before: bytes = b"") -> None:
    """What must hold whatever way the bytes were sent."""
    if case.allowed:
        raw.sent = len(before) + len(case.data)
        judge.answered(raw, [part for part in (before, case.data) if part])
        judge.nothing_denied()
        raw.reset()
    else:
        judge.denied(raw, *case.reasons, stream=before + case.whole, below=len(before) + len(case.data))


@ALL
def test_in_one_piece(case: Case, judge: Judge) -> None:
    raw = judge.connect(case.rules)
    raw.send(case.whole)
    check(judge, case, raw)


@EACH_SHORT
def test_byte_by_byte(case: Case, judge: Judge) -> None:
    raw = judge.connect(case.rules)
    raw.send(case.whole, size=1)
    check(judge, case, raw)


@EACH_SHORT
def test_in_two_pieces(case: Case, judge: Judge) -> None:
    """Cut at a few places that differ from case to case; every place is tried without a network."""
    size = len(case.data)
    cuts = {size // 3, size - 1, case.data.rfind(b"\r") + 1} & set(range(1, size))
    for cut in sorted(cuts):
        judge.restart()
        raw = judge.connect(case.rules)
        raw.send(case.whole[:cut])
        raw.send(case.whole[cut:])
        check(judge, case, raw)


@EACH_SHORT
def test_after_an_allowed_request_on_the_same_connection(case: Case, judge: Judge) -> None:
    first = FIRST.get(case.rules, b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n")
    raw = judge.connect(case.rules)
    raw.send(first)
    assert raw.wait_responses(1)
    raw.send(case.whole)
    check(judge, case, raw, first)


@EACH_SHORT
def test_pipelined_behind_an_allowed_request_in_one_segment(case: Case, judge: Judge) -> None:
    first = FIRST.get(case.rules, b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n")
    raw = judge.connect(case.rules)
    raw.send(first + case.whole)
    check(judge, case, raw, first)
