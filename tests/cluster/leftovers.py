"""What a cluster could leave on a machine: a picture of it before, to compare with one after."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from cluster.cgroup import hierarchies
from cluster.paths import ROOT
from yett_lab.run import command

_DIRECTORIES = (
    "/etc",
    "/etc/cni",
    "/opt",
    "/run",
    "/usr/libexec",
    "/var/lib",
    "/var/log",
    "/run/netns",
    str(ROOT),
)
_NAMESPACES = ("mnt", "net", "pid", "uts", "ipc", "cgroup")
_SYSCTLS = ("net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max", "vm/overcommit_memory", "kernel/panic")

Picture = dict[str, frozenset[str]]


def picture() -> Picture:
    """Kind of thing -> what there is of it."""
    return {
        "mount": frozenset(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        "cgroup": frozenset(_cgroups()),
        "namespace": frozenset(_namespaces()),
        "program": frozenset(_kernel_objects("prog")),
        "map": frozenset(_kernel_objects("map")),
        "pin": frozenset(str(path) for path in Path("/sys/fs/bpf").rglob("*")),
        "interface": frozenset(
            link["ifname"] for link in json.loads(command(["ip", "-j", "link"], what="list links"))
        ),
        "route": frozenset(command(["ip", "route", "show", "table", "all"], what="list routes").splitlines()),
        "rule": frozenset(command(["nft", "list", "tables"], what="list nftables").splitlines()),
        "file": frozenset(_files()),
        "setting": frozenset(_settings()),
    }


def added(before: Picture, after: Picture) -> list[str]:
    """What is there after and was not before."""
    return sorted(f"{kind} {item}" for kind, items in after.items() for item in items - before[kind])


def _cgroups() -> Iterator[str]:
    for top in hierarchies():
        for directory, _, _ in os.walk(top):
            yield directory


def _namespaces() -> Iterator[str]:
    """Those of living processes; an empty one that is kept has a mount."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            for kind in _NAMESPACES:
                try:
                    yield (entry / "ns" / kind).readlink().name
                except OSError:  # it ended while we looked
                    continue


def _kernel_objects(kind: str) -> Iterator[str]:
    """BPF programs or maps, by their number."""
    for item in json.loads(command(["bpftool", "-j", kind, "show"], what=f"list BPF {kind}s")):
        yield f"{item['id']} {item.get('name', '')}"


def _files() -> Iterator[str]:
    for directory in map(Path, _DIRECTORIES):
        if directory.is_dir():
            yield from (str(path) for path in directory.iterdir())


def _settings() -> Iterator[str]:
    for name in _SYSCTLS:
        path = Path("/proc/sys", name)
        if path.exists():
            yield f"{name} = {path.read_text().strip()}"
