"""What the running kernel can do; asked only after something failed, to say why.

Each probe answers True, False, or None when it cannot tell (no privilege, say).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ENODEV, ENOENT, EPERM
from pathlib import Path

from yett_loader.errors import KernelError, NotReady, NotSupported
from yett_loader.kernel import probe


@dataclass(frozen=True, slots=True)
class Feature:
    """One ability of the kernel, and the first release that has it."""

    name: str
    since: str
    probe: Callable[[], bool | None]


def _tcx() -> bool | None:
    # An interface that cannot exist: kernels with tcx look it up, others refuse the attach type.
    errno = probe.attach_tcx_errno(0x7FFFFFFF)
    return True if errno == ENODEV else False if errno == EINVAL else None


def _map_type(kind: int, key_size: int, value_size: int, max_entries: int) -> Callable[[], bool | None]:
    def ask() -> bool | None:
        errno = probe.create_map_errno(kind, key_size, value_size, max_entries)
        return True if errno == 0 else False if errno == EINVAL else None

    return ask


TCX = Feature("tcx links", "6.6", _tcx)
RINGBUF = Feature("BPF ring buffers", "5.8", _map_type(probe.RINGBUF, 0, 0, 4096))
LPM = Feature("LPM trie maps", "4.11", probe.lpm_trie)
LOOP = Feature("the bpf_loop helper", "5.17", probe.bpf_loop)

BTF = Path("/sys/kernel/btf/vmlinux")


def has(feature: Feature) -> bool | None:
    """Ask the kernel."""
    return feature.probe()


def explain(error: KernelError) -> Exception:
    """A better error for a load that failed: what the node lacks, or `error` itself."""
    if not BTF.exists():
        return NotReady(
            f"cannot {error.operation} {error.name}: this kernel was built without BTF ({BTF} is missing); "
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y"
        )
    if error.errno == EPERM:
        return NotReady(
            f"cannot {error.operation} {error.name}: not permitted; run as root, or with CAP_BPF, "
            "CAP_NET_ADMIN and CAP_PERFMON"
        )
    for feature in (RINGBUF, LPM, LOOP):
        if has(feature) is False:
            return NotSupported(
                error.operation, error.name, error.errno or ENOENT, feature.name, feature.since
            )
    return error
