"""A file descriptor that has an owner."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from yett_loader._libbpf import ffi, lib
from yett_loader.kernel.check import check


class Handle:
    """Owns one descriptor of a map, program or link; a context manager that closes it.

    Closing says nothing about the kernel object: what is pinned or attached lives on.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name

    @property
    def fd(self) -> int:
        """The descriptor; ValueError after close()."""
        if self._fd < 0:
            raise ValueError(f"{self.name} is closed")
        return self._fd

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Make it live in bpffs under `path`, which must not exist."""
        check(lib.bpf_obj_pin(self.fd, os.fsencode(path)), "pin", f"{self.name} as {os.fspath(path)}")

    def close(self) -> None:
        """Give the descriptor up; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} fd={self._fd}>"


def get_pinned(path: str | os.PathLike[str]) -> int:
    """A new descriptor of what is pinned under `path`."""
    return check(lib.bpf_obj_get(os.fsencode(path)), "open", f"pin {os.fspath(path)}")


def info_of(fd: int, struct: str, name: str) -> Any:
    """The kernel's info struct about `fd`, as a cffi struct that owns its memory."""
    info = ffi.new(f"struct {struct} *")
    size = ffi.new("uint32_t *", ffi.sizeof(f"struct {struct}"))
    check(lib.bpf_obj_get_info_by_fd(fd, info, size), "read info of", name)
    return info
