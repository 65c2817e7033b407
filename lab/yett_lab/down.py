"""Taking a lab away, whole, from whatever state it is in."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from yett_lab import network, state
from yett_lab.errors import LabError
from yett_lab.paths import MARK, NETNS, ROOT, Paths
from yett_lab.run import signal_quietly, wait_gone

UNMOUNT_SECONDS = 5.0


def down(name: str) -> bool:
    """Remove a lab; False: there was none."""
    paths = Paths(name)
    with state.locked(paths):
        return remove(paths)


def remove(paths: Paths) -> bool:
    """Remove processes, namespaces, pins, mounts and state, under the lab's lock.

    Found by name on the machine, not by the state file, which may be missing or old.
    """
    namespaces = lab_namespaces(paths)
    existed = bool(namespaces) or paths.directory.exists()
    pids = processes_of(paths, namespaces)
    # What runs inside pods first: each is then reaped by the nsenter(1) that waits for it.  The other
    # way round they would be left to the machine's init, and a PID namespace waits for that.
    left = _kill([pid for pid in pids if _inside(pid)]) + _kill(processes_of(paths, namespaces))
    if left:
        raise LabError(
            f"cannot end the processes {left} of lab {paths.name}; end them and repeat `yettctl lab down`"
        )
    for name in namespaces:
        network.delete(name)
    _unmount(paths.bpffs)
    shutil.rmtree(paths.directory, ignore_errors=True)
    if paths.directory.exists():
        raise LabError(f"cannot remove {paths.directory}; see what is mounted or open there")
    paths.lock.unlink(missing_ok=True)
    for directory in (ROOT, ROOT.parent):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
    return existed


def lab_namespaces(paths: Paths) -> list[str]:
    """All network namespaces of the lab, pods before nodes before the fabric."""
    if not NETNS.is_dir():
        return []
    found = [p.name for p in NETNS.iterdir() if p.name.startswith(paths.netns_prefix)]
    return sorted(found, key=lambda name: (name == paths.fabric, "-pod-" not in name, name))


def processes_of(paths: Paths, namespaces: list[str]) -> list[int]:
    """Processes that live in the lab's network namespaces or carry its mark in their environment."""
    inodes = {(NETNS / name).stat().st_ino for name in namespaces}
    mark = f"{MARK}={paths.name}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            inside = (entry / "ns/net").stat().st_ino in inodes
            if inside or mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended while we looked
            continue
    return found


def _inside(pid: int) -> bool:
    """Whether it lives in a pod's PID namespace."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino != Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return False


def _kill(pids: list[int]) -> list[int]:
    """Kill and wait; those that would not go."""
    for pid in pids:
        signal_quietly(pid, signal.SIGKILL)
    return wait_gone(pids)


def _unmount(path: Path) -> None:
    if not path.is_mount():
        return
    # Pins first: another mount namespace may hold a copy of the mount, and with it the programs.
    # Files at the top are the kernel's own.
    for child in path.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
    # A killed loader can look gone while its last thread still closes files.
    deadline = time.monotonic() + UNMOUNT_SECONDS
    while (said := _umount(path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if said:
        raise LabError(f"cannot unmount {path}: {said}; end what uses it and repeat `yettctl lab down`")


def _umount(path: Path) -> str:
    """What umount(8) complains about; empty if it is done."""
    done = subprocess.run(["umount", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
