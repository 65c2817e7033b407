"""A map of maps, with a pin for each map in it.

The outer map names an inner one by its id, and to open a map by id takes CAP_SYS_ADMIN, which a
loader in its container has not.  So each inner map is pinned under its id for as long as the
outer one holds it: before it goes in, until after it is out.  Whatever interrupts us leaves a
pin too many, never one too few, and the next start removes it.

What is put or dropped is so on return, but programs that run at that moment may still use what
was there before (`grace`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from errno import ENOENT, EPERM
from pathlib import Path

from yett_loader.errors import AbiMismatch, KernelError
from yett_loader.grace import Grace
from yett_loader.image import Effect, run
from yett_loader.kernel import Map, abi
from yett_loader.kernel.fd import get_pinned


class OuterMap(Map):
    """An array of maps.  Who holds the lock of the pins may change it, everybody may read."""

    def __init__(self, fd: int, name: str, pins: Path, effect: Effect = run) -> None:  # type: ignore[type-arg]
        super().__init__(fd, name)
        self.pins = pins
        """Directory of the inner maps' pins; made when the first comes."""
        self._effect = effect
        self._grace = Grace()

    @classmethod
    def pinned(cls, path: Path, pins: Path, effect: Effect = run) -> OuterMap:  # type: ignore[type-arg]
        """The outer map pinned under `path`."""
        return cls(get_pinned(path), path.name, pins, effect)

    def inner(self, slot: int) -> Map | None:
        """The map in `slot`; the caller closes it."""
        before = None
        while (number := self._id(slot)) != before:  # replaced, perhaps, between look-up and opening
            if number is None:
                return None
            try:
                return Map.open(self.pins / str(number))
            except KernelError as error:
                if error.errno != ENOENT:
                    raise
            before = number
        if number is None:
            return None
        raise self._unpinned(1)

    def put(self, inner: Sequence[tuple[int, Map]]) -> None:
        """Put maps, at least one, into slots; who looks a slot up sees the old map or the new one, whole."""
        slots = [slot for slot, _ in inner]
        touched = self._ids(slots) | {item.id for _, item in inner}
        try:
            self.pins.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _, item in inner:
                self._effect(f"pin inner {self.name}", lambda i=item: i.pin(self.pins / str(i.id)))  # type: ignore[misc]
            elements = [(abi.pack_u32(slot), abi.pack_u32(item.fd)) for slot, item in inner]
            slot, last = inner[-1]  # when this one is in, all are
            self._effect(
                f"put inner {self.name}",
                lambda: self._grace.call(
                    lambda: self.update_many(elements), lambda: self._id(slot) == last.id
                ),
            )
        finally:
            # Also after half of it: a pin for what is in, and for nothing else.
            self._unpin(touched - self._ids(slots))

    def drop(self, slot: int) -> None:
        """Empty a slot."""
        gone = self._ids([slot])
        if not gone:
            return
        self._effect(
            f"drop inner {self.name}",
            lambda: self._grace.call(lambda: self.delete(abi.pack_u32(slot)), lambda: self._id(slot) is None),
        )
        self._unpin(gone)

    def mend(self) -> None:
        """Make good what an interrupted loader left: pins and slots say the same afterwards.

        An older loader did not pin: its maps are opened by id and pinned, where we may do that;
        AbiMismatch where not.
        """
        held = self._ids(range(self.spec.max_entries))
        found = {int(pin.name) for pin in self.pins.iterdir()} if self.pins.is_dir() else set()
        for number in held - found:
            self.pins.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with Map.by_id(number) as inner:
                    self._effect(f"pin inner {self.name}", lambda i=inner: i.pin(self.pins / str(i.id)))  # type: ignore[misc]
            except KernelError as error:
                if error.errno == EPERM:
                    raise self._unpinned(len(held - found)) from error
                raise
        self._unpin(found - held)

    def _ids(self, slots: Iterable[int]) -> set[int]:
        return {number for slot in slots if (number := self._id(slot)) is not None}

    def _id(self, slot: int) -> int | None:
        value = self.lookup(abi.pack_u32(slot))
        return None if value is None else abi.unpack_u32(value)

    def _unpin(self, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            pin = self.pins / str(number)
            self._effect(f"unpin inner {self.name}", lambda p=pin: p.unlink(missing_ok=True))  # type: ignore[misc]

    def _unpinned(self, count: int) -> AbiMismatch:
        return AbiMismatch(
            "adopt",
            f"map {self.name}",
            f"{count} of the maps in it have no pin below {self.pins}, and to open them by id takes "
            "CAP_SYS_ADMIN; `yett-loader run` moves to new maps (open connections are judged anew)",
        )


def outer(maps: Mapping[str, Map], name: str) -> OuterMap | None:
    """The map of maps with this name, None if there is none."""
    found = maps.get(name)
    if found is not None and not isinstance(found, OuterMap):
        raise TypeError(f"map {name} is no map of maps")
    return found
