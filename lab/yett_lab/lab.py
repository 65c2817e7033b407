"""The lab's verbs: what the command line and tests call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from yett_lab import address, control, network, reconcile, state
from yett_lab import down as removal
from yett_lab.access import load
from yett_lab.errors import InputError, LabError
from yett_lab.manifest import Manifest
from yett_lab.paths import Paths
from yett_lab.state import State


@dataclass(slots=True)
class Report:
    """What a change did."""

    changes: list[str] = field(default_factory=list)
    """`pod/client created`"""
    warnings: list[str] = field(default_factory=list)


def up(
    name: str, manifests: Sequence[Manifest] = (), *, nodes: int = 1, images: Mapping[str, str] | None = None
) -> Report:
    """Start a lab; when anything fails, nothing of it is left."""
    if not 1 <= nodes <= address.NODES_MAX:
        raise InputError(f"--nodes {nodes}: a lab has 1 to {address.NODES_MAX} nodes")
    paths = Paths(name)
    with state.locked(paths):
        if paths.directory.exists() != network.exists(paths.fabric):
            removal.remove(paths)  # what a crash or the machine's restart left of a lab
    with state.locked(paths), ExitStack() as undo:
        if paths.directory.exists():
            raise LabError(
                f"lab {name} is up; use `yettctl lab apply`, or `yettctl lab down --name {name}` first"
            )
        undo.callback(removal.remove, paths)
        names = [f"node-{index}" for index in range(1, nodes + 1)]
        fresh = State(name, names, dict(images or {}))
        wanted, report = merge([], manifests)
        paths.directory.mkdir(mode=0o700, parents=True)
        state.save(paths, fresh)
        control.mount_bpffs(paths)
        network.create_cluster(paths, names)
        control.start_loaders(paths, fresh)  # they take a second, in which the rest goes on
        report.warnings += reconcile.reconcile(paths, fresh, wanted)
        undo.pop_all()
    return report


def apply(name: str, manifests: Sequence[Manifest], images: Mapping[str, str] | None = None) -> Report:
    """Create or change objects."""
    paths = Paths(name)
    with state.locked(paths):
        have = load(paths)
        have.images.update(images or {})
        wanted, report = merge(have.manifests, manifests)
        report.warnings += reconcile.reconcile(paths, have, wanted)
    return report


def delete(name: str, manifests: Sequence[Manifest]) -> Report:
    """Delete objects, by kind and name."""
    paths = Paths(name)
    with state.locked(paths):
        have = load(paths)
        keys = {manifest.key for manifest in manifests}
        there = {manifest.key for manifest in have.manifests}
        report = Report(
            [f"{m.label} {'deleted' if m.key in there else 'not found'}" for m in manifests if m.is_known]
        )
        left = [manifest for manifest in have.manifests if manifest.key not in keys]
        report.warnings += reconcile.reconcile(paths, have, left)
    return report


def merge(have: Sequence[Manifest], new: Sequence[Manifest]) -> tuple[list[Manifest], Report]:
    """The objects after applying `new`; kinds that a lab does not run are left out with a warning."""
    report = Report()
    merged = {manifest.key: manifest for manifest in have}
    for manifest in new:
        if not manifest.is_known:
            report.warnings.append(
                f"{manifest.place()}: {manifest.label} left out: a lab does not run {manifest.kind}"
            )
            continue
        old = merged.get(manifest.key)
        verb = "created" if old is None else "unchanged" if old.body == manifest.body else "configured"
        report.changes.append(f"{manifest.label} {verb}")
        merged[manifest.key] = manifest
    return list(merged.values()), report
