from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

import yett_policy
from support.examples import examples
from support.http_strategies import specs
from yett_policy.document import Engine
from yett_policy.http import layout, syntax
from yett_policy.http.compile import compile_ruleset, compile_tables
from yett_policy.http.errors import TooComplex
from yett_policy.http.lines import MAX_LENGTH
from yett_policy.http.machine import Machine
from yett_policy.http.machine import Tables as View
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RulesetSpec

ARTICLE = RulesetSpec((HttpRule("public", method="GET", path="/public"),), "default")


def many(count: int, rule: Callable[[int], HttpRule]) -> RulesetSpec:
    return RulesetSpec(tuple(rule(number) for number in range(count)), "default")


def mixed(number: int) -> HttpRule:
    match number % 4:
        case 0:
            return HttpRule(f"r{number}", method="GET", path=f"/api/v1/service-{number}/items")
        case 1:
            return HttpRule(f"r{number}", path=f"/shop/{number}", path_kind=PathKind.PREFIX)
        case 2:
            return HttpRule(f"r{number}", method="POST", path=f"/form/{number}", path_kind=PathKind.EXACT)
        case _:
            return HttpRule(f"r{number}", method="GET|HEAD", path=f"/v[0-9]+/u{number}/[^/]+(/.*)?")


def test_the_article_fits_the_smallest_tier() -> None:
    ruleset = compile_ruleset(ARTICLE)
    assert (ruleset.engine, ruleset.tier, ruleset.digest) == (Engine.KERNEL, 0, ARTICLE.digest)
    assert ruleset.engine_reason.startswith("fits the kernel budget: 128 states of 54 byte classes, ")
    assert len(ruleset.tables) < 16 * 1024


@pytest.mark.parametrize(
    "rule",
    [
        lambda n: HttpRule(f"r{n}", method="GET", path=f"/api/v1/service-{n}/items"),
        lambda n: HttpRule(f"r{n}", path=f"/api/v1/service-{n}", path_kind=PathKind.PREFIX),
        lambda n: HttpRule(f"r{n}", path=f"/api/v1/service-{n}/x", path_kind=PathKind.EXACT),
        lambda n: HttpRule(f"r{n}", method="GET|HEAD", path=f"/api/v[0-9]+/svc{n}/[^/]+/items(/.*)?"),
        mixed,
    ],
)
def test_a_hundred_path_rules_fit_256_kib_and_each_is_told_apart(rule: Callable[[int], HttpRule]) -> None:
    tables = compile_tables(many(100, rule))
    assert len(tables.data) <= 256 * 1024
    assert tables.tier <= 1


def test_ten_thousand_rules_fit_and_each_is_told_apart() -> None:
    tables = compile_tables(many(10_000, mixed))
    assert len(tables.data) <= layout.TIER_SIZE[3]
    for number, line in [
        (4000, "GET /api/v1/service-4000/items"),
        (9, "PUT /shop/9/x?y"),
        (9997, "GET /shop/9997"),
        (6, "POST /form/6?q"),
        (7, "HEAD /v12/u7/bob/x"),
    ]:
        (judgement,) = Machine(tables.data).feed(f"{line} HTTP/1.0\r\n\r\n".encode())
        assert judgement.rule == number
    assert Machine(tables.data).feed(b"GET /shop/10001 ")[0].rule == 10_000


def test_what_does_not_fit_goes_to_the_sidecar_and_says_why() -> None:
    spec = RulesetSpec((HttpRule("r", path="/.{0,500}x.{0,500}"),), "default")
    ruleset = compile_ruleset(spec)
    assert (ruleset.engine, ruleset.tables) == (Engine.SIDECAR, b"")
    assert ruleset.engine_reason == (
        "too complex for the kernel: over the budget of 100,000 states before minimisation"
    )
    with pytest.raises(TooComplex):
        compile_ruleset(spec, engine_wish="Kernel")


def test_a_wish_for_the_sidecar_is_granted() -> None:
    ruleset = compile_ruleset(ARTICLE, engine_wish="Sidecar")
    assert (ruleset.engine, ruleset.engine_reason) == (Engine.SIDECAR, "the policy asks for the sidecar")


def header_rule(number: int, name: str, value: str) -> HttpRule:
    return HttpRule(f"r{number:03}", headers=(HeaderRule(name, HeaderOp.EXACT, value),))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            many(65, lambda n: header_rule(n, "x-a", str(n))),
            "65 distinct header conditions over the budget of 64",
        ),
        (
            many(29, lambda n: header_rule(n, f"x-{n}", "a")),
            "rules name 29 headers, over the budget of 28",
        ),
        (
            many(20_000, lambda n: HttpRule(f"r{n}", path=f"/{n:05}/{n:05}x{n:05}" + "y" * 60)),
            f"paths of 1,560,000 characters together, over the budget of {MAX_LENGTH:,}",
        ),
        (
            many(1, lambda _: HttpRule("r", path="/(" + "|".join(["ab[cd]"] * 100) + "){1000}")),
            "over 200,000 positions in the regular expressions, counted repetitions unrolled",
        ),
    ],
    ids=["conditions", "headers", "characters", "positions"],
)  # fmt: skip
def test_each_budget_has_its_own_sentence(spec: RulesetSpec, message: str) -> None:
    with pytest.raises(TooComplex) as caught:
        compile_tables(spec)
    assert str(caught.value) == message


def test_the_kernel_budget_is_stated_in_states_and_bytes() -> None:
    spec = RulesetSpec((HttpRule("r", path="/(a|b)*a(a|b){14}"),), "default")
    message = r"^32,900 states of 54 byte classes need 4,215,664 bytes, over the budget of 4,194,304$"
    with pytest.raises(TooComplex, match=message):
        compile_tables(spec)


def test_the_compiler_counts_its_work_and_not_the_time() -> None:
    with pytest.raises(TooComplex, match="over the budget of 100 steps of compilation"):
        compile_tables(ARTICLE, max_work=100)
    with pytest.raises(TooComplex, match="over the budget of 50 states before minimisation"):
        compile_tables(ARTICLE, max_states=50)


@settings(max_examples=examples(40))
@given(specs())
def test_no_two_states_of_a_table_do_the_same(spec: RulesetSpec) -> None:
    view = View(compile_tables(spec).data)
    classes = max(view.class_of) + 1
    states, work = [], [view.start, view.chunk, view.chunk_end, view.trailer, view.skip]
    while work:
        state = work.pop()
        if state not in states:
            states.append(state)
            if view.cell(state, layout.ROW_ACTION) != layout.Action.DENY:
                targets = {
                    view.cell(state, layout.ROW_NEXT + column) & layout.MAX_STATE for column in range(classes)
                }
                work += targets.difference(states)
    rows = {
        state: ()
        if view.cell(state, layout.ROW_ACTION) == layout.Action.DENY
        else tuple(view.cell(state, layout.ROW_NEXT + column) & layout.MAX_STATE for column in range(classes))
        for state in states
    }
    block = {state: (view.cell(state, 0), view.cell(state, 1)) for state in states}
    count = 0
    while len(set(block.values())) > count:  # Moore, without cleverness
        count = len(set(block.values()))
        numbers = {key: number for number, key in enumerate(set(block.values()))}
        block = {
            state: (numbers[block[state]], *(numbers[block[t]] for t in rows[state])) for state in states
        }
        numbers = {key: number for number, key in enumerate(set(block.values()))}
        block = {state: (numbers[block[state]],) for state in states}  # type: ignore[misc]
    assert count == len(states)


PROGRAM = """
import hashlib, sys
from yett_policy.http.compile import compile_tables
from yett_policy.http.rule import *
def rule(n):
    return HttpRule(f"r{n}", method=("GET", None, "P.*")[n % 3], path=f"/a/{n}[a-c]*(/.*)?", host=("a", None)[n % 2],
                    headers=(HeaderRule("x-a", HeaderOp.REGEX, "[ab]*"), HeaderRule("x-b", HeaderOp.ABSENT)))
for settle in (False, True):
    spec = RulesetSpec(tuple(map(rule, range(30))), "d")
    print(hashlib.sha256(compile_tables(spec, settle=settle).data).hexdigest())
"""


def test_equal_rules_give_equal_bytes_on_every_run() -> None:
    root = str(Path(yett_policy.__file__).parents[1])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 2


def test_the_id_is_the_beginning_of_the_digest() -> None:
    data = compile_tables(ARTICLE).data
    assert int.from_bytes(data[8:16], "little") == int.from_bytes(
        hashlib.sha256(ARTICLE.to_bytes()).digest()[:8], "big"
    )


def test_every_row_of_a_table_lies_inside_its_value() -> None:
    for spec in (ARTICLE, many(100, mixed), many(600, mixed)):
        tables = compile_tables(spec)
        view = View(tables.data)
        shift = layout.TIER_SHIFT[tables.tier]
        assert len(tables.data) <= layout.TIER_SIZE[tables.tier]
        assert len(tables.data) % 8 == 0
        for state in range(layout.HEAD_SIZE // 2 >> shift, layout.MAX_STATE + 1):
            if (state << shift) + 2 + tables.classes > len(view.cells):
                break
        else:
            state = layout.MAX_STATE + 1
        reached = {cell & layout.MAX_STATE for cell in _next_cells(view, tables.classes)}
        assert reached
        assert max(reached) < state


def _next_cells(view: View, classes: int) -> list[int]:
    found, seen, work = [], set(), [view.start, view.chunk, view.chunk_end, view.trailer]
    while work:
        state = work.pop()
        if state in seen or view.cell(state, layout.ROW_ACTION) == layout.Action.DENY:
            continue
        seen.add(state)
        cells = [view.cell(state, layout.ROW_NEXT + column) for column in range(classes)]
        found += cells
        work += [cell & layout.MAX_STATE for cell in cells]
    return found


def test_patterns_at_the_limits_compile() -> None:
    syntax.parse("a{1000}")
    assert compile_tables(RulesetSpec((HttpRule("r", path="/a{1000}"),), "d")).states > 1000
