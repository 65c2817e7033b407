"""Return codes of libbpf, as exceptions; and its log, as log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from yett_loader._libbpf import ffi, lib
from yett_loader.errors import KernelError

log = logging.getLogger("yett_loader.libbpf")

_captured: list[list[str]] = []


def errno_text(errno: int) -> str:
    """What libbpf calls an error number (its own begin at 4000)."""
    buffer = ffi.new("char[256]")
    lib.libbpf_strerror(errno, buffer, len(buffer))
    return str(ffi.string(buffer).decode(errors="replace"))


def check(rc: int, operation: str, name: str) -> int:
    """`rc` if it is no error; KernelError with the errno that libbpf means otherwise."""
    if rc >= 0:
        return rc
    # libbpf 1.x returns -errno; -1 alone comes with errno (a few calls, and EPERM is 1 itself).
    errno = -rc if rc != -1 else (ffi.errno or 1)
    raise KernelError(operation, name, errno, errno_text(errno))


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what libbpf says meanwhile (the verifier's log), instead of logging it."""
    lines: list[str] = []
    _captured.append(lines)
    try:
        yield lines
    finally:
        # This one, not one of another thread that says the same.
        _captured[:] = [other for other in _captured if other is not lines]


@ffi.def_extern(name="yett_log")  # type: ignore[untyped-decorator]
def _on_log(level: int, line: object) -> None:
    text = ffi.string(line).decode(errors="replace").rstrip()
    if _captured:
        _captured[-1].append(text)
    else:
        log.log(logging.WARNING if level == lib.LIBBPF_WARN else logging.DEBUG, "%s", text)


lib.yett_log_to_python()
