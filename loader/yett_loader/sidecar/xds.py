"""Envoy's configuration over one stream (ADS, state of the world), and its access records.

Listeners are always sent together, as this protocol wants; of route tables only those that Envoy has
not got: with hundreds of rulesets a change of one costs what one costs.

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
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2 as _cel  # noqa: F401 - for Any, as below
from envoy.extensions.access_loggers.grpc.v3 import als_pb2 as _als_config  # noqa: F401
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
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as _early,  # noqa: F401
)
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2 as _case  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from envoy.service.runtime.v3.rtds_pb2 import Runtime
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.protobuf.wrappers_pb2 import StringValue
from xds.type.v3 import typed_struct_pb2 as _struct  # noqa: F401

from yett_loader.errors import LoaderError
from yett_loader.sidecar.listeners import JUDGE
from yett_loader.sidecar.seat import Seat

log = logging.getLogger(__name__)

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SETTINGS = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
SECRETS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_MESSAGES: Mapping[str, Any] = {
    LISTENER: Listener,
    ROUTES: RouteConfiguration,
    SETTINGS: Runtime,
    SECRETS: Secret,
}
Entry = Callable[[str, Any], None]
"""Takes the name of a log and one HTTPAccessLogEntry."""


def _prepare(directory: Path) -> None:
    """For sockets that only root can open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


class SidecarNack(LoaderError):  # noqa: N818 - reads better
    """Envoy refuses the configuration; the old one stays."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """As JSON, and packed; `version` tells it from what had its name before."""

    value: Any
    version: int
    packed: AnyMessage

    @classmethod
    def of(cls, kind: str, value: Any, version: int) -> _Resource:
        packed = AnyMessage()
        packed.Pack(ParseDict(value, _MESSAGES[kind]()))
        return cls(value, version, packed)


@dataclass(slots=True)
class _Kind:
    """Resources of one type."""

    version: int = 0
    """0: nothing was published yet, so nothing is said: an Envoy from before keeps what it has."""
    resources: dict[str, _Resource] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        return {name: item.value for name, item in self.resources.items()}


Versions = dict[str, int]
"""Of resources by name."""


@dataclass(slots=True)
class _Told:
    """What one Envoy has asked for of one type, and been told."""

    names: frozenset[str] = frozenset()
    version: int = 0
    """Of the last response."""
    has: Versions = field(default_factory=dict)
    """Sent."""
    pending: dict[str, tuple[int, Versions]] = field(default_factory=dict)
    """Nonce of each response that is not answered yet -> its version and what was in it."""
    accepted: int = 0
    acked: Versions = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Stream:
    """One Envoy."""

    told: dict[str, _Told] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Ads(  # grpc's classes have no types
    ads_pb2_grpc.AggregatedDiscoveryServiceServicer,  # type: ignore[misc]
    als_pb2_grpc.AccessLogServiceServicer,  # type: ignore[misc]
):
    """The configuration server of the sidecar."""

    def __init__(self, record: Entry) -> None:
        self._kinds = {LISTENER: _Kind(), ROUTES: _Kind(), SETTINGS: _Kind(), SECRETS: _Kind()}
        self._streams: list[_Stream] = []
        self._refused: dict[str, str] = {}
        self._moved = asyncio.Event()
        self._record = record
        self._server: Any = None
        self._seat: Seat | None = None
        self._nonce = 0
        self.nacks = 0
        self.records = 0
        """Access records taken."""

    @property
    def connected(self) -> bool:
        """Whether an Envoy listens to us."""
        return bool(self._streams)

    @property
    def seated(self) -> bool:
        """Whether clients still meet us, and not another server of the same path."""
        return self._seat is not None and self._seat.kept

    async def start(self, path: Path, *, only_if_free: bool = False) -> bool:
        """Listen on the Unix socket `path`, for root only; False if another does and that matters."""
        _prepare(path.parent)
        seat = Seat(path)
        self._server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self._server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{seat.own}")
        await self._server.start()
        if seat.take(only_if_free=only_if_free):
            self._seat = seat
            return True
        await self.stop()
        return False

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
        before = {kind: self._kinds[kind].values for kind in (ROUTES, LISTENER)}
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
            raise SidecarNack(f"the sidecar refuses the rules, the old ones stay: {said}")
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
        self._moved.set()

    def state(self) -> dict[str, dict[str, Any]]:
        """What is published, by type and name, without the settings."""
        return {kind: item.values for kind, item in self._kinds.items() if kind != SETTINGS}

    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Publish what `state` gave; KeyError or ParseError if it is something else."""
        self._replace({kind: state[kind] for kind in self._kinds if kind in state})

    def set(self, name: str, values: Mapping[str, Any]) -> None:
        """Settings of the layer `name`, in force as soon as Envoy hears of them."""
        self._replace({SETTINGS: {name: {"name": name, "layer": dict(values)}}})

    def _replace(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        self._refused.clear()
        for kind, values in wanted.items():
            old = self._kinds[kind]
            if old.values == values:
                continue
            version = old.version + 1
            self._kinds[kind] = _Kind(
                version,
                {
                    name: old.resources[name]
                    if name in old.resources and old.resources[name].value == value
                    else _Resource.of(kind, value, version)
                    for name, value in values.items()
                },
            )
        for stream in self._streams:
            stream.changed.set()

    def _settled(self) -> bool:
        """Whether Envoy has spoken about everything that it must have."""
        if self._refused:
            return True
        if not self._streams:
            return False
        told = self._streams[-1].told
        listeners, routes = told.get(LISTENER), told.get(ROUTES)
        if listeners is None or listeners.accepted != self._kinds[LISTENER].version:
            return False
        acked = routes.acked if routes else {}
        return all(acked.get(name) == item.version for name, item in self._kinds[ROUTES].resources.items())

    async def accepted(self) -> AsyncIterator[dict[str, dict[str, Any]]]:
        """The state, each time that Envoy has accepted another; for ever."""
        last: list[int] = []
        while True:
            versions = [item.version for kind, item in self._kinds.items() if kind != SETTINGS]
            if versions != last and not self._refused and self._settled():
                last = versions
                yield self.state()
            else:
                self._moved.clear()
                await self._moved.wait()

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
            told = stream.told.setdefault(kind, _Told())
            told.names = frozenset(request.resource_names)
            # What it asks for no more it forgets; asked for again, it is sent again.
            told.has = {name: version for name, version in told.has.items() if name in told.names}
            answered = told.pending.pop(request.response_nonce, None)
            if answered is not None:
                if request.HasField("error_detail"):
                    self.nacks += 1
                    # Envoy quotes what it refuses.
                    said = "a secret" if kind == SECRETS else request.error_detail.message
                    if self._is_current(kind, answered[1]):  # else it was put back already
                        self._refused[kind] = said
                    log.error("the sidecar refuses %s: %s", kind, said)
                else:
                    told.accepted = answered[0]
                    told.acked |= answered[1]
            stream.changed.set()
            self._moved.set()

    def _is_current(self, kind: str, versions: Versions) -> bool:
        """Whether something of a response is still what is published."""
        resources = self._kinds[kind].resources
        return any(
            name in resources and resources[name].version == version for name, version in versions.items()
        )

    def _response(self, kind: str, stream: _Stream) -> DiscoveryResponse | None:
        told, item = stream.told.get(kind), self._kinds[kind]
        if told is None:
            return None
        if kind == LISTENER:
            if told.version == item.version:
                return None
            wanted = item.resources
        else:
            wanted = {
                name: item.resources[name]
                for name in told.names & item.resources.keys()
                if told.has.get(name) != item.resources[name].version
            }
            if not wanted:
                return None
        self._nonce += 1
        versions = {name: resource.version for name, resource in wanted.items()}
        told.version = item.version
        told.has |= versions
        told.pending[str(self._nonce)] = (item.version, versions)
        return DiscoveryResponse(
            version_info=str(item.version),
            type_url=kind,
            nonce=str(self._nonce),
            resources=[wanted[name].packed for name in sorted(wanted)],
        )

    async def StreamAccessLogs(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Access records, in batches; each says which listener it is of."""
        del context
        async for message in requests:
            for entry in message.http_logs.log_entry:
                self.records += 1
                with suppress(ValueError, KeyError):
                    name = StringValue()
                    entry.common_properties.filter_state_objects[JUDGE].Unpack(name)
                    self._record(name.value, entry)
        return als_pb2.StreamAccessLogsResponse()
