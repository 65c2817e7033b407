"""What the daemon does beside its work."""

from __future__ import annotations

import gc

from yett_loader.daemon import MANY_OBJECTS, settle


class Node:
    """Refers to itself: only the collector can free it."""

    def __init__(self) -> None:
        self.own = self


def test_a_state_that_stays_is_looked_through_for_garbage_once() -> None:
    gc.unfreeze()
    state = [[number] for number in range(MANY_OBJECTS + 1)]
    gc.collect()  # it has stayed for a while
    settle()
    frozen = gc.get_freeze_count()
    assert frozen > MANY_OBJECTS
    settle()
    assert gc.get_freeze_count() == frozen
    del state[:MANY_OBJECTS]
    assert gc.get_freeze_count() <= frozen - MANY_OBJECTS  # what nobody needs goes all the same
    gc.unfreeze()


def test_cycles_that_nobody_needs_are_collected_before_the_rest_is_let_be() -> None:
    gc.unfreeze()
    state = [[number] for number in range(MANY_OBJECTS + 1)]
    gc.disable()
    try:
        for _ in range(1000):
            Node()
        gc.collect()
        for _ in range(1000):
            Node()
        settle()
    finally:
        gc.enable()
    gc.unfreeze()
    assert not [item for item in gc.get_objects() if isinstance(item, Node)]
    assert state
