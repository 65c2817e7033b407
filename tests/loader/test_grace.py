"""Calls that go on in the kernel after they have done their work; work beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from yett_loader.aside import aside
from yett_loader.errors import KernelError
from yett_loader.grace import _CALLS, Grace


class Slot:
    """As a slot of a map of maps: it changes before the call that changes it returns."""

    def __init__(self) -> None:
        self.value = 0
        self.grace = Event()
        self.returned = Event()

    def put(self) -> None:
        self.value = 1
        assert self.grace.wait(20)
        self.returned.set()

    def is_put(self) -> bool:
        return self.value == 1


@pytest.fixture
def slot() -> Iterator[Slot]:
    made = Slot()
    yield made
    made.grace.set()


def test_who_changes_a_slot_goes_on_before_the_kernels_call_returns(slot: Slot) -> None:
    Grace().call(slot.put, slot.is_put)
    assert slot.is_put()
    assert not slot.returned.is_set()
    slot.grace.set()
    assert slot.returned.wait(20)


def test_what_the_kernel_refuses_is_raised() -> None:
    def refused() -> None:
        raise KernelError("update", "map policies", 12)

    with pytest.raises(KernelError, match="cannot update map policies"):
        Grace().call(refused, lambda: False)


def test_who_cannot_look_waits_for_the_end_of_the_change(slot: Slot) -> None:
    def look() -> bool:
        slot.grace.set()
        raise KernelError("look up", "a key in map policies", 12)

    with pytest.raises(KernelError, match="cannot look up"):
        Grace().call(slot.put, look)
    assert slot.returned.is_set()


def test_a_change_that_cannot_be_seen_is_waited_for_to_its_end(slot: Slot) -> None:
    slot.grace.set()
    Grace().call(slot.put, lambda: False)
    assert slot.returned.is_set()


def test_calls_that_wait_are_bounded_and_one_more_begins_when_one_has_returned() -> None:
    grace, slots = Grace(), [Slot() for _ in range(_CALLS)]
    for each in slots:
        grace.call(each.put, each.is_put)
    last, looks = Slot(), 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            assert not last.is_put()
            slots[7].grace.set()
        return last.is_put()

    grace.call(last.put, look)
    assert looks > 5
    for each in (*slots, last):
        each.grace.set()


async def test_work_beside_the_loop_goes_to_its_end_also_if_nobody_wants_it_any_more(slot: Slot) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        slot.put()

    task = asyncio.create_task(aside(work))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    slot.grace.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slot.returned.is_set()
