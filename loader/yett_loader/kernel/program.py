"""One program: its tag, and running it on a packet of our making."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, Self

from yett_loader._libbpf import ffi, lib
from yett_loader.kernel.check import check
from yett_loader.kernel.fd import Handle, get_pinned


class RunResult(NamedTuple):
    """What one BPF_PROG_TEST_RUN gave."""

    retval: int
    """Signed, as TC reads it: TC_ACT_UNSPEC is -1."""
    data: bytes
    """The packet afterwards."""
    duration_ns: int
    """Mean of one repetition."""
    mark: int
    """skb->mark afterwards."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What tells one loaded program from another."""

    id: int
    tag: str
    """Digest of the instructions, hex; equal tags mean equal code."""
    name: str
    map_ids: tuple[int, ...]
    verified_insns: int
    """Instructions the verifier walked through (kernel 5.16)."""


class Program(Handle):
    """A loaded program."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The program pinned under `path`."""
        return cls(get_pinned(path), os.path.basename(path))  # noqa: PTH119 - bpffs's path, not a Path's

    def info(self) -> ProgramInfo:
        """Read from the kernel now."""
        info = ffi.new("struct bpf_prog_info *")
        ids = ffi.new("uint32_t[]", 64)
        info.nr_map_ids = len(ids)
        info.map_ids = int(ffi.cast("uintptr_t", ids))
        size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
        check(lib.bpf_obj_get_info_by_fd(self.fd, info, size), "read info of", f"program {self.name}")
        return ProgramInfo(
            id=info.id,
            tag=bytes(info.tag).hex(),
            name=ffi.string(info.name).decode(),
            map_ids=tuple(ids[0 : min(info.nr_map_ids, len(ids))]),
            verified_insns=info.verified_insns,
        )

    def test_run(
        self,
        data: bytes,
        *,
        ifindex: int = 0,
        ingress_ifindex: int = 0,
        mark: int = 0,
        priority: int = 0,
        gso_size: int = 0,
        gso_segs: int = 0,
        cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0),
        repeat: int = 1,
    ) -> RunResult:
        """Run it once (or `repeat` times on the same packet) on the frame `data`.

        `ifindex` must exist in the caller's network namespace; 0 leaves the kernel's choice (lo).
        """
        context = ffi.new("struct __sk_buff *")
        context.mark, context.priority = mark, priority
        context.ifindex, context.ingress_ifindex = ifindex, ingress_ifindex
        context.gso_size, context.gso_segs = gso_size, gso_segs
        context.cb = cb
        after = ffi.new("struct __sk_buff *")
        out = ffi.new("char[]", len(data) + _HEADROOM)
        given = ffi.from_buffer(data)
        opts = ffi.new("struct bpf_test_run_opts *")
        opts.sz = ffi.sizeof("struct bpf_test_run_opts")
        opts.data_in, opts.data_size_in = given, len(data)
        opts.data_out, opts.data_size_out = out, len(out)
        opts.ctx_in, opts.ctx_size_in = context, ffi.sizeof("struct __sk_buff")
        opts.ctx_out, opts.ctx_size_out = after, ffi.sizeof("struct __sk_buff")
        opts.repeat = repeat
        check(lib.bpf_prog_test_run_opts(self.fd, opts), "run", f"program {self.name} on {len(data)} bytes")
        retval = int(ffi.cast("int32_t", opts.retval))
        return RunResult(retval, bytes(ffi.buffer(out, opts.data_size_out)), opts.duration, after.mark)


_HEADROOM = 4096
"""A program may make the packet longer."""
