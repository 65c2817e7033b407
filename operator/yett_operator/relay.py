"""Replicas that do not lead tell the leader what they hear from loaders.

Every replica serves loaders, and only the leader writes statuses.  The others keep one websocket
to it, at the address that its Lease names, and pass everything on; what was said before is
said again on every new connection.  Both sides know the key of the CA, which nobody else can
read, and that is their password; the leader shows the certificate that the CA signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import aiohttp.web

from yett_operator.ports import Ack, AckSink, Failure, NodeInfo
from yett_operator.status.nodes import Nodes, NodesVia
from yett_operator.webhook.certificate import Bundle
from yett_operator.webhook.keeper import Keeper

log = logging.getLogger(__name__)

PATH = "/v1/relay"
HEARTBEAT = 1.0
"""Seconds; a replica that is silent for one and a half is gone, and its loaders come to others."""
QUEUE = 10_000
"""Messages waiting; one more, and everything is said anew on another connection."""
MESSAGE_MAX = 16 << 20
_RETRY = 0.5


def password(bundle: Bundle) -> str:
    """What a replica shows to another."""
    return hmac.new(bundle.ca_key, b"yett relay 1", hashlib.sha256).hexdigest()


class RelaySink:
    """The `AckSink` of the sync stream: keeps everything, and passes it on while another leads."""

    def __init__(self, own: NodesVia) -> None:
        self._own = own
        self._counted: dict[str, Mapping[str, int]] = {}
        self.queue: asyncio.Queue[dict[str, Any]] | None = None
        """To the leader; None: nobody is to be told."""
        self.overflow = False

    def connected(self, node: str, info: NodeInfo) -> None:
        """See `AckSink`."""
        self._own.connected(node, info)
        self._pass(connected_message(node, info))

    def disconnected(self, node: str) -> None:
        """See `AckSink`."""
        self._own.disconnected(node)
        self._counted.pop(node, None)
        self._pass({"type": "disconnected", "node": node})

    def acked(self, node: str, ack: Ack) -> None:
        """See `AckSink`."""
        self._own.acked(node, ack)
        self._pass(ack_message(node, ack))

    def counted(self, node: str, hits: Mapping[str, int]) -> None:
        """See `AckSink`."""
        self._own.counted(node, hits)
        self._counted[node] = {**self._counted.get(node, {}), **hits}
        self._pass({"type": "counted", "node": node, "hits": dict(hits)})

    def everything(self, nodes: Nodes) -> list[dict[str, Any]]:
        """All that was said through this replica, for a leader that knows nothing."""
        messages = []
        for name in nodes.through(""):
            state = nodes.states[name]
            messages += [
                connected_message(name, state.info),
                ack_message(name, Ack(state.applied, whole=True, failures=state.failures)),
            ]
            if name in self._counted:
                messages.append({"type": "counted", "node": name, "hits": self._counted[name]})
        return messages

    def _pass(self, message: dict[str, Any]) -> None:
        if self.queue is None or self.overflow:
            return
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.overflow = True


def connected_message(node: str, info: NodeInfo) -> dict[str, Any]:
    """As JSON."""
    return {"type": "connected", "node": node, "version": info.version, "kernel": info.kernel}


def ack_message(node: str, ack: Ack) -> dict[str, Any]:
    """As JSON."""
    return {
        "type": "acked",
        "node": node,
        "applied": {str(identity): digest for identity, digest in ack.applied.items()},
        "dropped": sorted(ack.dropped),
        "whole": ack.whole,
        "failures": [[each.identity, each.reason, each.message] for each in ack.failures],
    }


def take(message: dict[str, Any], sink: AckSink) -> None:
    """A message of another replica; ValueError, KeyError or TypeError if it is none."""
    node = str(message["node"])
    match message["type"]:
        case "connected":
            sink.connected(node, NodeInfo(str(message["version"]), str(message["kernel"])))
        case "disconnected":
            sink.disconnected(node)
        case "acked":
            sink.acked(
                node,
                Ack(
                    {int(identity): str(digest) for identity, digest in message["applied"].items()},
                    frozenset(map(int, message["dropped"])),
                    bool(message["whole"]),
                    tuple(
                        Failure(int(number), str(reason), str(text))
                        for number, reason, text in message["failures"]
                    ),
                ),
            )
        case "counted":
            sink.counted(node, {str(rule): int(count) for rule, count in message["hits"].items()})
        case other:
            raise ValueError(f"unknown message {other!r}")


class RelayServer:
    """The leader's side."""

    def __init__(self, keeper: Keeper, nodes: Nodes, leading: Callable[[], bool]) -> None:
        self._keeper = keeper
        self._nodes = nodes
        self._leading = leading
        self._sockets: set[aiohttp.web.WebSocketResponse] = set()
        self._numbers = itertools.count(1)

    async def handle(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        """One replica that does not lead."""
        bundle = self._keeper.bundle
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if bundle is None or not hmac.compare_digest(shown, password(bundle).encode()):
            return aiohttp.web.Response(status=401, text="this is for replicas of the operator\n")
        if not self._leading():
            return aiohttp.web.Response(status=503, text="this replica does not lead\n")
        socket = aiohttp.web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MESSAGE_MAX)
        await socket.prepare(request)
        source = f"relay-{next(self._numbers)}"
        sink = self._nodes.via(source)
        self._sockets.add(socket)
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    for each in json.loads(message.data):
                        take(each, sink)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("a replica sent what is no message: %r", error)
        except OSError as error:
            log.info("the connection of a replica broke: %s", error)
        finally:
            self._sockets.discard(socket)
            for node in self._nodes.through(source):
                sink.disconnected(node)
        return socket

    async def close(self) -> None:
        """Leading is over: the others shall look for the one that does."""
        for socket in tuple(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)


class RelayClient:
    """The side of a replica that does not lead."""

    def __init__(
        self,
        keeper: Keeper,
        nodes: Nodes,
        sink: RelaySink,
        leader: Callable[[], str],
        name: str,
    ) -> None:
        """`leader`: address of the leader; empty if this replica leads or none is known.

        `name`: a name that the leader's certificate has.
        """
        self._keeper = keeper
        self._nodes = nodes
        self._sink = sink
        self._leader = leader
        self._name = name

    async def run(self) -> None:
        """For ever."""
        while True:
            address = self._leader()
            if address and self._keeper.bundle is not None:
                try:
                    await self._connect(address, self._keeper.bundle)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    why = getattr(error, "os_error", error)
                    log.info("cannot tell the leader at %s what nodes say: %s", address, why)
            await asyncio.sleep(_RETRY)

    async def _connect(self, address: str, bundle: Bundle) -> None:
        context = ssl.create_default_context(cadata=bundle.ca.decode())
        headers = {"Authorization": f"Bearer {password(bundle)}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.ws_connect(
                f"https://{address}{PATH}",
                ssl=context,
                server_hostname=self._name,
                headers=headers,
                heartbeat=HEARTBEAT,
            ) as socket,
        ):
            queue = self._sink.queue = asyncio.Queue(QUEUE)
            self._sink.overflow = False
            reading = asyncio.ensure_future(socket.receive())  # sees pings and the end
            getting: asyncio.Future[dict[str, Any]] | None = None
            try:
                await socket.send_str(json.dumps(self._sink.everything(self._nodes)))
                while not reading.done() and not self._sink.overflow and self._leader() == address:
                    getting = getting or asyncio.ensure_future(queue.get())
                    both: list[asyncio.Future[Any]] = [reading, getting]
                    await asyncio.wait(both, timeout=_RETRY, return_when=asyncio.FIRST_COMPLETED)
                    if getting.done():
                        batch = [getting.result()]
                        getting = None
                        while not queue.empty() and len(batch) < 500:
                            batch.append(queue.get_nowait())
                        await socket.send_str(json.dumps(batch, separators=(",", ":")))
            finally:
                self._sink.queue = None
                for task in (reading, getting):
                    if task is not None:
                        task.cancel()
