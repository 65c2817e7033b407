"""How long rules take to compile and how big their tables are: `python bench/compile_rules.py`."""

from __future__ import annotations

import time
from collections.abc import Callable

from yett_policy.http.compile import compile_tables
from yett_policy.http.errors import TooComplex
from yett_policy.http.rule import HttpRule, PathKind, RulesetSpec


def literal(number: int) -> HttpRule:
    return HttpRule(f"r{number:05}", method="GET", path=f"/api/v1/service-{number}/items")


def exact(number: int) -> HttpRule:
    return HttpRule(f"r{number:05}", method="POST", path=f"/form/{number}/submit", path_kind=PathKind.EXACT)


def prefix(number: int) -> HttpRule:
    return HttpRule(f"r{number:05}", path=f"/shop/{number}", path_kind=PathKind.PREFIX)


def regex(number: int) -> HttpRule:
    return HttpRule(f"r{number:05}", method="GET|HEAD", path=f"/v[0-9]+/tenant{number}/[^/]+/items(/.*)?")


def mixed(number: int) -> HttpRule:
    return (literal, exact, prefix, regex)[number % 4](number)


KINDS: tuple[Callable[[int], HttpRule], ...] = (literal, exact, prefix, regex, mixed)


def main() -> None:
    print(f"{'rules':>6} {'kind':8} {'states':>7} {'classes':>7} {'KiB':>6} {'tier':>4} {'ms':>7}")
    for count in (1, 100, 1_000, 10_000):
        for kind in KINDS:
            spec = RulesetSpec(tuple(map(kind, range(count))), "default")
            started = time.process_time()
            try:
                tables = compile_tables(spec)
            except TooComplex as error:
                print(f"{count:6} {kind.__name__:8} {error}")
                continue
            spent = 1000 * (time.process_time() - started)
            print(
                f"{count:6} {kind.__name__:8} {tables.states:7} {tables.classes:7}"
                f" {len(tables.data) / 1024:6.0f} {tables.tier:4} {spent:7.0f}"
            )


if __name__ == "__main__":
    main()
