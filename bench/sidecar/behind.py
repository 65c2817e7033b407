"""The very same Envoy behind iptables TPROXY: the listeners, routes and marks of the sidecar engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from bench.rules import Rule, to_spec
from bench.sidecar.wanted import Rules
from bench.systems.system import System
from bench.systems.tproxy import divert
from bench.world import PORT, UPLOAD_PORT
from yett_loader.sidecar.engine import open_ports
from yett_loader.sidecar.listeners import RECORD_ALL, RUNTIME, listener, listener_name
from yett_loader.sidecar.places import FIRST_PORT
from yett_loader.sidecar.process import control, envoy, find_envoy, prepare
from yett_loader.sidecar.routes import route_table
from yett_loader.sidecar.xds import Ads
from yett_policy.document import Direction


class Behind(System):
    """Netfilter brings the packets; everything that Envoy is told is told by the loader's code."""

    name = "tproxy"
    label = "the same Envoy, iptables TPROXY"
    enforces = True

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.cleanup.callback(self._end)
        directory = self.world.directory / "envoy"
        self._ads, self._envoy = (
            Ads(_forget),
            envoy(directory, find_envoy(), self.world.directory / "envoy.log"),
        )
        self._call(self._start(directory))
        self.cleanup.callback(self._close)
        divert(self.world.topology, replies=True, port=FIRST_PORT)

    @property
    def pids(self) -> list[int]:
        """The origin's and Envoy's."""
        return [*super().pids, self._envoy.pid]

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """The same rules on both ports."""
        spec = to_spec(rules)
        self.apply({PORT: spec, UPLOAD_PORT: spec})

    def apply(self, rules: Rules) -> None:
        """In force on return.  One listener is enough: all ports have the same rules."""
        (spec,) = set(rules.values())
        name = listener_name(FIRST_PORT)
        self._call(
            self._publish({name: listener(FIRST_PORT, Direction.INGRESS)}, {name: route_table(name, spec)})
        )

    async def _start(self, directory: Path) -> None:
        await self._ads.start(control(directory))
        self._ads.set(RUNTIME, {RECORD_ALL: 0})
        prepare(directory, "bench")
        self._envoy.run()

    async def _publish(self, listeners: dict[str, Any], routes: dict[str, Any]) -> None:
        async with asyncio.timeout(30):
            while not await self._ads.publish(listeners, routes):
                pass
            while FIRST_PORT not in open_ports():  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.01)

    def _run(self) -> None:
        # Whatever this thread starts lives on the node.
        with self.world.topology.node:
            self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _close(self) -> None:
        async def close() -> None:
            await self._envoy.leave()
            self._envoy.kill()
            await self._ads.stop()
            await asyncio.sleep(0.2)  # asyncio hears of the end in a thread of its own

        self._call(close())

    def _end(self) -> None:
        async def end() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _forget(name: str, entry: Any) -> None:
    """The access records of refused requests are of no interest here."""
    del name, entry
