"""What this node enforces: the newest snapshot in, plan, apply, remember.

The agent is the only writer of the maps while it runs (it holds the lock of the pins).  When it
goes, by SIGTERM or SIGKILL, everything stays in force; when it comes back it takes over what
is pinned and applies the last good snapshot, which changes no verdict.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from yett_loader import discovery
from yett_loader.assign import Assignment, MapFull, assign, moved
from yett_loader.datapath import Datapath
from yett_loader.discovery import Found, NotFound
from yett_loader.encode import encode
from yett_loader.endpoint import LocalEndpoint
from yett_loader.enforce import Enforcer
from yett_loader.errors import KernelError, LoaderError, SnapshotError
from yett_loader.host import with_host
from yett_loader.kernel import abi
from yett_loader.lost import Lost
from yett_loader.metrics import Counter, add, read_counters, read_hits
from yett_loader.names import Names, names_of
from yett_loader.newcomers import Newcomers
from yett_loader.plan import GRACE, NOTHING, Retired, plan, retired
from yett_loader.sidecar.engine import Sidecar
from yett_loader.sidecar.places import Places
from yett_loader.snapshot import Wanted, to_bytes
from yett_loader.state import DropEndpoint, MapOp, MapState, SetEpoch, after
from yett_loader.store import Store, load_or_default
from yett_policy.document import Document, Engine, Ruleset, Snapshot
from yett_policy.reason import Reason

log = logging.getLogger(__name__)

RECORD_ALLOWED = abi.number("CONFIG_RECORD_ALLOWED")


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
    snapshot = with_host(wanted.snapshot, wanted.endpoints, own)
    enforcer.apply(plan(MapState(), encode(snapshot, endpoints, assignment)))
    store.save_assignment(assignment)


def tables_of(rulesets: Iterable[Ruleset], assignment: Assignment) -> dict[int, bytes]:
    """Tables by handle, of what the kernel runs."""
    return {
        assignment.rulesets[item.digest].handle: item.tables
        for item in rulesets
        if item.engine is Engine.KERNEL
    }


def is_selected(document: Document) -> bool:
    """Whether some policy has a word on it."""
    return any(entry.reason is not Reason.NOT_ENFORCED for entry in document.entries)


@dataclass(frozen=True, slots=True)
class Applied:
    """What one application did."""

    changes: int
    epoch: int
    seconds: float
    digest: str
    """Of the snapshot and the endpoints with their interfaces, as kept on disk."""
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
    waiting: dict[str, str] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)
    newcomers: Newcomers = field(default_factory=Newcomers)
    names: Names = field(default_factory=Names)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    """Called whenever what is in force, or what keeps it from being so, may have changed."""
    _enforcer: Enforcer = field(init=False)
    _own: frozenset[str] | None = None
    """Addresses of the node itself; None: not looked up yet."""
    _digest: str = ""
    _have: MapState | None = None
    _unsure: bool = True
    """An epoch may be due: we start, or something failed half-way."""
    _idle_since: dict[tuple[str, int], float] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._enforcer = Enforcer(self.datapath.maps)

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
            present = self._present(replace(wanted, secrets=self.store.load_secrets()))
            for item in present.endpoints:
                if item.ifindex is None:
                    self.lost.add(item)
            await self.apply(present)

    # -- changes --------------------------------------------------------------------------

    async def apply(self, wanted: Wanted) -> Applied:
        """Put a snapshot in force.  If that fails, what was applied before stays wanted."""
        async with self._turn:
            try:
                applied = await self._apply(wanted)
            except (LoaderError, OSError) as error:
                self.error = str(error)
                raise
            else:
                self.error = ""
                return applied
            finally:
                self._tell()

    async def refresh(self) -> None:
        """Look at the interfaces again: pods that came, pods that went."""
        async with self._turn:
            try:
                self._forget_interfaces()
                if self.wanted is None:
                    return
                present, before = self._present(self.wanted), self._own
                self._own = await asyncio.to_thread(discovery.node_addresses)
                if (
                    self._unsure
                    or self._own != before
                    or await self._locate(present) != self.wanted.endpoints
                ):
                    try:
                        await self._apply(present)
                    except BaseException:
                        self._own = before  # so that the next look tries again
                        raise
                    self.error = ""
            except (LoaderError, OSError) as error:
                self.error = str(error)
                log.error("%s", error)  # noqa: TRY400 - one sentence is what an administrator needs
            finally:
                self._tell()

    async def tidy(self) -> None:
        """Drop what was retired long enough ago."""
        if self.sidecar:
            self.sidecar.counts.save()
        async with self._turn:
            if self.wanted is None or not self._expired(time.monotonic()):
                return
            with suppress(LoaderError, OSError):
                await self._apply(self.wanted)

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
        return plan(self.have(), want, NOTHING, self._enforcer.limits.policies)

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

    def _present(self, wanted: Wanted) -> Wanted:
        """Without interfaces that we do not govern: their number may have a new owner by now."""
        governed = set(self.datapath.attached())
        return replace(
            wanted,
            endpoints=tuple(
                item if item.ifindex in governed else replace(item, ifindex=None) for item in wanted.endpoints
            ),
        )

    async def _apply(self, wanted: Wanted) -> Applied:
        begin = time.monotonic()
        self._forget_interfaces()
        located = await self._locate(wanted)
        if self._own is None:
            self._own = await asyncio.to_thread(discovery.node_addresses)
        places = self.sidecar.plan(wanted.snapshot) if self.sidecar else Places()
        # All of it must fit before anything is touched; an endpoint that is not attached is not put.
        self._encode(wanted, located, places)
        if self.sidecar:
            # Before the maps: what they redirect finds its rules in force.
            places = await self.sidecar.apply(wanted.snapshot, places, wanted.secrets)
        endpoints = tuple(map(self._attached, located))
        assignment, want = self._encode(wanted, endpoints, places)
        expired = self._expired(begin)
        ops = plan(self.have(), want, expired, self._enforcer.limits.policies)
        if self._unsure and not any(isinstance(op, SetEpoch) for op in ops):
            ops = (*ops, SetEpoch((self.have().epoch + 1) & 0xFFFFFFFF))
        if assignment != self.assignment:
            # Before the maps: numbers that reached the kernel must be known after a crash.
            self.store.save_assignment(assignment)
            self._enforcer.forget_hits(
                number
                for number, name in assignment.names.items()
                if self.assignment.names.get(number) != name
            )
            self.assignment = assignment
        await self._run(ops, wanted.snapshot.rulesets)
        current = replace(wanted, endpoints=endpoints)
        if current != self.wanted:
            body = to_bytes(current)
            self.store.save_snapshot(body)
            self._digest = hashlib.sha256(body).hexdigest()
        kept = self.store.load_secrets() if self.wanted is None else self.wanted.secrets
        if current.secrets != kept:
            self.store.save_secrets(current.secrets)
        self.wanted = current
        self._note_retired(want, begin)
        self.names = names_of(
            wanted.snapshot,
            endpoints,
            assignment.names,
            {place.state.id: digest for digest, place in assignment.rulesets.items()},
            {port: digest for (digest, _), port in places.ports.items()},
        )
        self.applied = Applied(
            len(ops), self.have().epoch, time.monotonic() - begin, self._digest, dict(self.waiting)
        )
        self.applied_at = time.time()
        return self.applied

    def _encode(
        self, wanted: Wanted, endpoints: Iterable[LocalEndpoint], places: Places
    ) -> tuple[Assignment, MapState]:
        have, limits = self.have(), self._enforcer.limits
        local = tuple(endpoints)
        snapshot = with_host(wanted.snapshot, wanted.endpoints, self._own or ())
        assignment = assign(snapshot, self.assignment, have, limits)
        want = encode(snapshot, local, assignment, places.ports)
        taken = [
            digest
            for digest, slot in assignment.documents.items()
            if slot in have.policies and have.policies[slot] != want.policies[slot]
        ]
        if taken:
            assignment = moved(assignment, taken, have, limits)
            want = encode(snapshot, local, assignment, places.ports)
        if len(want.endpoints) > limits.endpoints:
            raise MapFull(
                f"cannot place {len(want.endpoints)} endpoints: map endpoints holds {limits.endpoints}; raise "
                "the size of endpoints and reload (`yett-loader unload`, `load`)"
            )
        return assignment, want

    async def _run(self, ops: tuple[MapOp, ...], rulesets: Iterable[Ruleset]) -> None:
        """Apply, in a thread: many changes take a while, and records must be read meanwhile."""
        self._enforcer.tables = tables_of(rulesets, self.assignment)
        have = self.have()
        self._unsure = True
        work = asyncio.create_task(asyncio.to_thread(self._enforcer.apply, ops))
        try:
            await asyncio.shield(work)
        except BaseException:
            await asyncio.wait([work])  # we may be cancelled, the thread not: the maps must stay open for it
            self._have = None  # somewhere between: the kernel knows
            raise
        self._have = after(have, *ops)
        self._unsure = False
        self._enforcer.tables = {}

    async def _locate(self, wanted: Wanted) -> tuple[LocalEndpoint, ...]:
        """Each endpoint with its interface: as told, as found before, or found now.

        Whoever is behind the addresses of one that was lost is governed, and denied everything.
        """
        existing = discovery.interfaces()
        governed = set(self.datapath.attached())
        before = {item.name: item for item in (self.wanted.endpoints if self.wanted else ())}
        known = []
        for item in wanted.endpoints:
            old = before.get(item.name)
            if old and old.ifindex is not None and old.ifindex not in existing:
                self.lost.add(old)
            if item.ifindex is not None and item.ifindex not in existing:
                known.append(replace(item, ifindex=None))
            elif item.ifindex is None and old and old.addresses == item.addresses and old.ifindex in governed:
                known.append(replace(item, ifindex=old.ifindex))
            else:
                known.append(item)
        self.lost.keep(known)
        results = await asyncio.to_thread(discovery.find_all, known)
        taken = {item.ifindex for item in known if item.ifindex is not None}
        self.waiting = {}
        held = {item.name for item in known if item.ifindex is None and self.lost.holds(item)}
        # Those last: what is behind their addresses may be another endpoint's.
        for index, item in sorted(enumerate(known), key=lambda pair: pair[1].name in held):
            match results.get(item.name):
                case Found(ifindex, ifname) if ifindex in taken:
                    self.waiting[item.name] = f"interface {ifname} belongs to another endpoint"
                case Found(ifindex, ifname) if item.name in held:
                    self._attached(replace(item, ifindex=ifindex))
                    self.waiting.setdefault(
                        item.name,
                        f"its interface is gone, and {ifname} with its address is denied everything until "
                        "the operator has had time to say whose it is",
                    )
                case Found(ifindex):
                    known[index] = replace(item, ifindex=ifindex)
                    taken.add(ifindex)
                case NotFound(reason):
                    self.waiting[item.name] = reason
        if self.lost.told is not None:
            await self._hold_newcomers(wanted.snapshot, known, told=self.lost.told())
        return tuple(known)

    async def _hold_newcomers(
        self, snapshot: Snapshot, known: Iterable[LocalEndpoint], *, told: bool
    ) -> None:
        """Govern interfaces that may be those of pods on their way, and let go of those that are not."""
        coming = {item.identity for item in known if item.ifindex is None}
        taken = {item.ifindex for item in known} | (set(self.datapath.attached()) - self.newcomers.held)
        interfaces = await asyncio.to_thread(discovery.pod_interfaces)
        expecting = any(item.identity in coming and is_selected(item) for item in snapshot.documents)
        new, old = self.newcomers.look(interfaces - taken, expecting=expecting, told=told)
        for ifindex in new:
            try:
                self.datapath.attach(ifindex)
            except KernelError as error:  # gone again, perhaps
                log.warning("interface %d is not governed: %s", ifindex, error)
        for ifindex in old:
            self.datapath.detach(ifindex)

    def _attached(self, endpoint: LocalEndpoint) -> LocalEndpoint:
        """The endpoint, governed; without its interface if that is not to be had."""
        if endpoint.ifindex is None:
            return endpoint
        try:
            self.datapath.attach(endpoint.ifindex)
        except KernelError as error:
            # One odd interface must not keep the others from their policies.
            self.waiting[endpoint.name] = str(error)
            log.error("%s is not governed: %s", endpoint.name, error)  # noqa: TRY400 - the sentence is enough
            return replace(endpoint, ifindex=None)
        return endpoint

    def _forget_interfaces(self) -> None:
        """Interfaces that are gone: their entries and flows must not greet whoever gets their number."""
        governed = set(self.datapath.attached())
        gone = sorted(self.have().endpoints.keys() - governed)
        if gone:
            ops = tuple(map(DropEndpoint, gone))
            self._enforcer.apply(ops)
            self._have = after(self.have(), *ops)

    # -- what is retired ------------------------------------------------------------------

    def _note_retired(self, want: MapState, now: float) -> None:
        rest = retired(self.have(), want)
        keys = {("ruleset", number) for number in rest.rulesets} | {("policy", n) for n in rest.policies}
        self._idle_since = {key: self._idle_since.get(key, now) for key in keys}

    def _expired(self, now: float) -> Retired:
        old = {key for key, since in self._idle_since.items() if now - since >= GRACE}
        return Retired(
            frozenset(number for kind, number in old if kind == "ruleset"),
            frozenset(number for kind, number in old if kind == "policy"),
        )
