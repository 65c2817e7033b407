"""Attachments by tcx link (kernel 6.6): pinned, replaced in one step, gone with their interface."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from yett_loader._libbpf import ffi, lib
from yett_loader.kernel.check import check
from yett_loader.kernel.fd import Handle, get_pinned, info_of
from yett_loader.kernel.program import Program


class Hook(IntEnum):
    """Where on an interface; the number is the kernel's attach type."""

    INGRESS = lib.YETT_TCX_INGRESS
    EGRESS = lib.YETT_TCX_EGRESS


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says about a link."""

    id: int
    program_id: int
    ifindex: int
    """0: the interface is gone, or the link was detached."""
    hook: int


class Link(Handle):
    """A tcx link.  While any pin or descriptor of it exists the program stays attached."""

    @classmethod
    def create(cls, program: Program, ifindex: int, hook: Hook) -> Self:
        """Attach `program`, behind programs that are attached already."""
        name = f"{program.name} to interface {ifindex}"
        return cls(check(lib.bpf_link_create(program.fd, ifindex, hook, ffi.NULL), "attach", name), name)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The link pinned under `path`."""
        return cls(get_pinned(path), os.path.basename(path))  # noqa: PTH119 - bpffs's path, not a Path's

    def info(self) -> LinkInfo:
        """Read from the kernel now."""
        info = info_of(self.fd, "tcx_link_info", self.name)
        return LinkInfo(
            id=info.id,
            program_id=info.prog_id,
            ifindex=info.ifindex,
            hook=info.attach_type,
        )

    def update(self, new: Program, expected: Program | None = None) -> None:
        """Swap the program in one step; with `expected`, only if that one is attached now."""
        opts = ffi.new("struct bpf_link_update_opts *")
        opts.sz = ffi.sizeof("struct bpf_link_update_opts")
        if expected is not None:
            opts.flags, opts.old_prog_fd = lib.BPF_F_REPLACE, expected.fd
        check(lib.bpf_link_update(self.fd, new.fd, opts), "replace the program of", f"link {self.name}")

    def detach(self) -> None:
        """Take the program off now, whoever else holds the link."""
        check(lib.bpf_link_detach(self.fd), "detach", f"link {self.name}")
