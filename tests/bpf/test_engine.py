"""The kernel engine against the interpreter of its tables, over the same bytes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import confusion, framing, rules
from corpus.case import Case
from support.enforce import compiled, document
from support.examples import examples
from support.testrun import SERVER_ID, Kernel, Seen
from yett_policy.document import Direction, Ruleset, Verdict
from yett_policy.http.machine import Machine
from yett_policy.http.rule import RulesetSpec

pytestmark = pytest.mark.bpf

SPECS = rules.RULESETS
CASES = [case for case in (*framing.CASES, *confusion.CASES) if case.rules in SPECS]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as made:
        yield made


def in_force(kernel: Kernel, spec: RulesetSpec) -> tuple[Ruleset, int]:
    """The ruleset governs the pod's port 80; its first rule's number."""
    ruleset = compiled(spec)
    if kernel.current != spec.digest:
        kernel.apply([document(SERVER_ID, Direction.INGRESS, {80: spec})], [ruleset])
        kernel.current = spec.digest
    return ruleset, kernel.rule_base(ruleset)


def expected(ruleset: Ruleset, base: int, data: bytes) -> list[Seen]:
    return [Seen(item.verdict, item.reason, base + item.rule) for item in Machine(ruleset.tables).feed(data)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Pieces between these places, none longer than a test run takes (a page less headroom)."""
    edges = sorted({*range(0, len(data), 3000), len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def compare(kernel: Kernel, spec: RulesetSpec, data: bytes, places: list[int]) -> None:
    kernel.room()
    ruleset, base = in_force(kernel, spec)
    pieces = cut(data, places)
    got = kernel.connect().feed(pieces)
    want = expected(ruleset, base, data)
    assert want == got, f"{data!r} in pieces {[len(piece) for piece in pieces]}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_case_of_the_corpus_is_judged_as_its_tables_say(kernel: Kernel, case: Case) -> None:
    data = case.whole
    compare(kernel, SPECS[case.rules], data, [])
    draw = random.Random(case.name)  # the same cuts on every run
    for _ in range(3):
        compare(kernel, SPECS[case.rules], data, [draw.randrange(len(data) + 1) for _ in range(3)])


ALPHABET = st.sampled_from(
    [b"GET ", b"POST ", b"/public", b"/", b"..", b"%2e", b"?q=1", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: api\r\n",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X-Y: z\r\n", b"\r\n", b"\n", b"abc", b"3\r\nabc\r\n",
     b"0\r\n\r\n", b"Upgrade: h2c\r\n", b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n",
     b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 3\r\n\r\nabc", b"\x00", b"\x80"]
)  # fmt: skip


@settings(max_examples=examples(400), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.one_of(ALPHABET, st.binary(max_size=5)), min_size=1, max_size=12),
    name=st.sampled_from(sorted(SPECS)),
    places=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_stream_cut_anywhere_is_judged_as_its_tables_say(
    kernel: Kernel, parts: list[bytes], name: str, places: list[int]
) -> None:
    compare(kernel, SPECS[name], b"".join(parts), places)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fillers=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    places=st.lists(st.integers(0, 12_000), max_size=4),
    last=st.sampled_from([b"/public", b"/privat"]),
)
def test_long_heads_and_pipelines_wrap_around_the_kept_bytes(
    kernel: Kernel, fillers: list[int], places: list[int], last: bytes
) -> None:
    heads = [b"GET /public HTTP/1.1\r\nHost: api\r\nX: " + b"v" * size + b"\r\n\r\n" for size in fillers]
    data = b"".join(heads) + b"GET " + last + b" HTTP/1.1\r\nHost: api\r\n\r\n"
    compare(kernel, SPECS["public"], data, places)


def test_a_stream_that_nothing_governs_writes_no_verdict_on_requests(kernel: Kernel) -> None:
    kernel.apply([document(SERVER_ID, Direction.INGRESS, {80: None})])
    kernel.current = ""
    connection = kernel.connect()
    assert [] == connection.feed([b"DELETE /everything HTTP/1.1\r\n\r\n"])
    flow = kernel.flow(connection.port)
    assert flow is not None
    assert Verdict.ALLOW == flow["verdict"]
