"""The corpus against the interpreted tables: what it claims, without a kernel."""

from __future__ import annotations

from functools import cache

import pytest

from corpus import confusion, framing
from corpus.case import Case
from corpus.rules import RULESETS
from yett_policy.document import Verdict
from yett_policy.http.compile import compile_tables
from yett_policy.http.machine import Judgement, Machine

CASES = [*framing.CASES, *confusion.CASES]


@cache
def tables(rules: str) -> bytes:
    return compile_tables(RULESETS[rules]).data


def feed(case: Case, *cuts: int) -> list[Judgement]:
    machine, start, found = Machine(tables(case.rules)), 0, list[Judgement]()
    for cut in (*cuts, len(case.whole)):
        found += machine.feed(case.whole[start:cut])
        start = cut
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_tables_judge_the_corpus_as_it_says(case: Case) -> None:
    found = feed(case)
    if case.allowed:
        assert [judgement.verdict for judgement in found] == [Verdict.ALLOW]
        return
    assert found
    assert found[-1].verdict is Verdict.DENY
    assert found[-1].reason in case.reasons
    assert found[-1].offset < len(case.data)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.whole) < 200], ids=lambda case: case.id)
def test_a_cut_at_any_byte_changes_nothing(case: Case) -> None:
    whole = feed(case)
    assert all(feed(case, cut) == whole for cut in range(1, len(case.whole)))
    assert feed(case, *range(1, len(case.whole))) == whole


def test_names_of_cases_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
