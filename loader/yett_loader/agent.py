"""What this node enforces: the newest snapshot in, plan, apply, remember.

The agent is the only writer of the maps while it runs (it holds the lock of the pins).  When it
goes, by SIGTERM or SIGKILL, everything stays in force; when it comes back it takes over what
is pinned and applies the last good snapshot, which changes no verdict.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from yett_loader import discovery
from yett_loader.aside import aside
from yett_loader.assign import Assignment, Crowded, Numbers, assign, check_room, moved, rules_in
from yett_loader.datapath import Datapath
from yett_loader.encode import Encoder
from yett_loader.endpoint import LocalEndpoint
from yett_loader.enforce import Enforcer
from yett_loader.errors import LoaderError, SnapshotError
from yett_loader.interfaces import Interfaces, present_of
from yett_loader.kernel import abi
from yett_loader.memo import Memo
from yett_loader.metrics import Counter, add, read_counters, read_hits
from yett_loader.names import Names, Pods, names_of
from yett_loader.plan import GRACE, drops, is_same, plan
from yett_loader.retirement import Retirement
from yett_loader.sidecar.engine import Sidecar
from yett_loader.sidecar.places import Places
from yett_loader.snapshot import Wanted
from yett_loader.state import DropEndpoint, MapOp, MapState, SetEpoch, after, reached
from yett_loader.store import Store, load_or_default
from yett_policy.document import Engine, Ruleset

log = logging.getLogger(__name__)

RECORD_ALLOWED = abi.number("CONFIG_RECORD_ALLOWED")
DROPPED_AT_ONCE = 16
"""Retired policies and rulesets, before a change may have its turn."""


def fill(datapath: Datapath, store: Store, own: Collection[str]) -> None:
    """Write the last good snapshot into new, empty maps, for the interfaces governed now.

    `own` are the node's addresses.
    Without one the maps stay empty and everything is denied until a snapshot comes.
    """
    try:
        wanted = store.load_snapshot()
    except SnapshotError as error:
        log.error("the last snapshot is damaged, everything is denied: %s", error)  # noqa: TRY400
        return
    if wanted is None:
        return
    governed, enforcer = set(datapath.attached()), Enforcer(datapath.maps)
    assignment = assign(wanted.snapshot, Assignment(), MapState(), enforcer.limits)
    endpoints = [item for item in wanted.endpoints if item.ifindex in governed]
    enforcer.tables = tables_of(wanted.snapshot.rulesets, assignment)
    want = Encoder().encode(wanted.snapshot, endpoints, assignment, own=own, local=wanted.endpoints)
    enforcer.apply(plan(MapState(), want))
    store.save_assignment(assignment)


def tables_of(rulesets: Iterable[Ruleset], assignment: Assignment) -> dict[int, bytes]:
    """Tables by handle, of what the kernel runs."""
    return {
        assignment.rulesets[item.digest].handle: item.tables
        for item in rulesets
        if item.engine is Engine.KERNEL
    }


@dataclass(frozen=True, slots=True)
class Applied:
    """What one application did."""

    changes: int
    epoch: int
    seconds: float
    digest: str
    """Of the snapshot and the endpoints with their interfaces, as kept on disk: equal ones have equal digests."""
    waiting: Mapping[str, str]
    """Endpoint name -> why its interface is not known yet."""


@dataclass(slots=True)
class Agent:
    """The node's state, and the steps that change it.  Everything runs on one event loop."""

    datapath: Datapath
    store: Store
    sidecar: Sidecar | None = None
    """Judges what the kernel cannot; without one that is denied."""
    wanted: Wanted | None = None
    assignment: Assignment = field(default_factory=Assignment)
    applied: Applied | None = None
    applied_at: float = 0
    """Seconds since the epoch."""
    error: str = ""
    """Why the last thing wanted is not in force; empty if it is."""
    interfaces: Interfaces = field(init=False)
    names: Names = field(default_factory=Names)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    """Called whenever what is in force, or what keeps it from being so, may have changed."""
    _enforcer: Enforcer = field(init=False)
    _own: frozenset[str] | None = None
    """Addresses of the node itself; None: not looked up yet."""
    _asked: tuple[LocalEndpoint, ...] | None = None
    """Endpoints as they were handed over with what is wanted; None: look at the interfaces."""
    _have: MapState | None = None
    _unsure: bool = True
    """An epoch may be due: we start, or something failed half-way."""
    _retirement: Retirement = field(default_factory=Retirement)
    _encoder: Encoder = field(default_factory=Encoder)
    _numbers: Numbers = field(default_factory=lambda: Memo(rules_in))
    _pods: Pods = field(default_factory=Pods)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._enforcer = Enforcer(self.datapath.maps)
        self.interfaces = Interfaces(self.datapath)

    @property
    def waiting(self) -> Mapping[str, str]:
        """Endpoint name -> why its interface is not known yet, or not governed."""
        return self.interfaces.waiting

    # -- beginning ------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what is pinned; apply the last good snapshot if there is one."""
        self.store.prepare()
        self.assignment, problem = load_or_default(self.store)
        if problem:
            log.warning("giving new numbers: %s", problem)
        try:
            wanted = self.store.load_snapshot()
        except SnapshotError as error:
            self.error = f"the last snapshot is damaged, what is pinned stays in force: {error}"
            log.error("%s", self.error)  # noqa: TRY400 - the message says it all
            return
        if wanted is not None:
            governed = frozenset(self.datapath.attached())
            present = present_of(replace(wanted, secrets=self.store.load_secrets()), governed)
            for item in present.endpoints:
                if item.ifindex is None:
                    self.interfaces.lost.add(item)
            await self.apply(present)

    # -- changes --------------------------------------------------------------------------

    async def apply(self, wanted: Wanted) -> Applied:
        """Put a snapshot in force.  If that fails, what was applied before stays wanted.

        If changes come so fast that there is no room for what is new beside what is retired, it waits for that to go.
        """
        while True:
            async with self._turn:
                try:
                    applied = await self._apply(wanted, look=self._must_look(wanted))
                    self._asked = wanted.endpoints
                except (LoaderError, OSError) as error:
                    rest = self._rest() if isinstance(error, Crowded) else None
                    if rest is None:
                        self.error = str(error)
                        raise
                    log.info("%.1f s until there is room: %s", rest, error)
                else:
                    self.error = ""
                    return applied
                finally:
                    self._tell()
            await asyncio.sleep(rest)
            await self._drop_retired()

    async def refresh(self) -> None:
        """Look at the interfaces again: pods that came, pods that went."""
        try:
            # Before our turn: no change waits for it.
            own = await asyncio.to_thread(discovery.node_addresses)
            there = await asyncio.to_thread(discovery.pod_interfaces)
            async with self._turn:
                await self._refresh(own, there)
        except (LoaderError, OSError) as error:
            self.error = str(error)
            log.error("%s", error)  # noqa: TRY400 - one sentence is what an administrator needs
        finally:
            self._tell()

    async def tidy(self) -> None:
        """What can wait: attach again what somebody has detached; drop what was retired long enough ago, some
        at a time, so that no change waits for all of it.
        """
        if self.sidecar:
            self.sidecar.counts.save()
        await asyncio.to_thread(self.store.tidy)
        async with self._turn:
            try:
                await self.interfaces.mend(self.wanted.endpoints if self.wanted else ())
            except (LoaderError, OSError) as error:
                log.warning("cannot look at what is attached: %s", error)
        await self._drop_retired()

    async def _drop_retired(self) -> None:
        while True:
            async with self._turn:
                # Not while we are unsure: the next application comes first.
                due = self._retirement.due(time.monotonic(), GRACE)
                ops = () if self._unsure else drops(due)[:DROPPED_AT_ONCE]
                if not ops:
                    return
                try:
                    await self._run(ops)
                except (LoaderError, OSError) as error:
                    log.warning("cannot drop what is retired: %s", error)
                    return
                self._have = after(self.have(), *ops)
                self._retirement.forget(self._have)

    def _rest(self) -> float | None:
        """Seconds until something retired may be dropped; None: nothing will be."""
        if self._unsure:
            return None
        return self._retirement.rest(time.monotonic(), GRACE)

    def observe(self, *, allowed: bool) -> None:
        """Whether records are written for what is allowed, too."""
        flags = self._enforcer.config()["flags"]
        if bool(flags & RECORD_ALLOWED) != allowed:
            self._enforcer.configure(flags=flags | RECORD_ALLOWED if allowed else flags & ~RECORD_ALLOWED)
        if self.sidecar:
            self.sidecar.observe(allowed=allowed)

    def set_gate(self, ifindex: int) -> None:
        """The interface that leads to the sidecar."""
        self._enforcer.configure(gate=ifindex)

    @property
    def records_allowed(self) -> bool:
        """As `observe` has set it."""
        return bool(self._enforcer.config()["flags"] & RECORD_ALLOWED)

    # -- reading --------------------------------------------------------------------------

    def have(self) -> MapState:
        """What the maps hold, read from the kernel if we are not sure."""
        if self._have is None:
            self._have = self._enforcer.read_state()
        return self._have

    def counters(self) -> list[Counter]:
        """Verdicts by direction and reason, of both engines."""
        counted = read_counters(self.datapath.maps["metrics"])
        return add(counted, self.sidecar.counts.requests) if self.sidecar else counted

    def hits(self) -> dict[str, int]:
        """Rule reference -> verdicts that it decided, of both engines."""
        maps = self.datapath.maps
        found = read_hits(maps["rule_hits"], self.assignment.names) if "rule_hits" in maps else {}
        for rule, count in self.sidecar.counts.rules.items() if self.sidecar else ():
            found[rule] = found.get(rule, 0) + count
        return found

    def preview(self, wanted: Wanted) -> tuple[MapOp, ...]:
        """The changes that `wanted` would make, with interfaces as far as they are known."""
        places = self.sidecar.plan(wanted.snapshot) if self.sidecar else Places()
        _, want = self._encode(wanted, wanted.endpoints, places)
        return plan(self.have(), want, self._enforcer.limits.policies)

    def endpoint(self, name: str) -> LocalEndpoint | None:
        """By namespace/pod, or by pod name where that is unambiguous."""
        known = self.wanted.endpoints if self.wanted else ()
        exact = [item for item in known if item.name == name]
        loose = [item for item in known if item.pod == name]
        return exact[0] if exact else loose[0] if len(loose) == 1 else None

    # -- inside ---------------------------------------------------------------------------

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    def _must_look(self, wanted: Wanted) -> bool:
        """Whether `wanted` takes a look at the interfaces: not if its endpoints are those of the last
        application, and each had its interface.

        That one of these has gone since, `refresh` finds out: nothing here could give its number to another.
        That somebody took our programs off one, `tidy` does.
        """
        return self._unsure or not self.interfaces.settled or wanted.endpoints != self._asked

    async def _located(self, wanted: Wanted, *, look: bool) -> tuple[LocalEndpoint, ...]:
        before = self.wanted.endpoints if self.wanted else ()
        if not look:
            return before
        self._asked = None
        governed = self._forget_interfaces()
        if self._own is None:
            self._own = await asyncio.to_thread(discovery.node_addresses)
        there = await asyncio.to_thread(discovery.pod_interfaces)
        return await self.interfaces.locate(wanted, before, governed, there)

    async def _refresh(self, own: frozenset[str], there: frozenset[int]) -> None:
        governed = self._forget_interfaces()
        if self.wanted is None:
            return
        endpoints, before = self.wanted.endpoints, self._own
        present = present_of(self.wanted, governed)
        self._own = own
        if (
            self._unsure
            or self._own != before
            or await self.interfaces.locate(present, endpoints, governed, there) != endpoints
        ):
            try:
                await self._apply(present, look=True)
            except BaseException:
                self._own = before  # so that the next look tries again
                raise
            self.error = ""

    async def _apply(self, wanted: Wanted, *, look: bool) -> Applied:
        begin = time.monotonic()
        located = await self._located(wanted, look=look)
        planned = places = self.sidecar.plan(wanted.snapshot) if self.sidecar else Places()
        # All of it must fit before anything is touched; an endpoint that is not attached is not put.
        assignment, want = self._encode(wanted, located, places)
        if self.sidecar:
            # Before the maps: what they redirect finds its rules in force.
            places = await self.sidecar.apply(wanted.snapshot, places, wanted.secrets)
        endpoints = await self.interfaces.govern(located) if look else located
        if places is not planned or endpoints != located:
            assignment, want = self._encode(wanted, endpoints, places)
        ops = plan(self.have(), want, self._enforcer.limits.policies)
        if self._unsure and not any(isinstance(op, SetEpoch) for op in ops):
            ops = (*ops, SetEpoch((self.have().epoch + 1) & 0xFFFFFFFF))
        self._give(assignment)
        await self._run(ops, wanted.snapshot.rulesets)
        self._have = reached(self.have(), want, ops)
        current = replace(wanted, endpoints=endpoints)
        digest = self.store.save_snapshot(current)
        kept = self.store.load_secrets() if self.wanted is None else self.wanted.secrets
        if current.secrets != kept:
            self.store.save_secrets(current.secrets)
        self.wanted = current
        self._retirement.note(self._have, want, begin)
        self.names = names_of(
            wanted.snapshot,
            endpoints,
            assignment.names,
            {place.state.id: digest for digest, place in assignment.rulesets.items()},
            {port: digest for (digest, _), port in places.ports.items()},
            self._pods,
        )
        self.applied = Applied(
            len(ops), self._have.epoch, time.monotonic() - begin, digest, dict(self.waiting)
        )
        self.applied_at = time.time()
        return self.applied

    def _encode(
        self, wanted: Wanted, endpoints: Iterable[LocalEndpoint], places: Places
    ) -> tuple[Assignment, MapState]:
        have, limits, snapshot, local = self.have(), self._enforcer.limits, wanted.snapshot, tuple(endpoints)

        def encoded(assignment: Assignment) -> MapState:
            return self._encoder.encode(
                snapshot, local, assignment, places.ports, self._own or (), wanted.endpoints
            )

        assignment = assign(snapshot, self.assignment, have, limits, self._numbers)
        want = encoded(assignment)
        taken = [
            digest
            for digest, slot in assignment.documents.items()
            if slot in have.policies and not is_same(have.policies[slot], want.policies[slot])
        ]
        if taken:
            assignment = moved(assignment, taken, have, limits)
            want = encoded(assignment)
        check_room(want, limits)
        return assignment, want

    def _give(self, assignment: Assignment) -> None:
        """Remember numbers.  Before the maps: those that reached the kernel must be known after a crash."""
        if assignment == self.assignment:
            return
        self.store.save_assignment(assignment)
        self._enforcer.forget_hits(
            number for number, name in assignment.names.items() if self.assignment.names.get(number) != name
        )
        self.assignment = assignment

    async def _run(self, ops: tuple[MapOp, ...], rulesets: Iterable[Ruleset] = ()) -> None:
        """Apply, aside: many changes take a while, and records must be read meanwhile."""
        if not ops:
            return
        self._enforcer.tables = tables_of(rulesets, self.assignment)
        self._unsure = True
        try:
            await aside(lambda: self._enforcer.apply(ops))
        except BaseException:
            self._have = None  # somewhere between: the kernel knows
            raise
        self._unsure = False
        self._enforcer.tables = {}

    def _forget_interfaces(self) -> frozenset[int]:
        """Interfaces that are gone: their entries and flows must not greet whoever gets their number.

        Those that are governed now.
        """
        governed = frozenset(self.datapath.attached())
        gone = sorted(self.have().endpoints.keys() - governed)
        if gone:
            ops = tuple(map(DropEndpoint, gone))
            self._enforcer.apply(ops)
            self._have = after(self.have(), *ops)
        return governed
