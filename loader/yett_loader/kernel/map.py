"""One map: bytes in, bytes out.  The structs inside are the business of `abi`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from errno import EINVAL, ENOENT, ENOSPC, ENOTSUP
from typing import Self

from yett_loader._libbpf import ffi, lib
from yett_loader.errors import KernelError
from yett_loader.kernel.check import check
from yett_loader.kernel.fd import Handle, get_pinned, info_of

ENOTSUPP = 524
"""The kernel's own, which strerror does not know; what an operation a map type lacks gives."""


class MapType(IntEnum):
    """The types that we use."""

    HASH = lib.BPF_MAP_TYPE_HASH
    ARRAY = lib.BPF_MAP_TYPE_ARRAY
    PERCPU_HASH = lib.BPF_MAP_TYPE_PERCPU_HASH
    PERCPU_ARRAY = lib.BPF_MAP_TYPE_PERCPU_ARRAY
    LPM_TRIE = lib.BPF_MAP_TYPE_LPM_TRIE
    ARRAY_OF_MAPS = lib.BPF_MAP_TYPE_ARRAY_OF_MAPS
    HASH_OF_MAPS = lib.BPF_MAP_TYPE_HASH_OF_MAPS
    RINGBUF = lib.BPF_MAP_TYPE_RINGBUF


NO_PREALLOC = int(lib.BPF_F_NO_PREALLOC)

_PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY)
_BATCH = 256
_ENDIAN = sys.byteorder


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What must be equal for a program to use a map."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Map(Handle):
    """A map of the kernel.

    Keys and values are bytes of exactly `spec.key_size` and `spec.value_size`; values of
    per-CPU maps are one bytes per possible CPU (`lookup_percpu`).
    """

    def __init__(self, fd: int, name: str = "") -> None:
        super().__init__(fd, name or "map")
        info = info_of(fd, "bpf_map_info", self.name)
        self.id = int(info.id)
        self.kernel_name = str(ffi.string(info.name).decode())
        self.name = name or self.kernel_name
        self.spec = MapSpec(
            type=info.type,
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            flags=info.map_flags,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The map pinned under `path`."""
        return cls(get_pinned(path), os.path.basename(path))  # noqa: PTH119 - the path is bpffs's, not a Path's

    @classmethod
    def by_id(cls, number: int, name: str = "") -> Self:
        """The map with this kernel id; takes CAP_SYS_ADMIN."""
        return cls(check(lib.bpf_map_get_fd_by_id(number), "open", f"map {number}"), name)

    @classmethod
    def create(cls, name: str, spec: MapSpec) -> Self:
        """A new map; `name` is cut to the kernel's 15 characters."""
        opts = ffi.new("struct bpf_map_create_opts *")
        opts.sz = ffi.sizeof("struct bpf_map_create_opts")
        opts.map_flags = spec.flags
        fd = lib.bpf_map_create(
            spec.type, name.encode()[:15], spec.key_size, spec.value_size, spec.max_entries, opts
        )
        return cls(check(fd, "create", f"map {name}"), name)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None.  In a map of maps: the inner map's id as 4 bytes."""
        self._sized(key, self.spec.key_size, "key")
        value = ffi.new("char[]", self.value_room)
        rc = lib.bpf_map_lookup_elem(self.fd, key, value)
        if rc == -ENOENT:
            return None
        check(rc, "look up", f"a key in map {self.name}")
        return bytes(ffi.buffer(value))

    def lookup_percpu(self, key: bytes) -> list[bytes]:
        """The value of `key` on each possible CPU."""
        value = self.lookup(key)
        return [] if value is None else self._split(value)

    def update(self, key: bytes, value: bytes) -> None:
        """Set one element, new or old, in one step."""
        self._sized(key, self.spec.key_size, "key")
        self._sized(value, self.value_room, "value")
        check(
            lib.bpf_map_update_elem(self.fd, key, value, lib.BPF_ANY), "update", f"a key in map {self.name}"
        )

    def update_many(self, elements: Sequence[tuple[bytes, bytes]]) -> None:
        """Set many elements, in this order; not atomic.  In batches where the map type can."""
        for start in range(0, len(elements), _BATCH):
            part = elements[start : start + _BATCH]
            if len(part) > 1 and self._update_batch(part):
                continue
            for key, value in part:
                self.update(key, value)

    def delete(self, key: bytes) -> bool:
        """Whether `key` was there; it is gone afterwards."""
        self._sized(key, self.spec.key_size, "key")
        rc = lib.bpf_map_delete_elem(self.fd, key)
        if rc == -ENOENT:
            return False
        check(rc, "delete", f"a key from map {self.name}")
        return True

    def keys(self) -> Iterator[bytes]:
        """Every key.  A key deleted meanwhile may make a hash map's iteration begin anew."""
        key = ffi.NULL
        while True:
            following = ffi.new("char[]", self.spec.key_size)
            rc = lib.bpf_map_get_next_key(self.fd, key, following)
            if rc == -ENOENT:
                return
            check(rc, "iterate", f"map {self.name}")
            yield bytes(ffi.buffer(following))
            key = following

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value), each key once; elements that vanish meanwhile are left out."""
        if self.spec.type == MapType.HASH:
            yield from self._batches()
            return
        # A deleted key makes get_next_key start over, so keys can repeat; bounded by what the map
        # can hold, else a storm of deletions would keep us here.
        seen: set[bytes] = set()
        for steps, key in enumerate(self.keys()):
            if steps > 2 * self.spec.max_entries:
                return
            if key in seen:
                continue
            seen.add(key)
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        """All of a hash map, bucket by bucket: unlike single steps never misses or repeats for deletions."""
        room = min(4096, self.spec.max_entries)
        position: object = ffi.NULL
        opts = ffi.new("struct bpf_map_batch_opts *")
        opts.sz = ffi.sizeof("struct bpf_map_batch_opts")
        while True:
            following = ffi.new("char[]", max(4, self.spec.key_size))
            keys = ffi.new("char[]", room * self.spec.key_size)
            values = ffi.new("char[]", room * self.spec.value_size)
            count = ffi.new("uint32_t *", room)
            rc = lib.bpf_map_lookup_batch(self.fd, position, following, keys, values, count, opts)
            if rc == -ENOSPC:  # one bucket alone is longer
                room *= 2
                continue
            if rc != -ENOENT:  # which says that this was the last batch
                check(rc, "read", f"map {self.name}")
            found = count[0]
            yield from zip(
                _cut(ffi.buffer(keys), self.spec.key_size, found),
                _cut(ffi.buffer(values), self.spec.value_size, found),
                strict=True,
            )
            if rc == -ENOENT:
                return
            position = following

    def _update_batch(self, part: Sequence[tuple[bytes, bytes]]) -> bool:
        """False where map type or kernel has no batches; then nothing was written."""
        for key, value in part:
            self._sized(key, self.spec.key_size, "key")
            self._sized(value, self.value_room, "value")
        count = ffi.new("uint32_t *", len(part))
        opts = ffi.new("struct bpf_map_batch_opts *")
        opts.sz = ffi.sizeof("struct bpf_map_batch_opts")
        keys, values = b"".join(key for key, _ in part), b"".join(value for _, value in part)
        rc = lib.bpf_map_update_batch(self.fd, keys, values, count, opts)
        if rc in (-EINVAL, -ENOTSUP, -ENOTSUPP):
            return False
        check(rc, "update", f"{len(part)} keys in map {self.name}")
        return True

    @property
    def value_room(self) -> int:
        """Bytes of a value as update() takes it: of all CPUs, for per-CPU maps."""
        if self.spec.type in _PER_CPU:
            return _round8(self.spec.value_size) * possible_cpus()
        return self.spec.value_size

    def _split(self, value: bytes) -> list[bytes]:
        if self.spec.type not in _PER_CPU:
            raise ValueError(f"map {self.name} is not per CPU")
        step = _round8(self.spec.value_size)
        return [value[at : at + self.spec.value_size] for at in range(0, len(value), step)]

    def _sized(self, data: bytes, size: int, what: str) -> None:
        # The kernel would read beyond a short buffer.
        if len(data) != size:
            raise ValueError(f"a {what} of map {self.name} has {size} bytes, not {len(data)}")


def possible_cpus() -> int:
    """How many values a per-CPU element has."""
    return check(lib.libbpf_num_possible_cpus(), "count", "the possible CPUs")


def is_full(error: KernelError) -> bool:
    """Whether an update failed because the map has no room."""
    return error.errno in (ENOSPC, 7)  # E2BIG from a hash, ENOSPC from a trie


def _cut(data: memoryview, step: int, count: int) -> list[bytes]:
    return [bytes(data[at : at + step]) for at in range(0, step * count, step)]


def _round8(size: int) -> int:
    return (size + 7) // 8 * 8
