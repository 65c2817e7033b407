"""An object file on its way into pins: what it must be like, its sizes, and its creation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from yett_loader import features
from yett_loader.errors import AbiMismatch, KernelError, NotReady
from yett_loader.kernel import Map, Object, ObjectMap, abi
from yett_loader.pins import Pins, remove_tree

T = TypeVar("T")
Effect = Callable[[str, Callable[[], T]], T]

STRUCTS: Mapping[str, tuple[str | None, str]] = {
    "config": (None, "config"),
    "endpoints": (None, "endpoint"),
    "ipcache": ("ipcache_key", "ipcache_entry"),
    "services": ("service_key", "service"),
    "flows": ("flow_key", "flow"),
    "metrics": (None, "metric"),
}
"""Map -> structs of its key (None: a u32) and value."""

SCRATCH = "scratch"
"""Maps whose names begin so belong to one load of the programs: neither pinned nor reused."""


def run(_step: str, action: Callable[[], T]) -> T:
    """The effect of production: do it."""
    return action()


@dataclass(frozen=True, slots=True)
class Sizes:
    """Elements of the maps whose size is a setting; 0 leaves what the object says.

    Takes effect when the maps are created: adopting keeps the pinned ones.
    """

    flows: int = 0
    endpoints: int = 0
    ipcache: int = 0
    services: int = 0
    events: int = 0
    """Bytes; a power of two of pages."""
    policies: int = 0
    rulesets: int = 0
    """Per tier."""
    history: int = 0

    def of(self, name: str) -> int:
        """The setting for a map, 0 if none."""
        key = "rulesets" if name.startswith("rulesets") else name
        return int(getattr(self, key, 0))

    def settable(self, name: str) -> bool:
        """Whether the size of this map is a setting at all."""
        return name.startswith("rulesets") or name in Sizes.__slots__


ZERO = bytes(4)


def digest(image: Path) -> str:
    """Of an object file, 16 hex digits."""
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise NotReady(
            f"cannot read the BPF object {image}: {error.strerror}; build it with `make bpf`, or name "
            "another with --object"
        ) from error


def create(fresh: Pins, image: Path, sizes: Sizes, effect: Effect) -> None:  # type: ignore[type-arg]
    """Maps, programs and marks below `fresh`; all or nothing."""
    remove_tree(fresh.home)
    with Object.open(image) as opened:
        check_layout(opened)
        for item in opened.maps.values():
            if sizes.of(item.name):
                item.resize(sizes.of(item.name))
        load_into_kernel(opened)
        try:
            for directory in (fresh.links, fresh.maps, fresh.programs, fresh.marks):
                effect(
                    f"create {directory.name}",
                    lambda d=directory: d.mkdir(mode=0o700, parents=True, exist_ok=True),  # type: ignore[misc]
                )
            for item in shared(opened):
                with item.open() as opened_map:
                    effect(f"pin map {item.name}", lambda m=opened_map: m.pin(fresh.maps / m.name))  # type: ignore[misc]
            for name in opened.programs:
                with opened.program(name) as program:
                    effect(f"pin program {name}", lambda p=program: p.pin(fresh.programs / p.name))  # type: ignore[misc]
            effect("initialise", lambda: _initialise(fresh))
            # Last: what is marked is complete.
            effect("mark", lambda: mark(fresh, image))
        except BaseException:
            remove_tree(fresh.home)
            raise


def mark(pins: Pins, image: Path) -> None:
    pins.set_mark("layout", abi.layout_digest())
    pins.set_mark("object", digest(image))


def _initialise(pins: Pins) -> None:
    """A configuration that the programs accept; without policies everything is denied anyway."""
    history = pins.maps / "history"
    slots = 0
    if history.exists():
        with Map.open(history) as opened:
            slots = opened.spec.max_entries
    with Map.open(pins.maps / "config") as config:
        config.update(ZERO, abi.pack("config", **DEFAULTS, history_slots=slots))


DEFAULTS: Mapping[str, int] = {
    "abi": abi.ABI_VERSION,
    "epoch": 1,
    "deny_events_per_second": 1000,
    "head_timeout_ms": 10_000,
}
"""Of `struct config`."""


def shared(opened: Object) -> list[ObjectMap]:
    """Maps that outlive a program version."""
    return [item for item in opened.maps.values() if not item.internal and not item.name.startswith(SCRATCH)]


def check_layout(opened: Object) -> None:
    """The object must have been compiled from the header that we were."""
    for name, (key, value) in STRUCTS.items():
        if name not in opened.maps:
            raise AbiMismatch("load", f"BPF object {opened.name}", f"it has no map {name}")
        spec = opened.maps[name].spec
        if spec.key_size != (abi.size(key) if key else 4) or spec.value_size != abi.size(value):
            raise AbiMismatch(
                "load",
                f"BPF object {opened.name}",
                f"its map {name} has {spec.key_size}+{spec.value_size} bytes, the bindings say "
                f"{abi.size(key) if key else 4}+{abi.size(value)}; build both from one yett_abi.h "
                "(`make bpf bindings`)",
            )


def load_into_kernel(opened: Object) -> None:
    try:
        opened.load()
    except KernelError as error:
        raise features.explain(error) from error
