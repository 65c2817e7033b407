"""A BPF object file: open it, size its maps, hand it pinned maps, load it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from yett_loader._libbpf import ffi, lib
from yett_loader.errors import KernelError, NotReady, VerifierError
from yett_loader.kernel.check import captured_log, check
from yett_loader.kernel.map import Map, MapSpec
from yett_loader.kernel.program import Program


class ObjectMap:
    """A map as the object defines it; before load() its size may be set or a map put in its place."""

    def __init__(self, pointer: object) -> None:
        self._pointer = pointer
        self.name = str(ffi.string(lib.bpf_map__name(pointer)).decode())

    @property
    def internal(self) -> bool:
        """Whether it holds the object's own data (.rodata, .bss), not a map of ours."""
        return bool(lib.bpf_map__is_internal(self._pointer))

    @property
    def spec(self) -> MapSpec:
        """As defined, with the size that is set now."""
        return _spec(self._pointer)

    @property
    def inner(self) -> MapSpec | None:
        """What the maps in this map of maps look like; None for other types."""
        pointer = lib.bpf_map__inner_map(self._pointer)
        return _spec(pointer) if pointer else None

    @property
    def initial(self) -> bytes:
        """The initial value of an internal map (its section in the file)."""
        size = ffi.new("size_t *")
        data = lib.bpf_map__initial_value(self._pointer, size)
        return bytes(ffi.buffer(data, size[0])) if data else b""

    def resize(self, max_entries: int) -> None:
        """Set the number of elements (bytes, for a ring buffer)."""
        check(lib.bpf_map__set_max_entries(self._pointer, max_entries), "resize", f"map {self.name}")

    def reuse(self, existing: Map) -> None:
        """Use `existing` in place of a new map."""
        check(lib.bpf_map__reuse_fd(self._pointer, existing.fd), "reuse", f"map {self.name}")

    def open(self) -> Map:
        """The loaded map, with a descriptor of its own."""
        fd = check(lib.bpf_map__fd(self._pointer), "open", f"map {self.name}")
        return Map(os.dup(fd), self.name)


def _spec(pointer: object) -> MapSpec:
    return MapSpec(
        type=lib.bpf_map__type(pointer),
        key_size=lib.bpf_map__key_size(pointer),
        value_size=lib.bpf_map__value_size(pointer),
        max_entries=lib.bpf_map__max_entries(pointer),
        flags=lib.bpf_map__map_flags(pointer),
    )


class Object:
    """An object file, opened; a context manager that frees it.

    Maps and programs that were loaded live on with the descriptors that open() and program()
    gave out, and with their pins.
    """

    def __init__(self, pointer: object, name: str) -> None:
        self._pointer = pointer
        self.name = name
        self.maps = {item.name: item for item in map(ObjectMap, self._walk(lib.bpf_object__next_map))}
        self._programs = {
            str(ffi.string(lib.bpf_program__name(item)).decode()): item
            for item in self._walk(lib.bpf_object__next_program)
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Parse the ELF file; nothing of it reaches the kernel yet."""
        try:
            image = Path(path).read_bytes()
        except OSError as error:
            raise NotReady(
                f"cannot read the BPF object {os.fspath(path)}: {error.strerror}; build it with `make bpf` "
                "or name another with --object"
            ) from error
        name = Path(path).name.partition(".")[0]
        label = ffi.new("char[]", name.encode())
        opts = ffi.new("struct bpf_object_open_opts *")
        opts.sz = ffi.sizeof("struct bpf_object_open_opts")
        opts.object_name = label
        with captured_log() as log:
            pointer = lib.bpf_object__open_mem(ffi.from_buffer(image), len(image), opts)
            errno = ffi.errno
        if not pointer:
            raise KernelError("open", f"BPF object {os.fspath(path)}", errno, "; ".join(log))
        return cls(pointer, name)

    @property
    def programs(self) -> tuple[str, ...]:
        """Names, in the order of the file."""
        return tuple(self._programs)

    def load(self) -> None:
        """Create the maps and have the verifier judge the programs."""
        with captured_log() as log:
            rc = lib.bpf_object__load(self._live())
        if rc >= 0:
            return
        text = "\n".join(log)
        if "BEGIN PROG LOAD LOG" in text:
            raise VerifierError("load", f"BPF object {self.name}", -rc, text)
        try:
            check(rc, "load", f"BPF object {self.name}")
        except KernelError as error:
            said = "; ".join(line.removeprefix("libbpf: ") for line in log)
            raise KernelError(error.operation, error.name, error.errno, f"{error.detail}: {said}") from None

    def program(self, name: str) -> Program:
        """A loaded program, with a descriptor of its own."""
        self._live()
        if name not in self._programs:
            raise KeyError(f"no program {name} in BPF object {self.name}")
        fd = check(lib.bpf_program__fd(self._programs[name]), "open", f"program {name}")
        return Program(os.dup(fd), name)

    def only(self, *names: str) -> None:
        """Load only these programs (before load())."""
        for name, pointer in self._programs.items():
            check(lib.bpf_program__set_autoload(pointer, name in names), "choose", f"program {name}")

    def close(self) -> None:
        """Free what libbpf keeps; a second call does nothing."""
        if self._pointer is not None:
            lib.bpf_object__close(self._pointer)
            self._pointer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _live(self) -> object:
        if self._pointer is None:
            raise ValueError(f"BPF object {self.name} is closed")
        return self._pointer

    def _walk(self, step: object) -> list[object]:
        found = []
        item = step(self._pointer, ffi.NULL)  # type: ignore[operator]
        while item:
            found.append(item)
            item = step(self._pointer, item)  # type: ignore[operator]
        return found
