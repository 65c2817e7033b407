"""What the loader may do in its container: exactly the capabilities of its manifest."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml

MANIFEST = Path(__file__).resolve().parents[2] / "manifests/base/loader/daemonset.yaml"
_NUMBERS = {"NET_ADMIN": 12, "PERFMON": 38, "BPF": 39}
_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@cache
def of_the_loader() -> tuple[str, ...]:
    """As the manifest has them, sorted; it must drop all others."""
    (container,) = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["containers"]
    context = container["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert not context.get("privileged")
    return tuple(sorted(context["capabilities"]["add"]))


def mask() -> int:
    """The same as one number, as /proc/PID/status has it."""
    return sum(1 << _NUMBERS[name] for name in of_the_loader())


def confining() -> list[str]:
    """The beginning of a command line: what follows has the loader's capabilities and can get no others."""
    names = ",".join(f"+{name.lower()}" for name in of_the_loader())
    return ["setpriv", "--bounding-set", f"-all,{names}", "--inh-caps", "-all", "--no-new-privs"]


@contextmanager
def confined() -> Iterator[None]:
    """This thread, and those that it starts, may only do what the loader may; programs that it runs, all."""
    with _effective(mask() & 0xFFFFFFFF, mask() >> 32):
        yield


@contextmanager
def privileged() -> Iterator[None]:
    """Inside `confined()`: what the tests themselves may do, to make namespaces and mounts."""
    with _effective(0xFFFFFFFF, 0xFFFFFFFF):
        yield


@contextmanager
def _effective(*bits: int) -> Iterator[None]:
    """With these of the capabilities that are permitted, in this thread."""
    before, halves = (_Half * 2)(), (_Half * 2)()
    _call("capget", before)
    _call("capget", halves)
    for half, wanted in zip(halves, bits, strict=True):
        half.effective = half.permitted & wanted
    _call("capset", halves)
    try:
        yield
    finally:
        _call("capset", before)


def _call(function: str, halves: ctypes.Array[_Half]) -> None:
    if getattr(_libc, function)(ctypes.byref(_Header(_VERSION_3, 0)), halves) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"cannot {function}: {os.strerror(errno)}")
