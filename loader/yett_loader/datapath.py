"""The programs and maps of this node: load, adopt, upgrade, attach, unload.

Pinned links, programs and maps are the truth; this process may be gone.  So:

- creation happens in a directory beside the final one and ends with a rename: either all pins
  are there or none;
- an upgrade loads the new programs onto the pinned maps and swaps each link's program in one
  step: there is no moment without a program, and both versions judge by the same maps.  If a
  swap fails, the links that were swapped go back;
- whatever was interrupted is finished or undone by the next start.

Every effect goes through `effect`, so that a test can make each one fail.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import EINVAL, ENODEV
from pathlib import Path

from yett_loader import features
from yett_loader.errors import AbiMismatch, KernelError, NotReady
from yett_loader.image import (
    STRUCTS,
    ZERO,
    Effect,
    Sizes,
    check_layout,
    create,
    digest,
    load_into_kernel,
    mark,
    run,
    shared,
)
from yett_loader.inner import OuterMap
from yett_loader.kernel import Hook, Link, Map, MapType, Object, Program, abi, tc
from yett_loader.pins import Pins, remove_tree, require_bpffs

__all__ = ["HOOKS", "Datapath", "Effect", "Sizes", "digest", "run"]

log = logging.getLogger(__name__)

HOOKS: Mapping[str, Hook] = {"from_pod": Hook.INGRESS, "to_pod": Hook.EGRESS}
"""Program -> hook on the host side of the pod's veth: what the pod sends comes in there."""


@dataclass(slots=True)
class Datapath:
    """The data plane of one node, open.  The caller holds the lock of `pins.root`."""

    pins: Pins
    maps: dict[str, Map]
    programs: dict[str, Program]
    effect: Effect = field(default=run, repr=False)  # type: ignore[type-arg]
    _looking: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Interfaces are attached in a thread, and whoever reports what is attached removes dead pins."""

    # -- beginning and end ----------------------------------------------------------------

    @classmethod
    def start(cls, pins: Pins, image: Path, sizes: Sizes | None = None, effect: Effect = run) -> Datapath:  # type: ignore[type-arg]
        """Adopt what is pinned, upgrade it if `image` is another object, or load afresh."""
        require_bpffs(pins.root)
        if not pins.home.exists() and pins.new.mark("object"):
            # Complete, but its maker was stopped before the last rename.
            effect("rename", lambda: pins.new.home.rename(pins.home))
        if not pins.home.exists():
            return cls.load(pins, image, sizes, effect)
        path = cls.adopt(pins, effect)
        for item in path.maps.values():
            if isinstance(item, OuterMap):
                item.mend()
        if pins.mark("object") != digest(image) or _interrupted(pins).exists():
            path.upgrade(image)
        path.repair()
        remove_tree(pins.old.home)
        return path

    @classmethod
    def load(cls, pins: Pins, image: Path, sizes: Sizes | None = None, effect: Effect = run) -> Datapath:  # type: ignore[type-arg]
        """Create everything; nothing is attached yet."""
        require_bpffs(pins.root)
        if pins.home.exists():
            raise NotReady(
                f"cannot load below {pins.root}: it is loaded already; use upgrade, or unload first"
            )
        create(pins.new, image, sizes or Sizes(), effect)
        try:
            effect("rename", lambda: pins.new.home.rename(pins.home))
        except BaseException:
            remove_tree(pins.new.home)
            raise
        return cls.adopt(pins, effect)

    @classmethod
    def replace(
        cls,
        pins: Pins,
        image: Path,
        fill: Callable[[Datapath], None],
        sizes: Sizes | None = None,
        effect: Effect = run,  # type: ignore[type-arg]
    ) -> Datapath:
        """Move to new programs on new maps: for pins whose layout this loader cannot adopt.

        `fill` writes the policies into the new maps before any packet meets them.  Then each
        interface is swapped in one step, so it is governed by the old programs on the old maps
        or by the new ones on the new, never by none.  What is lost is the state of connections.
        """
        create(pins.new, image, sizes or Sizes(), effect)
        path = cls.adopt(pins.new, effect)
        effect("fill", lambda: fill(path))
        path.repair()
        remove_tree(pins.old.home)
        effect("set aside", lambda: pins.home.rename(pins.old.home))
        effect("rename", lambda: pins.new.home.rename(pins.home))
        remove_tree(pins.old.home)
        path.close()
        return cls.adopt(pins, effect)

    @classmethod
    def adopt(cls, pins: Pins, effect: Effect = run) -> Datapath:  # type: ignore[type-arg]
        """Open what is pinned, after checking that this loader understands it."""
        require_bpffs(pins.root)
        if not pins.home.is_dir():
            raise NotReady(f"cannot adopt {pins.root}: nothing is loaded there; run `yett-loader load` first")
        pinned = pins.mark("layout")
        if pinned != abi.layout_digest():
            raise AbiMismatch(
                "adopt",
                f"the maps below {pins.home}",
                f"their layout is {pinned or 'unknown'}, this loader's is {abi.layout_digest()}; "
                "`yett-loader run` moves to new maps (open connections are judged anew)",
            )
        path = cls(pins, {}, {}, effect)
        for pin in sorted(pins.maps.iterdir()):
            opened = Map.open(pin)
            if opened.spec.type == MapType.ARRAY_OF_MAPS:
                opened = OuterMap.pinned(pin, pins.inner / pin.name, effect)
            path.maps[pin.name] = opened
        for pin in sorted(pins.programs.iterdir()):
            path.programs[pin.name] = Program.open(pin)
        missing = sorted(
            {*STRUCTS, "policies", "events"} - path.maps.keys() | (HOOKS.keys() - path.programs.keys())
        )
        if missing:
            raise AbiMismatch(
                "adopt",
                str(pins.home),
                f"{', '.join(missing)} are missing; `yett-loader run` makes new ones",
            )
        version = abi.unpack("config", path.maps["config"].lookup(ZERO) or b"")["abi"]
        if version != abi.ABI_VERSION:
            raise AbiMismatch(
                "adopt", str(pins.home), f"its ABI version is {version}, this loader's is {abi.ABI_VERSION}"
            )
        return path

    def upgrade(self, image: Path) -> None:
        """Put the programs of `image` in the place of those that run, on the same maps."""
        staging = _interrupted(self.pins)
        remove_tree(staging)
        with Object.open(image) as opened:
            check_layout(opened)
            self._reuse(opened)
            load_into_kernel(opened)
            new = {name: opened.program(name) for name in opened.programs}
        swapped: list[int] = []
        try:
            self.effect("create staging", lambda: staging.mkdir(mode=0o700))
            for name, program in new.items():
                self.effect(f"stage program {name}", lambda n=name, p=program: p.pin(staging / n))  # type: ignore[misc]
            for ifindex in self.attached():
                # Before the swap, so that a half-swapped interface is put back too.
                swapped.append(ifindex)
                self._swap(ifindex, new)
        except BaseException:
            for ifindex in swapped:
                self._swap_back(ifindex)
            remove_tree(staging)
            raise
        # From here on the new programs judge; a crash leaves `staging`, and the next start comes here again.
        for name in new:
            self.effect(
                f"replace program pin {name}",
                lambda n=name: (staging / n).rename(self.pins.programs / n),  # type: ignore[misc]
            )
        for pin in self.pins.programs.iterdir():
            if pin.name not in new:
                pin.unlink()
        self.effect("mark", lambda: mark(self.pins, image))
        self.effect("drop staging", staging.rmdir)
        old, self.programs = self.programs, new
        for program in old.values():
            program.close()

    def repair(self) -> None:
        """Bring every attachment to the pinned programs, and forget interfaces that are gone."""
        for ifindex in self.attached():
            self._swap(ifindex, self.programs)

    def unload(self) -> None:
        """Detach everywhere and free all: the node is open afterwards."""
        self.close()
        self.remove(self.pins)

    @classmethod
    def remove(cls, pins: Pins) -> int:
        """Unload what any loader pinned, understood or not; from how many interfaces."""
        require_bpffs(pins.root)
        path = cls(pins, {}, {})
        found = sorted(pins.links.iterdir()) if pins.links.is_dir() else []
        for pin in found:
            path._detach(pin)
        for directory in (pins.links, pins.new.home, pins.old.home, pins.home):
            remove_tree(directory)
        return len({_parse(pin)[0] for pin in found})

    def close(self) -> None:
        """Give up the descriptors; pins and attachments stay."""
        for item in (*self.maps.values(), *self.programs.values()):
            item.close()

    # -- interfaces -----------------------------------------------------------------------

    def attach(self, ifindex: int) -> None:
        """Govern an interface: both programs, pinned.  Doing it again does nothing.

        If the second attachment fails the first stays: half governed denies more, not less.
        """
        for name, hook in HOOKS.items():
            pin = self.pins.link(ifindex, hook.name.lower())
            if self._is_attached(pin, ifindex, hook):
                continue
            self.effect(f"attach {name}", lambda n=name, h=hook, p=pin: self._attach(n, h, ifindex, p))  # type: ignore[misc]

    def detach(self, ifindex: int) -> None:
        """Govern it no more; fine if the interface is gone already."""
        for hook in HOOKS.values():
            pin = self.pins.link(ifindex, hook.name.lower())
            if pin.exists():
                self._detach(pin)

    def attached(self) -> list[int]:
        """Interfaces governed now; pins of interfaces that are gone are removed on the way."""
        found = set()
        for pin in sorted(self.pins.links.iterdir()) if self.pins.links.is_dir() else ():
            ifindex, hook = _parse(pin)
            if self._is_attached(pin, ifindex, hook):
                found.add(ifindex)
        return sorted(found)

    def _attach(self, name: str, hook: Hook, ifindex: int, pin: Path) -> None:
        try:
            with Link.create(self.programs[name], ifindex, hook) as link:
                link.pin(pin)
        except KernelError as error:
            if error.errno != EINVAL or features.has(features.TCX) is not False:
                raise
            tc.attach(self.programs[name], ifindex, hook)
            pin.mkdir()

    def _is_attached(self, pin: Path, ifindex: int, hook: Hook) -> bool:
        """Whether this pin means something; it is removed if not, and no other that took its place meanwhile."""
        with self._looking:
            if not pin.exists():
                return False
            if pin.is_dir():
                if tc.attached(ifindex, hook):
                    return True
                pin.rmdir()
                return False
            with Link.open(pin) as link:
                if link.info().ifindex == ifindex:
                    return True
            # The interface went away (the kernel detached the link); its number may come back.
            pin.unlink()
            return False

    def _swap(self, ifindex: int, programs: Mapping[str, Program]) -> None:
        known = {item.info().id: item for item in (*self.programs.values(), *programs.values())}
        for name, hook in HOOKS.items():
            pin = self.pins.link(ifindex, hook.name.lower())
            if not self._is_attached(pin, ifindex, hook):
                continue
            program = programs[name]
            if pin.is_dir():
                if tc.attached(ifindex, hook) != program.info().id:
                    self.effect(f"swap {name}", lambda p=program, h=hook: tc.attach(p, ifindex, h))  # type: ignore[misc]
                continue
            with Link.open(pin) as link:
                current = link.info().program_id
                if current == program.info().id:
                    continue
                # None if a loader that was interrupted swapped it in: its pins are gone.
                expected = known.get(current)
                self.effect(
                    f"swap {name}",
                    lambda k=link, p=program, e=expected: k.update(p, e),  # type: ignore[misc]
                )

    def _swap_back(self, ifindex: int) -> None:
        try:
            self._swap(ifindex, self.programs)
        except (KernelError, OSError) as error:
            # Both versions judge by the same maps, so this interface is governed all the same.
            log.warning("interface %d stays with the new programs: %s", ifindex, error)

    def _detach(self, pin: Path) -> None:
        ifindex, hook = _parse(pin)
        if pin.is_dir():
            tc.detach(ifindex, hook)
            pin.rmdir()
            return
        with Link.open(pin) as link:
            try:
                link.detach()
            except KernelError as error:
                if error.errno not in (EINVAL, ENODEV):  # gone with its interface
                    raise
        pin.unlink()

    def _reuse(self, opened: Object) -> None:
        """Hand the pinned maps to the new object; refuse what changed its definition."""
        for item in shared(opened):
            pinned = self.maps.get(item.name)
            if pinned is None:
                raise AbiMismatch(
                    "upgrade",
                    f"map {item.name}",
                    "the new object has it, the loaded one has not; `yett-loader run` moves to new maps",
                )
            want, have = item.spec, pinned.spec
            changed = [
                f"{what} {getattr(have, what)} -> {getattr(want, what)}"
                for what in ("type", "key_size", "value_size", "flags", "max_entries")
                if getattr(have, what) != getattr(want, what)
                and not (what == "max_entries" and Sizes().settable(item.name))
            ]
            if changed:
                raise AbiMismatch(
                    "upgrade",
                    f"map {item.name}",
                    f"its definition changed ({', '.join(changed)}); `yett-loader run` moves to new maps "
                    "(open connections are judged anew)",
                )
            item.reuse(pinned)


def _interrupted(pins: Pins) -> Path:
    return pins.home / "programs-new"


def _parse(pin: Path) -> tuple[int, Hook]:
    ifindex, _, hook = pin.name.partition("-")
    return int(ifindex), Hook[hook.upper()]
