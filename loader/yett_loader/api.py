"""The node-local API: HTTP on a Unix socket that only root can open.

    GET  /v1/status                     what is in force, and what is not
    GET  /v1/endpoints
    GET  /v1/policy/{endpoint}          endpoint: namespace/pod; read from the kernel
    GET  /v1/flows-table/{endpoint}     its connections
    GET  /v1/metrics-json
    GET  /metrics                       Prometheus text
    GET  /v1/flows?last=N&follow=1      flow records (see `events`), one JSON object a line;
                                        `{"lost": N}` where a slow reader missed some
    POST /v1/observe                    record what is allowed, too, for the next 15 s; again to go on
    PUT  /v1/snapshot                   put a snapshot in force (only where --allow-push)

Errors are `{"error": "one sentence"}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from yett_loader import report
from yett_loader.agent import Agent
from yett_loader.endpoint import LocalEndpoint
from yett_loader.errors import LoaderError, NotReady, SnapshotError
from yett_loader.metrics import prometheus
from yett_loader.recorder import KEPT, Recorder
from yett_loader.snapshot import BODY_LIMIT, Memory, from_bytes
from yett_loader.sync.client import SyncClient

OBSERVE_SECONDS = 15.0


class Api:
    """Handlers around one agent and recorder."""

    def __init__(
        self, agent: Agent, recorder: Recorder, *, allow_push: bool, sync: SyncClient | None = None
    ) -> None:
        self._agent = agent
        self._recorder = recorder
        self._allow_push = allow_push
        self._sync = sync
        self._observed: asyncio.TimerHandle | None = None
        self._memory = Memory()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[errors_as_json])
        app.add_routes(
            [
                web.get("/v1/status", self.status),
                web.get("/v1/endpoints", self.endpoints),
                web.get("/v1/policy/{endpoint:.+}", self.policy),
                web.get("/v1/flows-table/{endpoint:.+}", self.flows_table),
                web.get("/v1/metrics-json", self.metrics_json),
                web.get("/metrics", self.metrics),
                web.get("/v1/flows", self.flows),
                web.post("/v1/observe", self.observe),
                web.put("/v1/snapshot", self.snapshot),
            ]
        )
        return app

    async def status(self, _request: web.Request) -> web.Response:
        sync = self._sync.status() if self._sync is not None else None
        return web.json_response({**report.status(self._agent, self._recorder), "sync": sync})

    async def endpoints(self, _request: web.Request) -> web.Response:
        return web.json_response({"endpoints": report.endpoints(self._agent)})

    async def policy(self, request: web.Request) -> web.Response:
        return web.json_response(report.policy(self._agent, self._endpoint(request)))

    async def flows_table(self, request: web.Request) -> web.Response:
        return web.json_response(report.flows_table(self._agent, self._endpoint(request)))

    async def metrics_json(self, _request: web.Request) -> web.Response:
        return web.json_response(report.metrics(self._agent, self._recorder))

    async def metrics(self, _request: web.Request) -> web.Response:
        gauges = report.gauges(self._agent, self._recorder)
        if self._sync is not None:
            gauges |= self._sync.gauges()
        text = prometheus(self._agent.counters(), self._agent.hits(), gauges)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def flows(self, request: web.Request) -> web.StreamResponse:
        last = _number(request, "last", 0, KEPT)
        follow = _number(request, "follow", 0, 1)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self._recorder.poll()  # what is in the ring by now counts as past
        with self._recorder.follow() as follower:
            past = list(self._recorder.kept)[-last:] if last else []
            await response.write(b"".join(map(_line, past)))
            lost = 0
            while follow:
                record = await follower.next()
                if follower.lost != lost:
                    await response.write(_line({"lost": follower.lost - lost}))
                    lost = follower.lost
                await response.write(_line(record))
        return response

    async def observe(self, _request: web.Request) -> web.Response:
        if self._observed is not None:
            self._observed.cancel()
        self._set_observed(observed=True)
        loop = asyncio.get_running_loop()
        self._observed = loop.call_later(OBSERVE_SECONDS, lambda: self._set_observed(observed=False))
        return web.json_response({"seconds": OBSERVE_SECONDS})

    async def snapshot(self, request: web.Request) -> web.Response:
        if not self._allow_push:
            raise web.HTTPForbidden(
                text="this loader takes snapshots from its operator only; see --allow-push"
            )
        wanted = from_bytes(await request.read(), memory=self._memory)
        applied = await self._agent.apply(wanted)
        return web.json_response(
            {
                "digest": applied.digest,
                "changes": applied.changes,
                "epoch": applied.epoch,
                "seconds": applied.seconds,
                "documents": {str(item.identity): item.digest for item in wanted.snapshot.documents},
                "waiting": applied.waiting,
            }
        )

    def close(self) -> None:
        """Stop observing."""
        if self._observed is not None:
            self._observed.cancel()
            self._set_observed(observed=False)

    def _set_observed(self, *, observed: bool) -> None:
        self._observed = self._observed if observed else None
        self._recorder.watched = observed
        self._agent.observe(allowed=observed)

    def _endpoint(self, request: web.Request) -> LocalEndpoint:
        name = request.match_info["endpoint"]
        found = self._agent.endpoint(name)
        if found is None:
            raise web.HTTPNotFound(text=f"no endpoint {name!r} on this node; GET /v1/endpoints lists them")
        return found


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Each error as one sentence."""
    try:
        return await handler(request)
    except SnapshotError as error:
        return web.json_response({"error": str(error)}, status=400)
    except LoaderError as error:
        return web.json_response({"error": str(error)}, status=503)
    except web.HTTPException as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)


class Server:
    """The socket: made new, mode 0600, removed at the end."""

    def __init__(self, api: Api, path: Path) -> None:
        self._api = api
        self._path = path
        # A follower that hangs up must not keep its handler waiting for ever.
        # No access log: the kubelet's probes would be most of what a loader says.
        self._runner = web.AppRunner(
            api.application(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None
        )

    async def start(self) -> None:
        """Listen."""
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A socket that is there is a dead loader's: we hold the lock.
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(os.fspath(self._path))
            finally:
                os.umask(before)
        except OSError as error:
            listener.close()
            raise NotReady(
                f"cannot listen on {self._path}: {error.strerror or error}; name another place with --api"
            ) from error
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Hang up on everybody."""
        self._api.close()
        await self._runner.cleanup()
        with suppress(FileNotFoundError):
            self._path.unlink()


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _number(request: web.Request, name: str, low: int, high: int) -> int:
    text = request.query.get(name, str(low))
    if not text.isascii() or not text.isdigit() or not low <= int(text[:9]) <= high or len(text) > 9:
        raise web.HTTPBadRequest(text=f"{name} is {text[:40]!r}; it must be a number in {low}..{high}")
    return int(text)
