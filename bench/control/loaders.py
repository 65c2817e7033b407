"""A hundred simulated loaders: real TLS, websockets, tokens and protocol, and no kernel behind them.

Each keeps everything that it is told and answers as if it were in force.  They share a machine with
the operator here, and must cost it little: frames that are the same bytes for many of them, but for the
number of the update, are decoded once, and documents only after what is measured.  A real one decodes its own.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from yett_policy.document import SCHEMA
from yett_policy.sync import decode, encode
from yett_policy.sync.frame import DEFLATED, SUBPROTOCOL, TO_LOADER_LIMIT, bundle, unbundle
from yett_policy.sync.message import (
    NAMED_MAX,
    Ack,
    AddressesPart,
    Begin,
    Commit,
    DocumentPart,
    Hello,
    IdentitiesPart,
    NodeChanges,
    NodePart,
    PlacedPod,
    PodName,
    PodsPart,
    RulesetPart,
    ToLoader,
    Welcome,
)

_SEQ = re.compile(rb'"seq":(\d+)')
_DOCUMENT = re.compile(rb'\{"digest":"([0-9a-f]{64})","document":')
_KEPT = 4096
"""Decoded frames."""
_SHORT = 128
"""Bytes of a frame that says no more than that an update begins or ends."""


class WrongUpdate(Exception):  # noqa: N818 - what it is
    """What the operator sent does not add up."""


@dataclass(frozen=True, slots=True)
class Named:
    """A document that is decoded later."""

    digest: str


class Decoder:
    """Decodes equal frames once."""

    def __init__(self) -> None:
        self._known: dict[bytes, ToLoader | Named] = {}
        self._unread: dict[bytes, Named] = {}

    def __call__(self, frame: bytes) -> ToLoader | Named:
        """As the protocol's own, but for documents."""
        numbered = _SEQ.search(frame) if len(frame) < _SHORT else None
        if numbered is None:
            return self._once(frame)
        item = self._once(_SEQ.sub(b'"seq":1', frame))
        return replace(item, seq=int(numbered.group(1))) if isinstance(item, Begin | Commit) else item

    def _once(self, frame: bytes) -> ToLoader | Named:
        item = self._known.get(frame)
        if item is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            item = self._known[frame] = self._named(frame) or decode.from_operator(frame)
        return item

    def _named(self, frame: bytes) -> Named | None:
        body = zlib.decompress(frame[1:]) if frame[:1] == DEFLATED else frame[1:]
        found = _DOCUMENT.match(body)
        if found is None:
            return None
        named = self._unread[frame] = Named(found.group(1).decode())
        return named

    def read(self) -> None:
        """Decode the documents that came; WrongUpdate if one is not what it was called."""
        unread, self._unread = self._unread, {}
        for frame, named in unread.items():
            item = decode.from_operator(frame)
            if not isinstance(item, DocumentPart) or item.digest != named.digest:
                raise WrongUpdate(f"what came as document {named.digest[:12]} is another")


@dataclass(slots=True)
class Own:
    """The node's part, in which a change costs no more than it changes."""

    documents: dict[int, str] = field(default_factory=dict)
    rulesets: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    endpoints: dict[PodName, PlacedPod] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, part: NodePart) -> Own:
        """As it was sent whole."""
        endpoints = {(namespace, name): (number, ips) for namespace, name, number, ips in part.endpoints}
        return cls(
            dict(part.documents), dict(part.rulesets), dict(part.addresses), endpoints, dict(part.secrets)
        )

    def change(self, changes: NodeChanges) -> None:
        """What is different."""
        _put(self.documents, changes.documents.items())
        _put(self.rulesets, changes.rulesets.items())
        _put(self.addresses, changes.addresses.items())
        _put(self.endpoints, changes.endpoints.items())
        _put(self.secrets, changes.secrets.items())


@dataclass(slots=True)
class State:
    """What a loader has."""

    node: Own = field(default_factory=Own)
    documents: set[str] = field(default_factory=set)
    """Digests that it was sent."""
    rulesets: set[str] = field(default_factory=set)
    ipcache: dict[str, int] = field(default_factory=dict)
    identities: dict[int, tuple[str, ...]] = field(default_factory=dict)
    pods: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = field(default_factory=dict)


class Expectation:
    """Something that every loader must hear of."""

    def __init__(self, nodes: set[str]) -> None:
        self._waiting = nodes
        self._last = 0.0
        self._all = asyncio.get_running_loop().create_future()

    def heard(self, node: str, at: float) -> None:
        """One has."""
        self._waiting.discard(node)
        self._last = max(self._last, at)
        if not self._waiting and not self._all.done():
            self._all.set_result(self._last)

    async def last(self, within: float = 60.0) -> float:
        """When the last one had it; time.monotonic()."""
        try:
            async with asyncio.timeout(within):
                return float(await self._all)
        except TimeoutError:
            raise WrongUpdate(
                f"{len(self._waiting)} loaders have not heard of a pod that was added"
            ) from None


class Fleet:
    """All of them."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.loaders = {node: Loader(node, token, self) for node, token in tokens.items()}
        self.decode = Decoder()
        self.updates = 0
        self._expected: dict[str, Expectation] = {}

    @asynccontextmanager
    async def connected(self, port: int, tls: ssl.SSLContext) -> AsyncIterator[None]:
        """Every one follows the operator, and has its first snapshot at the start of the block."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            tasks = [asyncio.create_task(loader.run(session, port, tls)) for loader in self.loaders.values()]
            try:
                whole = asyncio.gather(*(loader.whole.wait() for loader in self.loaders.values()))
                await asyncio.wait([whole, *tasks], return_when=asyncio.FIRST_COMPLETED, timeout=120)
                _raise_first(tasks)
                if not whole.done():
                    raise WrongUpdate("not every loader has got a snapshot in two minutes")
                yield
                _raise_first(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def expect(self, news: str) -> Expectation:
        """To be told when everybody has heard of a prefix, or of a pod (`namespace/name`)."""
        found = self._expected[news] = Expectation(set(self.loaders))
        return found

    def heard(self, node: str, news: set[str], at: float) -> None:
        """A loader has had a whole update with these prefixes and pods."""
        self.updates += 1
        for each in news & self._expected.keys():
            self._expected[each].heard(node, at)


class Loader:
    """One of them."""

    def __init__(self, node: str, token: str, fleet: Fleet) -> None:
        self.state = State()
        self.whole = asyncio.Event()
        """It has had everything once."""
        self._node, self._token, self._fleet = node, token, fleet
        self._changed: dict[int, str | None] = {}
        """Identities whose document is another one in the update under way."""
        self._news: set[str] = set()
        """Prefixes and pods in the update under way."""

    async def run(self, session: aiohttp.ClientSession, port: int, tls: ssl.SSLContext) -> None:
        """Until cancelled."""
        self.state = State()
        self.whole.clear()
        socket = await session.ws_connect(
            f"wss://localhost:{port}/v1/sync",
            ssl=tls,
            headers={"Authorization": f"Bearer {self._token}"},
            protocols=(SUBPROTOCOL,),
            compress=0,
            max_msg_size=TO_LOADER_LIMIT + 4,
        )
        async with socket:
            await _send(socket, encode.hello(self._hello()))
            async for received in socket:
                at = time.monotonic()
                if received.type is not aiohttp.WSMsgType.BINARY:
                    raise WrongUpdate(f"the operator sent {received.type.name} to {self._node}")
                for frame in unbundle(received.data):
                    ack = self._take(self._fleet.decode(frame), at)
                    if ack is not None:
                        await _send(socket, encode.ack(ack))
        raise WrongUpdate(f"the operator hung up on {self._node} ({socket.close_code})")

    def _hello(self) -> Hello:
        return Hello(self._node, "0" * 32, "bench", "none", applied={}, schema=SCHEMA)

    def _take(self, item: ToLoader | Named, at: float) -> Ack | None:
        state = self.state
        match item:
            case Welcome():
                pass
            case Begin(_, base):
                self._news, self._changed = set(), {}
                if base is None:
                    state.ipcache, state.identities, state.pods = {}, {}, {}
            case DocumentPart() | Named():
                state.documents.add(item.digest)
            case RulesetPart():
                state.rulesets.add(item.content)
            case NodePart():
                self._changed = {**dict.fromkeys(state.node.documents), **item.documents}
                state.node = Own.of(item)
            case NodeChanges(documents):
                self._changed.update(documents)
                state.node.change(item)
            case AddressesPart(rows):
                _put(state.ipcache, rows)
                self._news.update(prefix for prefix, _ in rows)
            case IdentitiesPart(rows):
                _put(state.identities, rows)
            case PodsPart(rows):
                _put(state.pods, rows)
                self._news.update("/".join(key) for key, _ in rows)
            case Commit():
                return self._commit(item, at)
        return None

    def _commit(self, commit: Commit, at: float) -> Ack:
        state = self.state
        if (len(state.ipcache), len(state.identities), len(state.pods)) != (
            commit.ipcache,
            commit.identities,
            commit.pods,
        ):
            raise WrongUpdate(f"after update {commit.seq} {self._node} has not as much as it must have")
        self._fleet.heard(self._node, self._news, at)
        self.whole.set()
        applied = {number: digest for number, digest in self._changed.items() if digest is not None}
        if lacking := set(applied.values()) - state.documents:
            raise WrongUpdate(f"{self._node} was not sent {len(lacking)} documents that it must have")
        if len(applied) > NAMED_MAX:
            return Ack(commit.seq, {}, as_sent=True)
        return Ack(commit.seq, applied, tuple(sorted(self._changed.keys() - applied.keys())))


def _put(held: dict[Any, Any], rows: Iterable[tuple[Any, Any]]) -> None:
    for key, value in rows:
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


async def _send(socket: aiohttp.ClientWebSocketResponse, frame: bytes) -> None:
    for part in bundle([frame]):
        await socket.send_bytes(part)


def _raise_first(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
