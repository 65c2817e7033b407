"""Envoy's configuration over one stream (ADS, state of the world), and its access records.

The server is on a Unix socket that only root can open.  Every response is acknowledged or refused
by Envoy; `publish` tells which.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.grpc.v3 import als_pb2 as _als_config  # noqa: F401 - for Any, as below
from envoy.extensions.filters.http.dynamic_modules.v3 import dynamic_modules_pb2 as _modules  # noqa: F401
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2 as _marks  # noqa: F401
from envoy.extensions.filters.http.lua.v3 import lua_pb2 as _lua  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router  # noqa: F401
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2 as _values  # noqa: F401
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2 as _original_src  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as _http,  # noqa: F401
)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as _rbac  # noqa: F401
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2 as _state  # noqa: F401
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2 as _case  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf import wrappers_pb2 as _wrappers  # noqa: F401
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from xds.type.v3 import typed_struct_pb2 as _struct  # noqa: F401

from yett_loader.errors import LoaderError

log = logging.getLogger(__name__)

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRETS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_MESSAGES: Mapping[str, Any] = {LISTENER: Listener, ROUTES: RouteConfiguration, SECRETS: Secret}
Entry = Callable[[str, Any], None]
"""Takes the name of a log and one HTTPAccessLogEntry."""


def _prepare(socket: Path) -> None:
    """A directory for it that only root can enter, and no socket yet."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.parent.chmod(0o700)
    socket.unlink(missing_ok=True)


class SidecarNack(LoaderError):  # noqa: N818 - reads better
    """Envoy refuses the configuration; the old one stays."""


@dataclass(slots=True)
class _Kind:
    """Resources of one type."""

    version: int = 1
    resources: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Stream:
    """What one Envoy has asked for and been told."""

    names: dict[str, frozenset[str]] = field(default_factory=dict)
    sent: dict[str, tuple[int, str, frozenset[str]]] = field(default_factory=dict)
    """Version, nonce, names of the last response."""
    accepted: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Ads(  # grpc's classes have no types
    ads_pb2_grpc.AggregatedDiscoveryServiceServicer,  # type: ignore[misc]
    als_pb2_grpc.AccessLogServiceServicer,  # type: ignore[misc]
):
    """The configuration server of the sidecar."""

    def __init__(self, record: Entry) -> None:
        self._kinds = {LISTENER: _Kind(), ROUTES: _Kind(), SECRETS: _Kind()}
        self._streams: list[_Stream] = []
        self._refused: dict[str, str] = {}
        self._moved = asyncio.Event()
        self._record = record
        self._server: Any = None
        self._nonce = 0
        self.nacks = 0

    @property
    def connected(self) -> bool:
        """Whether an Envoy listens to us."""
        return bool(self._streams)

    async def start(self, path: Path) -> None:
        """Listen on the Unix socket `path`, for root only."""
        _prepare(path)
        self._server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self._server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()

    async def stop(self) -> None:
        """Envoy goes on with what it has."""
        if self._server is not None:
            await self._server.stop(0)

    # -- what we say ----------------------------------------------------------------------

    async def publish(
        self, listeners: Mapping[str, Any], routes: Mapping[str, Any], seconds: float = 5
    ) -> bool:
        """Put these in the place of what was; whether an Envoy has accepted them.

        SidecarNack if it refuses: then what was before stays published.  False if there is none
        to ask, or it is silent for so long.
        """
        before = {kind: dict(self._kinds[kind].resources) for kind in (ROUTES, LISTENER)}
        if before == {ROUTES: routes, LISTENER: listeners}:
            return True
        # Routes first: a listener never waits for routes that are not there.
        self._replace({ROUTES: routes, LISTENER: listeners})
        try:
            async with asyncio.timeout(seconds):
                while not self._settled():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        if self._refused:
            said = "; ".join(self._refused.values())
            self._replace(before)
            raise SidecarNack(f"the sidecar refuses its configuration, the old one stays: {said}")
        return True

    def give(self, secrets: Mapping[str, str]) -> None:
        """Values of secrets, by the names under which route tables ask for them; in force as they come."""
        self._replace(
            {
                SECRETS: {
                    name: {"name": name, "generic_secret": {"secret": {"inline_string": value}}}
                    for name, value in secrets.items()
                }
            }
        )

    def _replace(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        self._refused.clear()
        for kind, resources in wanted.items():
            if self._kinds[kind].resources != resources:
                self._kinds[kind] = _Kind(self._kinds[kind].version + 1, dict(resources))
        for stream in self._streams:
            stream.changed.set()

    def _settled(self) -> bool:
        """Whether Envoy has spoken about everything that it must have."""
        if self._refused:
            return True
        if not self._streams:
            return False
        stream = self._streams[-1]
        for kind in (LISTENER, ROUTES):
            item = self._kinds[kind]
            if kind == ROUTES and not item.resources:
                continue
            if stream.accepted.get(kind) != item.version:
                return False
        return self._kinds[ROUTES].resources.keys() <= stream.names.get(ROUTES, frozenset())

    # -- what Envoy says ------------------------------------------------------------------

    async def StreamAggregatedResources(  # noqa: N802 - the service's name
        self, requests: AsyncIterator[DiscoveryRequest], context: Any
    ) -> AsyncIterator[DiscoveryResponse]:
        """One Envoy, until it goes."""
        del context
        stream = _Stream()
        self._streams.append(stream)
        reader = asyncio.create_task(self._read(requests, stream))
        try:
            while not reader.done():
                for kind in self._kinds:
                    response = self._response(kind, stream)
                    if response is not None:
                        yield response
                changed = asyncio.create_task(stream.changed.wait())
                await asyncio.wait([changed, reader], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                stream.changed.clear()
        finally:
            reader.cancel()
            self._streams.remove(stream)
            self._moved.set()

    async def _read(self, requests: AsyncIterator[DiscoveryRequest], stream: _Stream) -> None:
        async for request in requests:
            kind = request.type_url
            sent = stream.sent.get(kind)
            stream.names[kind] = frozenset(request.resource_names)
            if request.response_nonce and sent is not None and request.response_nonce == sent[1]:
                if request.HasField("error_detail"):
                    self.nacks += 1
                    # Envoy quotes what it refuses.
                    said = "a secret" if kind == SECRETS else request.error_detail.message
                    self._refused[kind] = said
                    log.error("the sidecar refuses %s: %s", kind, said)
                else:
                    stream.accepted[kind] = sent[0]
            stream.changed.set()
            self._moved.set()

    def _response(self, kind: str, stream: _Stream) -> DiscoveryResponse | None:
        if kind not in stream.names:
            return None
        item = self._kinds[kind]
        names = stream.names[kind] if kind != LISTENER else frozenset(item.resources)
        sent = stream.sent.get(kind)
        if sent is not None and (sent[0], sent[2]) == (item.version, names):
            return None
        self._nonce += 1
        stream.sent[kind] = (item.version, str(self._nonce), names)
        response = DiscoveryResponse(version_info=str(item.version), type_url=kind, nonce=str(self._nonce))
        for name in sorted(names & item.resources.keys()):
            packed = AnyMessage()
            packed.Pack(ParseDict(item.resources[name], _MESSAGES[kind]()))
            response.resources.append(packed)
        return response

    async def StreamAccessLogs(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Access records, in batches; the first says which listener they are of."""
        del context
        name = ""
        async for message in requests:
            name = message.identifier.log_name or name
            for entry in message.http_logs.log_entry:
                with suppress(ValueError, KeyError):
                    self._record(name, entry)
        return als_pb2.StreamAccessLogsResponse()
