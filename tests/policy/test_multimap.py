"""A multimap is a dictionary of sets, whatever is added and discarded."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from yett_policy.multimap import Multimap

changes = st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 3)), max_size=40)


@given(changes)
def test_a_multimap_holds_what_a_dictionary_of_sets_would(history: list[tuple[bool, int, int]]) -> None:
    found: Multimap[int, int] = Multimap()
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for more, key, value in history:
        (found.add if more else found.discard)(key, value)
        (wanted[key].add if more else wanted[key].discard)(value)
        assert {key: set(found.of(key)) for key in range(3)} == {key: wanted[key] for key in range(3)}
        assert sorted(found) == sorted(key for key in wanted if wanted[key]), "each key once"
