"""A change is in force when it is done, although the kernel's own calls for it have not returned yet."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.enforce import compiled, document
from support.testrun import SERVER_ID, Connection, Kernel
from yett_policy.document import Direction, Verdict
from yett_policy.http.rule import HttpRule, RulesetSpec

pytestmark = pytest.mark.bpf

CHANGES = 40


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as made:
        yield made


@pytest.fixture
def processors() -> Iterator[list[int]]:
    """Those that the test may run on; where it is moved to, it does not stay."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


def only(path: str) -> RulesetSpec:
    return RulesetSpec((HttpRule("L7Policy/test/change:ingress[0]", path=path),), "L7Policy/test/change:deny")


def ask(connection: Connection, path: str) -> Verdict:
    (seen,) = connection.feed([f"GET {path} HTTP/1.1\r\nHost: api\r\n\r\n".encode()])
    return seen.verdict


def test_the_first_packets_after_a_change_are_judged_by_it_on_every_processor(
    kernel: Kernel, processors: list[int]
) -> None:
    older: Connection | None = None
    for number in range(CHANGES):
        spec = only(f"/{number}")
        kernel.apply([document(SERVER_ID, Direction.INGRESS, {80: spec})], [compiled(spec)])
        os.sched_setaffinity(0, {processors[number % len(processors)]})
        if older is not None:
            assert ask(older, f"/{number - 1}") is Verdict.DENY
        older = kernel.connect()
        assert ask(older, f"/{number}") is Verdict.ALLOW
