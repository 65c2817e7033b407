"""Lists of the API server, read item by item."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_operator.kube.pages import read

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=4)
lists = st.tuples(objects, objects, st.lists(objects, max_size=4) | st.none(), st.permutations(range(3)))


def written(more: dict[str, Any], metadata: dict[str, Any], items: list[Any] | None, order: list[int]) -> Any:
    fields = [("metadata", metadata), ("items", items), ("more", more)]
    return dict(fields[place] for place in order)


@given(lists, st.sampled_from([None, 0, 3]))
def test_a_list_is_read_as_it_is_written_in_any_order_and_spacing(parts: Any, indent: int | None) -> None:
    value, found = written(*parts), []
    assert read(json.dumps(value, indent=indent) + "\n", found.append) == value["metadata"]
    assert found == (value["items"] or [])


@given(lists, st.integers(1, 60))
def test_a_list_that_is_cut_is_none(parts: Any, cut: int) -> None:
    text = json.dumps(written(*parts))
    with pytest.raises(ValueError, match=r"not one of|Expecting|Unterminated|Invalid|no metadata"):
        read(text[:-cut], lambda _: None)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        '"x"',
        "{}",
        '{"items":[]}',
        '{"metadata":[]}',
        '{"metadata":{},"items":[{} {}]}',
        '{"metadata":{},"items":[,]}',
        '{"metadata" {}}',
        '{"metadata":{},"items":',
        '{"metadata":{},}',
    ],
)
def test_what_is_no_list_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not one of|Expecting|no metadata"):
        read(text, lambda _: None)


def test_an_item_is_handed_on_before_the_next_one_is_looked_at() -> None:
    found: list[Any] = []
    with pytest.raises(ValueError, match="Expecting"):
        read('{"items":[{"a":1},{"b"', found.append)
    assert found == [{"a": 1}]
