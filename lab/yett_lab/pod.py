"""Pods as processes: a pause process that holds the namespaces, and the containers in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from yett_lab import image
from yett_lab.errors import LabError
from yett_lab.objects import Container, Pod
from yett_lab.paths import MARK, NETNS, Paths
from yett_lab.run import Process, identify, start

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Process 1 of the pod.  Foreign bpffs mounts are let go, or they would outlive their owner here.
# It reaps what is orphaned in the pod, and with it dies everything in the pod.
_PAUSE = """
set -e
while read -r _ point type _; do
  case $type in bpf) umount -l "$point" ;; esac
done </proc/self/mounts
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/resolv.conf" /etc/resolv.conf
hostname "$1"
echo ready
exec >/dev/null 2>&1
set +e
trap : TERM INT HUP
while :; do sleep 2147483647 & wait; done
"""


def create(paths: Paths, pod: Pod, hosts: str, resolv: str) -> Process:
    """Start the pause process; the network namespace is there already."""
    directory = paths.pod_directory(pod.key)
    directory.mkdir(parents=True, exist_ok=True)
    write_in_place(directory / "hosts", hosts)
    write_in_place(directory / "resolv.conf", resolv)
    unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    enter = ["nsenter", f"--net={NETNS / paths.pod_netns(pod.key)}", *unshare, "--propagation", "slave"]
    script = '"$@" & echo $!'
    with subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            script,
            "sh",
            *enter,
            "/bin/sh",
            "-c",
            _PAUSE,
            "pause",
            pod.name[:63],
            str(directory),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={"PATH": _PATH, MARK: paths.name},
        cwd="/",
    ) as shell:
        assert shell.stdout is not None  # noqa: S101 - for the type checker
        said: list[str] = []
        # unshare(1) keeps the pipe open, so we read up to the word and not to the end.
        while not {"ready"} <= set(said) or not any(line.isdecimal() for line in said):
            line = shell.stdout.readline()
            if not line:
                problem = " ".join(item for item in said if not item.isdecimal())
                raise LabError(f"cannot start pod {pod.key}: {problem or 'its first process ended'}")
            said.append(line.strip())
    return identify(int(next(line for line in said if line.isdecimal())))


def first_process(pause: Process) -> int:
    """The pod's process 1 (the child of unshare(1), which stays outside the PID namespace)."""
    children = Path(f"/proc/{pause.pid}/task/{pause.pid}/children")
    try:
        return int(children.read_text().split()[0])
    except (OSError, IndexError):
        raise LabError("the pod is not running; see `yettctl lab get pods`") from None


def environment(lab: str, pod: Pod, container: Container) -> dict[str, str]:
    """What a container's processes find in their environment; nothing of the caller's leaks in."""
    base = {MARK: lab, "PATH": _PATH, "HOME": "/root", "HOSTNAME": pod.name, "LANG": "C.UTF-8"}
    return {**base, **dict(container.env)}


def enter(pause: Process, container: Container, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` inside the pod."""
    inside = list(argv)
    if container.working_dir:
        # Not nsenter's --wd: that directory would be one of the machine's mount namespace.
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', container.working_dir, *argv]
    target = f"--target={first_process(pause)}"
    return ["nsenter", target, "--net", "--mount", "--uts", "--ipc", "--pid", "--", *inside]


def start_container(
    paths: Paths, pod: Pod, pause: Process, container: Container, images: Mapping[str, str]
) -> Process:
    """Start a container's process; its output goes to the log, its exit code beside it."""
    directory = paths.pod_directory(pod.key)
    argv = image.argv(container, images, directory)
    status = exit_file(paths, pod.key, container.name)
    status.unlink(missing_ok=True)
    record = '"$@"; code=$?; [ -d "${0%/*}" ] && echo $code >"$0"'
    return start(
        ["/bin/sh", "-c", record, str(status), *enter(pause, container, argv)],
        log=log_file(paths, pod.key, container.name),
        env=environment(paths.name, pod, container),
    )


def log_file(paths: Paths, pod: str, container: str) -> Path:
    return paths.pod_directory(pod) / f"{container}.log"


def exit_file(paths: Paths, pod: str, container: str) -> Path:
    return paths.pod_directory(pod) / f"{container}.exit"


def listening(pause: Process) -> set[int]:
    """TCP ports on which something in the pod listens."""
    ports: set[int] = set()
    number = first_process(pause)
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{number}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def write_in_place(path: Path, text: str) -> None:
    """Replace a file's content but not the file: it is bind-mounted in the pod."""
    data = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
