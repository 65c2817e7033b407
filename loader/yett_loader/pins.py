"""Where things live in bpffs, and the lock on it.

    ROOT/                        its lock is ours while we change anything
      links/IFINDEX-HOOK         tcx links; a directory stands for a clsact filter
      v1/                        schema of the maps; another schema gets another directory
        maps/NAME
        inner/NAME/ID            the maps in map NAME, which is one of maps
        programs/NAME
        marks/layout-DIGEST      empty directories: what the structs and the object were
        marks/object-DIGEST
      v1-new/, v1-old/           while maps are made, or replaced by maps of another layout

Links stand beside the schemas: a link must outlive the programs that it once ran.

bpffs holds no plain files, so what we must remember about the pins is spelled in the names of
empty directories; and it allows no dot in a name.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yett_loader.errors import NotReady

SCHEMA = "v1"
BPF_FS_MAGIC = 0xCAFE4A11


@dataclass(frozen=True, slots=True)
class Pins:
    """Paths below one root."""

    root: Path
    schema: str = SCHEMA

    @property
    def home(self) -> Path:
        return self.root / self.schema

    @property
    def maps(self) -> Path:
        return self.home / "maps"

    @property
    def inner(self) -> Path:
        return self.home / "inner"

    @property
    def programs(self) -> Path:
        return self.home / "programs"

    @property
    def links(self) -> Path:
        return self.root / "links"

    @property
    def gate(self) -> Path:
        """Of the attachment of the gate to the sidecar."""
        return self.root / "gate"

    @property
    def new(self) -> Pins:
        """Where maps and programs are made before they move to `home`."""
        return Pins(self.root, f"{self.schema}-new")

    @property
    def old(self) -> Pins:
        """Where those that are replaced go."""
        return Pins(self.root, f"{self.schema}-old")

    @property
    def marks(self) -> Path:
        return self.home / "marks"

    def link(self, ifindex: int, hook: str) -> Path:
        """Of the attachment of `hook` (`ingress`, `egress`) on an interface."""
        return self.links / f"{ifindex}-{hook}"

    def mark(self, kind: str) -> str:
        """What is remembered under `kind`; empty if nothing."""
        if not self.marks.is_dir():
            return ""
        return next(
            (p.name.removeprefix(f"{kind}-") for p in self.marks.iterdir() if p.name.startswith(f"{kind}-")),
            "",
        )

    def set_mark(self, kind: str, value: str) -> None:
        """Remember `value` in place of what was there."""
        new = self.marks / f"{kind}-{value}"
        old = [path for path in self.marks.iterdir() if path.name.startswith(f"{kind}-") and path != new]
        if old and not new.exists():
            old.pop().rename(new)
        new.mkdir(exist_ok=True)
        for path in old:
            path.rmdir()


def require_bpffs(root: Path) -> None:
    """NotReady unless `root` (or the nearest parent that exists) is on a BPF file system.

    Pins on anything else would fail, and pins in a container's private bpffs would vanish with it.
    """
    path = root
    while not path.exists() and path != path.parent:
        path = path.parent
    if _magic(path) != BPF_FS_MAGIC:
        raise NotReady(
            f"cannot pin below {root}: {path} is not on a BPF file system; mount one "
            "(`mount -t bpf bpf /sys/fs/bpf`), or name another place with --pin-dir"
        )


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of a pin root; NotReady if another process has it."""
    require_bpffs(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotReady(
                f"cannot change {root}: another yett-loader holds its lock; stop that one, or ask it "
                "over its API socket"
            ) from None
        yield
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Unpin everything below `path`; what nothing else holds is freed by the kernel."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for child in path.iterdir():
        remove_tree(child)
    path.rmdir()


def _magic(path: Path) -> int:
    buffer = (ctypes.c_long * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        errno = ctypes.get_errno()
        raise NotReady(f"cannot look at {path}: {os.strerror(errno)}; name another place with --pin-dir")
    return int(buffer[0]) & 0xFFFFFFFF
