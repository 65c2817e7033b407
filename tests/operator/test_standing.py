"""What a node has in force is a mapping like any other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from yett_operator.ports import Ack
from yett_operator.standing import Standing

IDENTITIES = st.integers(1, 2**32 - 1) | st.integers(1, 9)
APPLIED = st.dictionaries(IDENTITIES, st.sampled_from(["a", "b", "c"]), max_size=20)


@given(APPLIED, IDENTITIES)
def test_it_says_what_the_dictionary_says_that_it_is_made_of(applied: dict[int, str], other: int) -> None:
    standing = Standing(applied)
    assert standing == applied
    assert len(standing) == len(applied)
    assert list(standing) == sorted(applied)
    assert standing.get(other) == applied.get(other)
    assert (other in standing) is (other in applied)


@given(APPLIED, APPLIED, st.frozensets(IDENTITIES, max_size=5), st.booleans())
def test_an_answer_adds_to_it_or_takes_its_place(
    before: dict[int, str], applied: dict[int, str], dropped: frozenset[int], whole: bool
) -> None:
    wanted = {**({} if whole else before), **applied}
    wanted = {identity: digest for identity, digest in wanted.items() if identity not in dropped}
    assert Ack(applied, dropped, whole).added_to(Standing(before)) == wanted
