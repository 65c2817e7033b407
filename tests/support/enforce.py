"""yett on the topology: the real loader code, the real programs, hand-made documents.

Which policies a user writes is the business of other tests; here a pod's policy is a mapping
port -> HTTP rules, so that a test says in one line what is enforced.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from support.netns import Side, Topology
from yett_loader.assign import Assignment, assign
from yett_loader.datapath import Datapath, Sizes
from yett_loader.encode import encode
from yett_loader.endpoint import LocalEndpoint
from yett_loader.enforce import Enforcer
from yett_loader.kernel import RingBuffer, abi
from yett_loader.pins import Pins, remove_tree
from yett_loader.plan import plan
from yett_loader.state import MapState, after
from yett_policy.document import ANY_PEER, Direction, Document, Entry, Ruleset, Snapshot, Verdict
from yett_policy.http.compile import compile_ruleset
from yett_policy.http.rule import RulesetSpec
from yett_policy.reason import Reason

ROOT = Path(__file__).resolve().parents[2]
IMAGE = Path(os.environ.get("YETT_BPF_OBJECT", ROOT / "build" / "yett.bpf.o"))
BPFFS = Path("/sys/fs/bpf")

HOST = 1
CLIENT, SERVER = 301, 302
"""Identities of the two pods."""

_TCP = 6
_DENIED_FROM = 16
"""The first reason that is a denial."""

Ports = Mapping[int, RulesetSpec | None]
"""What is allowed: TCP port -> HTTP rules, None for no look into the stream."""

_numbers = itertools.count()


@cache
def compiled(spec: RulesetSpec) -> Ruleset:
    """Kernel tables, once per run."""
    return compile_ruleset(spec, engine_wish="Kernel")


def document(identity: int, direction: Direction, ports: Ports | None) -> Document:
    """Allows `ports` in one direction and nothing else there; None: does not speak of it."""
    rules = ("none", "L7Policy/test/gate:default-deny", "L7Policy/test/gate:ingress[0].toPorts[0]")
    other = Direction(1 - direction)
    entries = [
        Entry(other, ANY_PEER, 0, 0, 0, Verdict.ALLOW, Reason.NOT_ENFORCED, 0),
        Entry(Direction.INGRESS, HOST, 0, 0, 0, Verdict.ALLOW, Reason.HOST, 0),
    ]
    if ports is None:
        entries.append(Entry(direction, ANY_PEER, 0, 0, 0, Verdict.ALLOW, Reason.NOT_ENFORCED, 0))
    else:
        entries.append(Entry(direction, ANY_PEER, 0, 0, 0, Verdict.DENY, Reason.POLICY_DENIED, 1))
        for port, spec in ports.items():
            digest = spec.digest if spec else ""
            forbidden = bool(spec and spec.forbidden)
            entries.append(
                Entry(
                    direction,
                    ANY_PEER,
                    _TCP,
                    port,
                    16,
                    Verdict.ALLOW,
                    Reason.ALLOWED,
                    2,
                    digest,
                    forbidden=forbidden,
                )
            )
    return Document.of(identity, entries, rules)


class Gate:
    """The data plane on both pods, one of which is governed: the server's ingress or the client's egress."""

    def __init__(
        self,
        topology: Topology,
        direction: Direction,
        *,
        sizes: Sizes | None = None,
        attach: bool = True,
        pin_root: Path | None = None,
    ) -> None:
        self.topology = topology
        self.direction = direction
        self.pin_root = pin_root or BPFFS / f"yett-test-{os.getpid()}-{next(_numbers)}"
        self._assignment = Assignment()
        self._have: MapState | None = None
        self._sizes = sizes
        with topology.node:
            self.datapath = Datapath.start(Pins(self.pin_root), IMAGE, sizes)
        self.enforcer = Enforcer(self.datapath.maps)
        self.enforcer.configure(deny_events_per_second=100_000, head_timeout_ms=10_000)
        self._events = RingBuffer(self.datapath.maps["events"])
        if attach:
            self.attach()

    # -- policy

    def apply(self, ports: Ports | None) -> None:
        """Govern with these rules; None: nothing selects the pods.  In force on return."""
        self.apply_snapshot(self.snapshot(ports))

    def snapshot(self, ports: Ports | None) -> Snapshot:
        """What the operator would send."""
        server = ports if self.direction is Direction.INGRESS else None
        client = ports if self.direction is Direction.EGRESS else None
        specs = {spec.digest: spec for spec in (ports or {}).values() if spec}
        addresses = [
            (f"{address}/{128 if ':' in address else 32}", identity)
            for side, identity in zip(self.topology.sides, (CLIENT, SERVER), strict=True)
            for address in side.addresses
        ]
        node = [
            (f"{address}/{128 if ':' in address else 32}", HOST)
            for side in self.topology.sides
            for address in (side.gateway4, side.gateway6)
        ]
        return Snapshot(
            documents=(
                document(CLIENT, Direction.EGRESS, client),
                document(SERVER, Direction.INGRESS, server),
            ),
            rulesets=tuple(compiled(specs[digest]) for digest in sorted(specs)),
            ipcache=tuple(sorted([*addresses, *node])),
        )

    def apply_snapshot(self, snapshot: Snapshot, *, without: tuple[int, ...] = ()) -> None:
        """Plan and apply as the loader does; identities in `without` have no pod here."""
        have = self._have or self.enforcer.read_state()
        self._assignment = assign(snapshot, self._assignment, have, self.enforcer.limits)
        endpoints = [
            _endpoint(side, identity)
            for side, identity in zip(self.topology.sides, (CLIENT, SERVER), strict=True)
            if identity not in without
        ]
        want = encode(snapshot, endpoints, self._assignment)
        self.enforcer.tables = {
            self._assignment.rulesets[item.digest].handle: item.tables for item in snapshot.rulesets
        }
        ops = plan(have, want, self.enforcer.limits.policies)  # what is retired stays: tests are short
        self.enforcer.apply(ops)
        self._have = after(have, *ops)

    def attach(self) -> None:
        """Govern the node's side of both pods."""
        with self.topology.node:
            for side in self.topology.sides:
                self.datapath.attach(side.ifindex)

    # -- observation

    def counters(self) -> Counter[tuple[Direction, Reason]]:
        """Verdicts by direction and reason, lone packets and requests together."""
        metrics, counted = self.datapath.maps["metrics"], Counter[tuple[Direction, Reason]]()
        reasons = abi.number("REASON_COUNT")
        for index in range(2 * reasons):
            for value in metrics.lookup_percpu(index.to_bytes(4, "little")):
                if any(value):
                    metric = abi.unpack("metric", value)
                    total = int(str(metric["packets"])) + int(str(metric["requests"]))
                    counted[Direction(index // reasons), Reason(index % reasons)] += total
        return counted

    def denials(self) -> Counter[Reason]:
        """Denied packets and requests by reason."""
        total: Counter[Reason] = Counter()
        for (_, reason), count in self.counters().items():
            if reason >= _DENIED_FROM:
                total[reason] += count
        return total

    def events(self) -> list[dict[str, Any]]:
        """Records since the last call."""
        return [dict(abi.unpack("event", record)) for record in self._events.consume()]

    def flows(self) -> list[dict[str, Any]]:
        """The flow table: key and value in one."""
        return [
            {**abi.unpack("flow_key", key), **abi.unpack("flow", value)}
            for key, value in self.datapath.maps["flows"].items()
        ]

    # -- end

    def close(self) -> None:
        """Detach and unpin everything."""
        self._events.close()
        with self.topology.node:
            self.datapath.unload()
        with contextlib.suppress(OSError):
            self.pin_root.rmdir()


def _endpoint(side: Side, identity: int) -> LocalEndpoint:
    name = "client" if identity == CLIENT else "server"
    return LocalEndpoint("test", name, identity, side.addresses, side.ifindex)


@contextlib.contextmanager
def gate(topology: Topology, direction: Direction, **options: Any) -> Iterator[Gate]:
    """A gate for the time of a `with`; nothing is left behind."""
    sweep()
    made = Gate(topology, direction, **options)
    try:
        yield made
    finally:
        made.close()


def sweep() -> None:
    """Remove the pins of test runs that were killed."""
    for path in BPFFS.glob("yett-test-*"):
        owner = path.name.split("-")[2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            remove_tree(path)
