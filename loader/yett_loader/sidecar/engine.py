"""The sidecar engine as the agent sees it: ports for rulesets, and Envoy made to judge them.

Nothing of it exists until a ruleset needs it: no gate, no Envoy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import is_
from pathlib import Path
from typing import Any

from yett_loader import features
from yett_loader.doorbell import SETTINGS, Doorbell
from yett_loader.errors import LoaderError
from yett_loader.kernel import Program
from yett_loader.sidecar import accepted, gate
from yett_loader.sidecar.changes import asking, secret_name
from yett_loader.sidecar.counts import Counts
from yett_loader.sidecar.kept import Kept
from yett_loader.sidecar.listeners import RECORD_ALL, RUNTIME, listener, listener_name
from yett_loader.sidecar.places import Places, place
from yett_loader.sidecar.process import check_version, control, envoy, find_envoy, prepare, supervisor
from yett_loader.sidecar.routes import route_table
from yett_loader.sidecar.xds import ROUTES, Ads, SidecarNack
from yett_policy.document import Direction, Document, Ruleset, Snapshot
from yett_policy.evaluate import NO_SECRETS
from yett_policy.http.rule import RulesetSpec

log = logging.getLogger(__name__)

LINGER = 30.0
"""Seconds that a listener stays when nothing is sent to it any more: its connections end first."""
_LISTENING = "0A"
Json = dict[str, Any]
_Table = tuple[str, int, tuple[str, ...]]
"""Digest of a ruleset, port of its listener, secrets of its rules that are there."""


@dataclass(slots=True)
class Sidecar:
    """The engine of one node."""

    directory: Path
    """For its sockets and files; 0700."""
    program: Program
    """`gate`"""
    pin: Path
    """Of the gate's attachment."""
    configure: Callable[[int], None]
    """Tells the programs the gate's interface."""
    record: Callable[[str, Any], None]
    """Takes access records."""
    counts: Counts
    """Of what it has judged."""
    node: str = "node"
    outer: bool = False
    """Another process keeps Envoy: no child of ours does."""
    places: Places = field(default_factory=Places)
    problem: str = ""
    """Why it cannot run here."""
    refused: dict[_Table, str] = field(default_factory=dict)
    """Tables that Envoy does not take, and what it says."""
    _ads: Ads | None = None
    _saving: asyncio.Task[None] | None = None
    _settings: Doorbell | None = None
    _recording: bool = False
    _spread: bool = True
    _envoy: Kept = field(init=False)
    _supervisor: Kept = field(init=False)
    _listeners: dict[str, Any] = field(default_factory=dict)
    _routes: dict[str, Any] = field(default_factory=dict)
    _tables: dict[_Table, Any] = field(default_factory=dict)
    """The same object as long as it is the same."""
    _idle: dict[str, float] = field(default_factory=dict)
    _planned: tuple[tuple[Document, ...], tuple[Ruleset, ...], Places, Places] = field(
        default_factory=lambda: ((), (), Places(), Places())
    )
    """What `plan` was asked last (documents, rulesets, places before), and its answer."""
    _done: tuple[tuple[Ruleset, ...], Places, Mapping[str, str]] | None = None
    """What was applied last (rulesets, places, secrets), if there is no more to do about it."""

    def __post_init__(self) -> None:
        self._envoy, self._supervisor = envoy(self.directory), supervisor(self.directory)
        self.places = _read(self.directory / "places.json")

    def plan(self, snapshot: Snapshot) -> Places:
        """Where the rulesets of `snapshot` are judged."""
        asked = (snapshot.documents, snapshot.rulesets, self.places)
        if not all(map(is_, asked, self._planned[:3])):
            self._planned = (*asked, place(snapshot, self.places))
        return self._planned[3]

    async def _without_the_refused(
        self,
        ads: Ads,
        listeners: Json,
        routes: Json,
        tables: Mapping[_Table, Json],
        specs: Mapping[str, RulesetSpec],
        places: Places,
    ) -> tuple[bool, Json]:
        """Envoy refuses something: find the tables at fault, so that they hold back no others.

        SidecarNack if it is none of them.
        """
        changed = [key for key in tables if self._routes.get(listener_name(key[1])) != tables[key]]
        good = routes | self._stand_ins(changed, specs, places)
        answered = await ads.publish(listeners, good)
        for key in changed:
            name = listener_name(key[1])
            if key in self.refused:
                continue
            try:
                answered = await ads.publish(listeners, good | {name: tables[key]})
            except SidecarNack as error:
                self.refused[key] = str(error)
            else:
                good[name] = tables[key]
        # A refusal puts back what was published before it, which is without the table at fault.
        return answered, good

    def _stand_ins(
        self, keys: Iterable[_Table], specs: Mapping[str, RulesetSpec], places: Places
    ) -> dict[str, Json]:
        """In the place of tables that Envoy refuses: the last good one for the same entries, else one that
        denies everything.
        """
        found = {}
        for digest, port, _ in keys:
            name = listener_name(port)
            same = places.entries_of(port) == self.places.entries_of(port)
            nothing = replace(specs[digest], rules=(), audit=False)
            kept = self._routes.get(name) if same else None
            found[name] = kept or route_table(name, nothing)
        return found

    def problem_of(self, digest: str) -> str:
        """Why the ruleset is not in force; empty if it is."""
        if self.problem:
            return self.problem
        return next((said for (refused, *_), said in self.refused.items() if refused == digest), "")

    async def apply(
        self, snapshot: Snapshot, places: Places, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Places:
        """Make Envoy judge them, and say which are: none where it cannot run.  SidecarNack if it refuses.

        An Envoy that is only not there yet is no error: its flows are refused until it comes.
        """
        if not places.ports and self._ads is None:
            return places
        if self._done and self._done[0] is snapshot.rulesets and self._done[1:] == (places, secrets):
            return places
        self._done = None
        try:
            ads = self._ads or await self._start()
        except LoaderError as error:
            self.problem = str(error)
            log.error("%s", error)  # noqa: TRY400 - one sentence is enough
            return Places()
        self.problem = ""
        specs = {item.digest: item.spec for item in snapshot.rulesets}
        listeners = {
            listener_name(port): _listener(port, d, self._spread) for (_, d), port in places.ports.items()
        }
        there = {
            digest: tuple(name for name in spec.secrets if name in secrets) for digest, spec in specs.items()
        }
        tables = {
            (digest, port, there[digest]): self._tables.get((digest, port, there[digest]))
            or route_table(listener_name(port), specs[digest], there[digest], direction)
            for (digest, direction), port in places.ports.items()
        }
        routes = {listener_name(port): table for (_, port, _), table in tables.items()}
        self.refused = {key: said for key, said in self.refused.items() if key in tables}
        now = time.monotonic()
        for name in self._listeners.keys() - listeners.keys():
            if now - self._idle.setdefault(name, now) < LINGER:
                listeners[name], routes[name] = self._listeners[name], self._routes[name]
        self._idle = {name: since for name, since in self._idle.items() if name in listeners}
        for name in {listener_name(port) for port in places.ports.values()}:
            self._idle.pop(name, None)
        routes |= self._stand_ins(tables.keys() & self.refused.keys(), specs, places)
        ads.give({secret_name(name): value for name, value in secrets.items()})
        wanted = listeners | asking(secrets)
        try:
            answered = await ads.publish(wanted, routes)
        except SidecarNack:
            answered, routes = await self._without_the_refused(ads, wanted, routes, tables, specs, places)
        if answered:
            if listeners.keys() != self._listeners.keys():
                await _listening(set(places.ports.values()))
        else:
            log.error("the sidecar does not answer: its flows are refused until it does")
        self._listeners, self._routes, self._tables = listeners, routes, tables
        if answered and not self._idle and not self.refused:
            self._done = (snapshot.rulesets, places, dict(secrets))
        if places != self.places:
            self.places = places
            _write(self.directory / "places.json", places)
        return places

    def observe(self, *, allowed: bool) -> None:
        """Whether Envoy sends records of what is allowed, too."""
        self._recording = allowed
        if self._ads is not None:
            self._ads.set(RUNTIME, {RECORD_ALL: 100 if allowed else 0})

    @property
    def status(self) -> dict[str, object]:
        """For the API."""
        return {
            "problem": self.problem,
            "running": self._envoy.pid,
            "connected": bool(self._ads and self._ads.connected),
            "nacks": self._ads.nacks if self._ads else 0,
            "records": self._ads.records if self._ads else 0,
            "refused": {digest: said for (digest, *_), said in self.refused.items()},
            "rulesets": {
                f"{digest}/{d.name.lower()}": port for (digest, d), port in self.places.ports.items()
            },
        }

    async def close(self) -> None:
        """The loader goes; Envoy stays, and judges on."""
        self.counts.save()
        await self._supervisor.leave()
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        if self._settings is not None:
            self._settings.close()
        if self._ads is not None:
            await self._ads.stop()

    async def _start(self) -> Ads:
        if not self.outer:
            await asyncio.to_thread(check_version, find_envoy())
        ads, socket = Ads(self.record), control(self.directory)
        self._spread = features.has(features.TCX) is not False  # both came with Linux 6.6
        # pyroute2 runs an event loop of its own.
        index = await asyncio.to_thread(gate.make)
        gate.attach(index, self.program, self.pin)
        self.configure(index)
        # What an earlier loader had published: tables to stand in for those that Envoy refuses.
        self._routes = dict((accepted.read(self.directory) or {}).get(ROUTES, {}))
        await ads.start(socket)
        self._ads = ads
        self._settings = Doorbell(_settle, what=SETTINGS)
        _settle()  # what changed before it was heard
        self.observe(allowed=self._recording)
        prepare(self.directory, self.node)
        if not self.outer:
            self._supervisor.run()
        self._saving = asyncio.create_task(_save(ads, self.directory), name="accepted")
        return ads


def _settle() -> None:
    try:
        gate.settle()
    except LoaderError as error:
        log.error("%s", error)  # noqa: TRY400 - one sentence is enough


async def _save(ads: Ads, directory: Path) -> None:
    """Keep what Envoy accepts for an Envoy that starts while we are gone."""
    known = accepted.texts()
    async for state in ads.accepted():
        try:
            await asyncio.to_thread(accepted.write, directory, state, known)
        except OSError as error:
            log.error("cannot keep what Envoy has accepted: %s", error.strerror)  # noqa: TRY400 - one sentence


_listener = cache(listener)


async def _listening(ports: set[int], seconds: float = 2.0) -> None:
    """Wait until they are open: Envoy accepts a listener a moment before it listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ports <= open_ports():
            return
        await asyncio.sleep(0.005)


def open_ports() -> set[int]:
    """TCP ports (IPv4) that something listens on."""
    rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == _LISTENING}


def _read(path: Path) -> Places:
    """What an earlier loader gave; nothing if that is lost (then connections begin anew)."""
    try:
        ports, entries = json.loads(path.read_text())
        return Places(
            {(digest, Direction(direction)): port for digest, direction, port in ports},
            {tuple(key): port for key, port in entries},
        )
    except (OSError, ValueError, TypeError):
        return Places()


def _write(path: Path, places: Places) -> None:
    ports = [[digest, direction, port] for (digest, direction), port in sorted(places.ports.items())]
    new = path.with_suffix(".new")
    new.write_text(json.dumps([ports, sorted(places.entries.items())]))
    new.replace(path)
