"""Inner maps and their pins: always as many, whatever interrupts; all with the loader's capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from support.capabilities import confined, privileged
from support.killed import Killing, killed
from yett_loader.errors import AbiMismatch, KernelError
from yett_loader.image import run
from yett_loader.inner import OuterMap
from yett_loader.kernel import NO_PREALLOC, Map, MapSpec, MapType, Object, abi
from yett_loader.kernel import map as map_module

pytestmark = pytest.mark.bpf

SPEC = MapSpec(MapType.LPM_TRIE, abi.size("policy_key"), abi.size("policy_entry"), 7, NO_PREALLOC)


@pytest.fixture
def outer(tiny: Path, bpffs: Path) -> Iterator[OuterMap]:
    with Object.open(tiny) as opened:
        opened.maps["policies"].resize(16)
        opened.load()
        with opened.maps["policies"].open() as made:
            made.pin(bpffs / "policies")
    with OuterMap.pinned(bpffs / "policies", bpffs / "inner") as found, confined():
        yield found


def again(outer: OuterMap, effect: Killing | None = None) -> OuterMap:
    """As the next loader finds it."""
    return OuterMap.pinned(outer.pins.parent / "policies", outer.pins, effect or run)


def held(outer: OuterMap) -> dict[int, int]:
    """Slot -> id of the map in it."""
    found = {}
    for slot in range(outer.spec.max_entries):
        inner = outer.inner(slot)
        if inner is not None:
            with inner:
                found[slot] = inner.id
    return found


def pinned(outer: OuterMap) -> set[int]:
    return {int(pin.name) for pin in outer.pins.iterdir()} if outer.pins.is_dir() else set()


def test_an_inner_map_is_swapped_whole(outer: OuterMap) -> None:
    with Map.create("first", SPEC) as first, Map.create("second", SPEC) as second:
        assert outer.inner(3) is None
        for inner in (first, second):
            outer.put([(3, inner)])
            assert held(outer) == {3: inner.id}
            assert pinned(outer) == {inner.id}
        outer.drop(3)
        outer.drop(3)
    assert held(outer) == {}
    assert pinned(outer) == set()


def test_maps_that_do_not_all_go_in_leave_pins_for_those_that_did(outer: OuterMap) -> None:
    with Map.create("first", SPEC) as first, Map.create("second", SPEC) as second:
        with pytest.raises(KernelError, match="cannot update"):
            outer.put([(3, first), (16, second)])  # there is no slot 16
        assert pinned(outer) == set(held(outer).values())


@pytest.mark.parametrize("change", ["put", "put in place of others", "drop"])
def test_a_loader_killed_at_any_step_leaves_each_slot_as_before_or_after(
    outer: OuterMap, change: str
) -> None:
    slots = (1, 2, 3)
    left = []
    for at in count():
        for slot in slots:
            outer.drop(slot)
        if change != "put":
            fill(outer, slots)
        before = held(outer)
        was_killed = killed(at, lambda effect: changed(again(outer, effect), change, slots, effect))
        after = held(outer)  # nothing that is in is without a pin, so all of it can be opened
        assert pinned(outer) >= set(after.values())
        with again(outer) as next_one:
            next_one.mend()
            assert held(next_one) == after
            assert pinned(next_one) == set(after.values())
        left.append(after)
        if not was_killed:
            break
    assert at > 3
    for after in left[-2:]:  # also where it was killed when all was done, but not yet waited for
        assert after.keys() == (set() if change == "drop" else set(slots))
        assert not set(after.values()) & set(before.values())


def changed(outer: OuterMap, change: str, slots: tuple[int, ...], effect: Killing) -> None:
    if change == "drop":
        for slot in slots:
            outer.drop(slot)
    else:
        fill(outer, slots)
    effect("end", bool)


def fill(outer: OuterMap, slots: tuple[int, ...]) -> None:
    made = [Map.create(f"inner{slot}", SPEC) for slot in slots]
    outer.put(list(zip(slots, made, strict=True)))
    for inner in made:
        inner.close()


def test_a_map_replaced_between_look_up_and_opening_is_not_missed(
    outer: OuterMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(outer, (5,))
    opened, meanwhile = Map.open, iter([True, True])

    def open_late(path: Path) -> Map:
        if next(meanwhile, False):
            fill(outer, (5,))
        return opened(path)

    monkeypatch.setattr(map_module.Map, "open", open_late)
    assert held(outer)[5] in pinned(outer)


def test_a_map_without_a_pin_is_an_error_that_says_what_to_do_not_an_empty_slot(outer: OuterMap) -> None:
    fill(outer, (5,))
    (outer.pins / str(held(outer)[5])).unlink()
    for reading in (lambda: outer.inner(5), outer.mend):
        with pytest.raises(
            AbiMismatch,
            match=r"cannot adopt map policies: 1 of the maps in it have no pin .*CAP_SYS_ADMIN; `yett-loader run` moves",
        ):
            reading()


def test_with_all_capabilities_maps_of_an_older_loader_are_pinned(outer: OuterMap) -> None:
    fill(outer, (5, 6))
    before = held(outer)
    for number in before.values():
        (outer.pins / str(number)).unlink()
    outer.pins.rmdir()
    with privileged():
        outer.mend()
    assert held(outer) == before
