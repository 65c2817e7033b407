"""The sidecar engine as the agent sees it: ports for rulesets, and Envoy made to judge them.

Nothing of it exists until a ruleset needs it: no gate, no Envoy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from yett_loader.errors import LoaderError
from yett_loader.kernel import Program
from yett_loader.sidecar import accepted, gate
from yett_loader.sidecar.kept import Kept
from yett_loader.sidecar.listeners import RECORD_ALL, RUNTIME, listener, listener_name
from yett_loader.sidecar.places import Places, place
from yett_loader.sidecar.process import check_version, control, envoy, find_envoy, prepare, supervisor
from yett_loader.sidecar.routes import route_table
from yett_loader.sidecar.xds import Ads
from yett_policy.document import Direction, Snapshot

log = logging.getLogger(__name__)

LINGER = 30.0
"""Seconds that a listener stays when nothing is sent to it any more: its connections end first."""
_LISTENING = "0A"


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
    node: str = "node"
    outer: bool = False
    """Another process keeps Envoy: no child of ours does."""
    places: Places = field(default_factory=Places)
    problem: str = ""
    """Why it cannot run here."""
    _ads: Ads | None = None
    _saving: asyncio.Task[None] | None = None
    _recording: bool = False
    _envoy: Kept = field(init=False)
    _supervisor: Kept = field(init=False)
    _listeners: dict[str, Any] = field(default_factory=dict)
    _routes: dict[str, Any] = field(default_factory=dict)
    _tables: dict[tuple[str, int], Any] = field(default_factory=dict)
    """Digest and port -> table: the same object as long as it is the same."""
    _idle: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._envoy, self._supervisor = envoy(self.directory), supervisor(self.directory)
        self.places = _read(self.directory / "places.json")

    def plan(self, snapshot: Snapshot) -> Places:
        """Where the rulesets of `snapshot` are judged."""
        return place(snapshot, self.places)

    async def apply(self, snapshot: Snapshot, places: Places) -> Places:
        """Make Envoy judge them, and say which are: none where it cannot run.  SidecarNack if it refuses.

        An Envoy that is only not there yet is no error: its flows are refused until it comes.
        """
        if not places.ports and self._ads is None:
            return places
        try:
            ads = self._ads or await self._start()
        except LoaderError as error:
            self.problem = str(error)
            log.error("%s", error)  # noqa: TRY400 - one sentence is enough
            return Places()
        self.problem = ""
        specs = {item.digest: item.spec for item in snapshot.rulesets}
        listeners = {listener_name(port): _listener(port, d) for (_, d), port in places.ports.items()}
        tables = {
            (digest, port): self._tables.get((digest, port))
            or route_table(listener_name(port), specs[digest])
            for (digest, _), port in places.ports.items()
        }
        routes = {listener_name(port): table for (_, port), table in tables.items()}
        now = time.monotonic()
        for name in self._listeners.keys() - listeners.keys():
            if now - self._idle.setdefault(name, now) < LINGER:
                listeners[name], routes[name] = self._listeners[name], self._routes[name]
        self._idle = {name: since for name, since in self._idle.items() if name in listeners}
        for name in {listener_name(port) for port in places.ports.values()}:
            self._idle.pop(name, None)
        if await ads.publish(listeners, routes):
            if listeners.keys() != self._listeners.keys():
                await _listening(set(places.ports.values()))
        else:
            log.error("the sidecar does not answer: its flows are refused until it does")
        self._listeners, self._routes, self._tables = listeners, routes, tables
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
            "rulesets": {
                f"{digest}/{d.name.lower()}": port for (digest, d), port in self.places.ports.items()
            },
        }

    async def close(self) -> None:
        """The loader goes; Envoy stays, and judges on."""
        await self._supervisor.leave()
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        if self._ads is not None:
            await self._ads.stop()

    async def _start(self) -> Ads:
        if not self.outer:
            await asyncio.to_thread(check_version, find_envoy())
        ads, socket = Ads(self.record), control(self.directory)
        # pyroute2 runs an event loop of its own.
        index = await asyncio.to_thread(gate.make)
        gate.attach(index, self.program, self.pin)
        self.configure(index)
        await ads.start(socket)
        self._ads = ads
        self.observe(allowed=self._recording)
        prepare(self.directory, self.node)
        if not self.outer:
            self._supervisor.run()
        self._saving = asyncio.create_task(_save(ads, self.directory), name="accepted")
        return ads


async def _save(ads: Ads, directory: Path) -> None:
    """Keep what Envoy accepts for an Envoy that starts while we are gone."""
    async for state in ads.accepted():
        try:
            await asyncio.to_thread(accepted.write, directory, state)
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
