"""Readiness and metrics over plain HTTP, for the kubelet and Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp.web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from yett_operator.metrics import REGISTRY

log = logging.getLogger(__name__)


class ProbeServer:
    """GET /readyz, /healthz and /metrics."""

    def __init__(
        self, host: str, port: int, problems: Callable[[], list[str]], refresh: Callable[[], None]
    ) -> None:
        """`problems`: why the replica cannot serve; `refresh` sets gauges before they are read."""
        self.port = port
        """0 becomes a free one when it starts."""
        self._host = host
        self._problems = problems
        self._refresh = refresh

    async def run(self) -> None:
        """For ever."""
        app = aiohttp.web.Application()
        app.add_routes(
            [
                aiohttp.web.get("/readyz", self._ready),
                aiohttp.web.get("/healthz", self._alive),
                aiohttp.web.get("/metrics", self._metrics),
            ]
        )
        runner = aiohttp.web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        try:
            await aiohttp.web.TCPSite(runner, self._host, self.port).start()
            self.port = runner.addresses[0][1]
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(runner.cleanup())

    async def _ready(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        problems = self._problems()
        return aiohttp.web.Response(
            text="".join(f"{each}\n" for each in problems) or "ok\n", status=503 if problems else 200
        )

    async def _alive(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        """That the event loop answers is all that a restart could mend."""
        return aiohttp.web.Response(text="ok\n")

    async def _metrics(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        self._refresh()
        return aiohttp.web.Response(
            body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
