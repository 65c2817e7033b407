"""The machine on compiled tables against the readable parser and the rules in plain Python."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.http_oracle import compare, run
from support.http_strategies import heads, specs
from yett_policy.http.compile import compile_tables
from yett_policy.http.rule import RulesetSpec


@settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(specs(), st.booleans(), st.lists(heads(), min_size=1, max_size=20))
def test_the_tables_agree_with_the_readable_parser_and_the_rules(
    spec: RulesetSpec, settle: bool, requests: list[bytes]
) -> None:
    tables = compile_tables(spec, settle=settle).data
    for request in requests:
        compare(spec, request, run(tables, request))
