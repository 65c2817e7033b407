"""Run guest.c on a kernel: in a virtual machine, or on this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kernels.errors import KernelsError
from kernels.fetch import Kernel

TIMEOUT = 120
"""Seconds for one kernel.  Two or three are enough on an idle machine, emulated."""

CPU = "max,-cx16"
"""All that qemu emulates but CMPXCHG16B, after which qemu 7.2 sometimes loses the flags (a kernel's allocator
crashes then, about one boot in ten).  Kernels have another way without it."""

COMMAND_LINE = "console=ttyS0 earlyprintk=serial quiet panic=-1 nokaslr"

_FILE, _DIRECTORY = 0o100644, 0o040755


def build_guest(directory: Path) -> Path:
    """Compile guest.c into a program that needs no library."""
    here = Path(__file__).parent
    target = directory / "guest"
    directory.mkdir(parents=True, exist_ok=True)
    flags = ["-static", "-O1", "-Wall", "-Wextra", "-Werror"]
    result = subprocess.run(
        ["gcc", *flags, here / "guest.c", here / "attach.c", "-o", target, "-lbpf", "-lelf", "-lz"],
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise KernelsError(f"cannot compile tests/kernels/guest.c: {result.stderr.strip()}")
    return target


def here(guest: Path, program: Path) -> list[str]:
    """The guest's lines on the running kernel."""
    command = [guest.resolve(), program]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)
    return result.stdout.splitlines()


def boot(kernel: Kernel, guest: Path, program: Path, directory: Path) -> list[str]:
    """The guest's lines on another kernel, which is booted with nothing but the guest in it.

    Emulated: fast enough, and the same everywhere.  KVM in a virtual machine may hang.
    """
    initramfs = directory / "initramfs"
    files = {
        "init": (_FILE | 0o111, guest.read_bytes()),
        "yett.bpf.o": (_FILE, program.read_bytes()),
        "modules": (_DIRECTORY, b""),
    }
    for number, module in enumerate(kernel.modules):
        files[f"modules/{number}-{module.name}"] = (_FILE, module.read_bytes())
    initramfs.write_bytes(archive(files))
    machine = ["-machine", "pc", "-accel", "tcg", "-cpu", CPU, "-m", "768"]
    console = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]
    system: list[str | Path] = ["-kernel", kernel.image, "-initrd", initramfs, "-append", COMMAND_LINE]
    command: list[str | Path] = ["qemu-system-x86_64", *machine, *console, *system]
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT
        )
    except FileNotFoundError:
        raise KernelsError("cannot boot a kernel: qemu-system-x86_64 is missing. Run: make setup") from None
    except subprocess.TimeoutExpired as error:
        tail = (error.stdout or b"").decode(errors="replace").splitlines()[-5:]
        raise KernelsError(
            f"cannot boot {kernel.release}: not done in {TIMEOUT} s; it said last: {tail}"
        ) from None
    if result.returncode:
        raise KernelsError(f"cannot boot {kernel.release}: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout.decode(errors="replace").splitlines()


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive ("newc") as the kernel unpacks it: path to mode and contents."""
    return b"".join(_entry(name, mode, data) for name, (mode, data) in files.items()) + _entry(
        "TRAILER!!!", 0, b""
    )


def _entry(name: str, mode: int, data: bytes) -> bytes:
    path = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (4 numbers), length of the path, checksum
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
