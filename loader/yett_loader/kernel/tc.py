"""Attachments by clsact filter, for kernels below 6.6: fixed place, replaced in one step."""

from __future__ import annotations

from errno import EEXIST, ENOENT
from typing import Any

from yett_loader._libbpf import ffi, lib
from yett_loader.kernel.check import captured_log, check
from yett_loader.kernel.link import Hook
from yett_loader.kernel.program import Program

HANDLE = 0x59455454
"""Our filter among those of one priority (`YETT`)."""
PRIORITY = 50000
"""Late, so that a CNI's own filters (which may rewrite) run first; fixed, so that we find ours again."""


def attach(program: Program, ifindex: int, hook: Hook) -> None:
    """Attach, or replace our filter that is there already, with no moment without one."""
    point = _point(ifindex, hook)
    with captured_log():  # libbpf would warn about the qdisc that exists already
        rc = lib.bpf_tc_hook_create(point)
    if rc != -EEXIST:
        check(rc, "create", f"the clsact qdisc on interface {ifindex}")
    opts = _opts()
    opts.prog_fd, opts.flags = program.fd, lib.BPF_TC_F_REPLACE
    check(lib.bpf_tc_attach(point, opts), "attach", f"{program.name} to interface {ifindex}")


def attached(ifindex: int, hook: Hook) -> int:
    """Id of our program there, 0 if none."""
    opts = _opts()
    with captured_log():
        rc = lib.bpf_tc_query(_point(ifindex, hook), opts)
    if rc in (-ENOENT, -22, -19):  # no filter; no qdisc; no interface
        return 0
    check(rc, "query", f"the filters of interface {ifindex}")
    return int(opts.prog_id)


def detach(ifindex: int, hook: Hook) -> bool:
    """Whether a filter of ours was there; the qdisc stays, since others may use it."""
    with captured_log():
        rc = lib.bpf_tc_detach(_point(ifindex, hook), _opts())
    if rc in (-ENOENT, -22, -19):
        return False
    check(rc, "detach", f"our filter from interface {ifindex}")
    return True


def _point(ifindex: int, hook: Hook) -> Any:
    point = ffi.new("struct bpf_tc_hook *")
    point.sz = ffi.sizeof("struct bpf_tc_hook")
    point.ifindex = ifindex
    point.attach_point = lib.BPF_TC_INGRESS if hook is Hook.INGRESS else lib.BPF_TC_EGRESS
    return point


def _opts() -> Any:
    opts = ffi.new("struct bpf_tc_opts *")
    opts.sz = ffi.sizeof("struct bpf_tc_opts")
    opts.handle, opts.priority = HANDLE, PRIORITY
    return opts
