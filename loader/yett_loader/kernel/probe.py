"""Questions to the kernel that leave nothing behind.  An answer is an errno, 0 for success."""

from __future__ import annotations

import os
import struct
from errno import EINVAL

from yett_loader._libbpf import ffi, lib
from yett_loader.kernel.check import captured_log

RINGBUF = int(lib.BPF_MAP_TYPE_RINGBUF)
_BPF_LOOP = 181


def create_map_errno(kind: int, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> int:
    """Try to create a map."""
    opts = ffi.new("struct bpf_map_create_opts *")
    opts.sz = ffi.sizeof("struct bpf_map_create_opts")
    opts.map_flags = flags
    return _closed(lib.bpf_map_create(kind, b"probe", key_size, value_size, max_entries, opts))


def attach_tcx_errno(ifindex: int) -> int:
    """Try to attach a program that passes everything, and detach it at once."""
    program = _load((0xB7, 0, 0), (0x95, 0, 0))
    if program < 0:
        return -program
    try:
        return _closed(lib.bpf_link_create(program, ifindex, lib.YETT_TCX_INGRESS, ffi.NULL))
    finally:
        os.close(program)


def lpm_trie() -> bool | None:
    """Whether LPM trie maps exist."""
    return _answer(create_map_errno(lib.BPF_MAP_TYPE_LPM_TRIE, 8, 4, 1, lib.BPF_F_NO_PREALLOC))


def bpf_loop() -> bool | None:
    """Whether the helper is known: without it the verifier says EINVAL, with it EACCES or EPERM
    for the arguments that we do not give.
    """
    errno = _closed(_load((0x85, 0, _BPF_LOOP), (0x95, 0, 0)))
    return errno != EINVAL if errno != 1 else None


def _answer(errno: int) -> bool | None:
    return True if errno == 0 else False if errno == EINVAL else None


def _load(*instructions: tuple[int, int, int]) -> int:
    code = b"".join(struct.pack("=BBhi", op, registers, 0, imm) for op, registers, imm in instructions)
    with captured_log():
        return int(
            lib.bpf_prog_load(
                lib.BPF_PROG_TYPE_SCHED_CLS,
                b"probe",
                b"GPL",
                ffi.cast("struct bpf_insn *", ffi.from_buffer(code)),
                len(instructions),
                ffi.NULL,
            )
        )


def _closed(fd: int) -> int:
    if fd < 0:
        return -fd
    os.close(fd)
    return 0
