"""A box: a machine made of namespaces, in which a node or the control plane runs.

Mount, network, PID, UTS and IPC namespaces of its own, with an own /run, /var/lib, /var/log and bpffs:
software in it uses its default paths.  Whatever runs, is mounted or pinned in it ends with its init.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.paths import MARK, Paths, cache
from yett_lab.run import command, signal_quietly, start, wait_gone

_INIT = r"""
set -e
read -r pid _ </proc/self/stat # before /proc is the box's own: our number outside
cd "$1"
mkdir lib/cache
mount --bind "$3" lib/cache
mount -t proc proc /proc
mount --bind log /var/log
mount --bind run /run
mount --rbind lib /var/lib
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /
hostname "$2"
ip link set lo up
for c in all default; do
  echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter
  echo 0 >/proc/sys/net/ipv6/conf/$c/accept_dad
  echo 0 >/proc/sys/net/ipv6/conf/$c/accept_ra
done
echo 1 >/proc/sys/net/ipv4/ip_forward
cd /
echo "$pid" >/run/box.new
mv /run/box.new /run/box
while :; do sleep 3600 & wait "$!" || true; done # bash reaps the orphans that init inherits
"""
_NAMESPACES = ("-m", "-n", "-p", "-u", "-i")


@dataclass(frozen=True, slots=True)
class Box:
    """One of them, by name; it may be up or not."""

    paths: Paths
    name: str

    @property
    def directory(self) -> Path:
        return self.paths.box(self.name)

    @property
    def run_directory(self) -> Path:
        """What is /run inside."""
        return self.directory / "run"

    @property
    def log_directory(self) -> Path:
        """What is /var/log inside."""
        return self.directory / "log"

    @property
    def _mark(self) -> str:
        return f"{MARK}={self.paths.name}/{self.name}"

    @property
    def pid(self) -> int:
        """Its init, as seen from outside."""
        try:
            pid = int((self.run_directory / "box").read_text())
            if self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        except (OSError, ValueError):
            pass
        raise ClusterError(f"cannot enter {self.name} of cluster {self.paths.name}: it is not running")

    @property
    def up(self) -> bool:
        try:
            return self.pid > 0
        except ClusterError:
            return False

    def start(self) -> None:
        """Make the namespaces; ready on return."""
        cache().mkdir(parents=True, exist_ok=True)
        for name in ("run", "lib", "log"):
            (self.directory / name).mkdir(parents=True)
        log = self.log_directory / "box.log"
        argv = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "bash", "-c", _INIT, "init"]
        outer = start(["env", self._mark, *argv, str(self.directory), self.name, str(cache())], log=log)
        deadline = time.monotonic() + 10
        while not self.up:
            if not outer.alive or time.monotonic() > deadline:
                said = log.read_text().strip() or "it did not start within 10 s"
                raise ClusterError(
                    f"cannot start {self.name} of cluster {self.paths.name}: {said}; are you root?"
                )
            time.sleep(0.01)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command line inside."""
        return ["nsenter", "-t", str(self.pid), *_NAMESPACES, "--", "env", self._mark, *argv]

    def run(self, argv: Sequence[str], *, what: str, stdin: str = "", timeout: float = 30) -> str:
        """Run to the end inside, return stdout; `what` completes "cannot ..." in the error."""
        return command(self.enter(argv), what=what, stdin=stdin, timeout=timeout)

    def spawn(self, service: str, argv: Sequence[str]) -> None:
        """Start a daemon inside; it logs to /var/log/SERVICE.log there."""
        script = '"$@" >>"/var/log/$0.log" 2>&1 </dev/null & echo $! >"/run/$0.pid"'
        self.run(["setsid", "/bin/sh", "-c", script, service, *argv], what=f"start {service} on {self.name}")

    def alive(self, service: str) -> bool:
        script = 'read -r pid <"/run/$0.pid" && kill -0 "$pid" 2>/dev/null && echo yes || true'
        argv = ["/bin/sh", "-c", script, service]
        return bool(self.run(argv, what=f"look for {service} on {self.name}"))

    def end(self, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a daemon and wait for its end."""
        script = """
            read -r pid <"/run/$0.pid" && kill -s "$1" "$pid" || exit 0
            for _ in $(seq 500); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.02; done
            echo "still running after 10 s" >&2; exit 1
        """
        argv = ["/bin/sh", "-c", script, service, number.name.removeprefix("SIG")]
        self.run(argv, what=f"end {service} on {self.name}")

    def log(self, service: str, lines: int = 20) -> str:
        """The last lines of a daemon."""
        try:
            text = (self.log_directory / f"{service}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Kill everything inside, init first; what is mounted and pinned there goes with it."""
        if self.up:
            signal_quietly(self.pid, signal.SIGKILL)
        for _ in range(10):
            pids = marked(f"{self.paths.name}/{self.name}")
            if not wait_gone(pids, timeout=1):
                return
            for pid in pids:
                signal_quietly(pid, signal.SIGKILL)
        raise ClusterError(
            f"cannot end {self.name} of cluster {self.paths.name}: processes {pids} stay; end them and repeat"
        )


def marked(prefix: str) -> list[int]:
    """Processes of the machine with this value, or one that it begins with a slash after, in their mark."""
    whole, start_ = f"{MARK}={prefix}".encode(), f"{MARK}={prefix}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        if any(item == whole or item.startswith(start_) for item in environment):
            found.append(int(entry.name))
    return found
