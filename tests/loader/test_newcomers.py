"""Interfaces that nobody has named yet, while a pod that a policy selects is on its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from yett_loader.newcomers import HOLD, NEW, Newcomers


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def looking() -> tuple[Newcomers, Clock]:
    """As after the first look at a node with one interface of no pod."""
    clock = Clock()
    made = Newcomers(clock)
    assert made.look({1}, expecting=True, told=True) == (frozenset(), frozenset())
    return made, clock


def test_an_interface_that_appears_while_a_pod_is_expected_is_governed_once() -> None:
    made, _ = looking()
    assert made.look({1, 2}, expecting=True, told=True) == ({2}, frozenset())
    assert made.look({1, 2}, expecting=True, told=True) == (frozenset(), frozenset())
    assert made.waiting


def test_an_interface_that_comes_just_before_the_word_of_a_pod_is_governed_too() -> None:
    made, clock = looking()
    assert made.look({1, 2}, expecting=False, told=True) == (frozenset(), frozenset())
    clock.now += NEW - 1
    assert made.look({1, 2}, expecting=True, told=True) == ({2}, frozenset())


def test_what_was_here_long_before_is_left_alone() -> None:
    made, clock = looking()
    made.look({1, 2}, expecting=False, told=True)
    clock.now += NEW
    assert made.look({1, 2}, expecting=True, told=True) == (frozenset(), frozenset())


def test_what_nobody_names_is_let_go_but_not_while_nobody_could() -> None:
    made, clock = looking()
    made.look({1, 2}, expecting=True, told=True)
    clock.now += HOLD
    assert made.look({1, 2}, expecting=True, told=False) == (frozenset(), frozenset())
    assert made.look({1, 2}, expecting=True, told=True) == (frozenset(), {2})
    assert made.look({1, 2}, expecting=True, told=True) == (frozenset(), frozenset())
    assert not made.waiting


def test_what_became_an_endpoint_is_not_let_go() -> None:
    made, clock = looking()
    made.look({1, 2}, expecting=True, told=True)
    made.look({1}, expecting=False, told=True)
    clock.now += 2 * HOLD
    assert made.look({1}, expecting=False, told=True) == (frozenset(), frozenset())


steps = st.tuples(
    st.sets(st.integers(1, 5)), st.booleans(), st.booleans(), st.sampled_from([0.0, 1.0, NEW, HOLD])
)


@given(st.lists(steps, max_size=20))
def test_only_what_was_governed_is_let_go_and_only_after_the_time(
    history: list[tuple[set[int], bool, bool, float]],
) -> None:
    made, clock = looking()
    since: dict[int, float] = {}
    for unknown, expecting, told, pause in history:
        new, old = made.look(unknown, expecting=expecting, told=told)
        assert not new or expecting
        assert not old or told
        assert old <= since.keys()
        assert all(clock.now - since[number] >= HOLD - NEW for number in old)
        since = {number: since.get(number, clock.now) for number in unknown & (since.keys() | new) - old}
        assert made.held == since.keys()
        clock.now += pause
