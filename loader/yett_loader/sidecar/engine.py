"""The sidecar engine as the agent sees it: ports for rulesets, and Envoy made to judge them.

Nothing of it exists until a ruleset needs it: no gate, no Envoy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yett_loader.errors import LoaderError
from yett_loader.kernel import Program
from yett_loader.sidecar import gate
from yett_loader.sidecar.changes import asking, secret_name
from yett_loader.sidecar.listeners import bootstrap, listener, listener_name
from yett_loader.sidecar.places import Places, place
from yett_loader.sidecar.process import Envoy
from yett_loader.sidecar.routes import route_table
from yett_loader.sidecar.xds import Ads
from yett_policy.document import Direction, Snapshot
from yett_policy.evaluate import NO_SECRETS

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
    places: Places = field(default_factory=Places)
    problem: str = ""
    """Why it cannot run here."""
    _ads: Ads | None = None
    _envoy: Envoy = field(init=False)
    _listeners: dict[str, Any] = field(default_factory=dict)
    _routes: dict[str, Any] = field(default_factory=dict)
    _idle: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._envoy = Envoy(self.directory)
        self.places = _read(self.directory / "places.json")

    def plan(self, snapshot: Snapshot) -> Places:
        """Where the rulesets of `snapshot` are judged."""
        return place(snapshot, self.places)

    async def apply(
        self, snapshot: Snapshot, places: Places, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Places:
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
        listeners = {listener_name(port): listener(port, d) for (_, d), port in places.ports.items()}
        routes = {
            listener_name(port): route_table(listener_name(port), specs[digest], secrets)
            for (digest, _), port in places.ports.items()
        }
        now = time.monotonic()
        for name in self._listeners.keys() - listeners.keys():
            if now - self._idle.setdefault(name, now) < LINGER:
                listeners[name], routes[name] = self._listeners[name], self._routes[name]
        self._idle = {name: since for name, since in self._idle.items() if name in listeners}
        for name in {listener_name(port) for port in places.ports.values()}:
            self._idle.pop(name, None)
        ads.give({secret_name(name): value for name, value in secrets.items()})
        if await ads.publish(listeners | asking(secrets), routes):
            await _listening(set(places.ports.values()))
        else:
            log.error("the sidecar does not answer: its flows are refused until it does")
        self._listeners, self._routes = listeners, routes
        if places != self.places:
            self.places = places
            _write(self.directory / "places.json", places)
        return places

    @property
    def status(self) -> dict[str, object]:
        """For the API."""
        return {
            "problem": self.problem,
            "running": self._envoy.pid,
            "connected": bool(self._ads and self._ads.connected),
            "starts": self._envoy.starts,
            "nacks": self._ads.nacks if self._ads else 0,
            "rulesets": {
                f"{digest}/{d.name.lower()}": port for (digest, d), port in self.places.ports.items()
            },
        }

    async def close(self) -> None:
        """The loader goes; Envoy stays, and judges on."""
        await self._envoy.leave()
        if self._ads is not None:
            await self._ads.stop()

    async def _start(self) -> Ads:
        ads, socket = Ads(self.record), self.directory / "xds.sock"
        # pyroute2 runs an event loop of its own.
        index = await asyncio.to_thread(gate.make)
        gate.attach(index, self.program, self.pin)
        self.configure(index)
        await ads.start(socket)
        self._ads = ads
        self._envoy.run(bootstrap(str(socket), self.node))
        return ads


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
