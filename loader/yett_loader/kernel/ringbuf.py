"""The consumer of a ring buffer."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from yett_loader._libbpf import ffi, lib
from yett_loader.errors import KernelError
from yett_loader.kernel.check import check
from yett_loader.kernel.map import Map


class RingBuffer:
    """Takes records out of a ring buffer map; there should be one consumer per map."""

    def __init__(self, source: Map) -> None:
        self._records: list[bytes] = []
        self._handle = ffi.new_handle(self._records)
        self._pointer = lib.ring_buffer__new(source.fd, lib.yett_sample, self._handle, ffi.NULL)
        self.name = source.name
        if not self._pointer:
            raise KernelError("consume", f"ring buffer {source.name}", ffi.errno)

    def consume(self) -> list[bytes]:
        """What has been written since the last call, oldest first; does not wait."""
        if self._pointer is None:
            raise ValueError(f"ring buffer {self.name} is closed")
        check(lib.ring_buffer__consume(self._pointer), "consume", f"ring buffer {self.name}")
        records = self._records[:]
        self._records.clear()
        return records

    def close(self) -> None:
        """Unmap it; a second call does nothing."""
        if self._pointer is not None:
            lib.ring_buffer__free(self._pointer)
            self._pointer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@ffi.def_extern(name="yett_sample", error=-1)  # type: ignore[untyped-decorator]
def _on_sample(context: object, data: object, size: int) -> int:
    ffi.from_handle(context).append(bytes(ffi.buffer(data, size)))
    return 0
