"""The loader's client: finds the operator's replicas, listens to one, reports to all."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time

import aiohttp

from yett_loader.errors import NotReady
from yett_loader.sync.connection import Broken, Connection
from yett_loader.sync.follower import Follower
from yett_loader.sync.settings import Credentials, Operator, Times
from yett_policy.sync.frame import BUNDLE, SUBPROTOCOL, TO_LOADER_LIMIT

log = logging.getLogger(__name__)

REPLICAS_MAX = 8
MESSAGE_LIMIT = TO_LOADER_LIMIT + BUNDLE


class SyncClient:
    """Runs until cancelled."""

    def __init__(
        self,
        operator: Operator,
        node: str,
        credentials: Credentials,
        follower: Follower,
        times: Times | None = None,
    ) -> None:
        self._operator = operator
        self._node = node
        self._credentials = credentials
        self._follower = follower
        self._times = times or Times()
        self._addresses: frozenset[str] = frozenset()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listening: str | None = None
        """The replica that updates come from, or are about to."""
        self._reporting: dict[str, Connection] = {}
        """Connections to the others."""
        self._complaints: dict[str, str] = {}
        """By address, and by `resolve`: what was logged last, until it is well again."""

    async def run(self) -> None:
        """For ever."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        trying = asyncio.create_task(self._follower.keep_trying(self._times.again))
        try:
            async with aiohttp.ClientSession(connector=connector) as session:
                while True:
                    await self._resolve()
                    for address in self._addresses:
                        if address not in self._tasks or self._tasks[address].done():
                            task = asyncio.create_task(self._keep(session, address), name=f"sync {address}")
                            self._tasks[address] = task
                    await asyncio.sleep(self._times.resolve if self._addresses else self._times.retry_first)
                    for address, task in list(self._tasks.items()):
                        if task.done():
                            del self._tasks[address]
                            task.result()
        finally:
            trying.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(trying, *self._tasks.values(), return_exceptions=True)
            await self._follower.close()

    def status(self) -> dict[str, object]:
        """For people."""
        replica, numbers = self._follower.replica, self._follower.numbers
        return {
            "operator": f"{self._operator.host}:{self._operator.port}",
            "replicas": sorted(self._addresses),
            "listening_to": self._listening if self._follower.stale_since is None else None,
            "stale_since": self._follower.stale_since,
            "epoch": replica.epoch,
            "revision": replica.revision,
            "updates": numbers.updates,
            "refused": dict(numbers.refused),
        }

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For GET /metrics."""
        replica, numbers = self._follower.replica, self._follower.numbers
        stale = self._follower.stale_since
        return {
            "yett_sync_connected": ("1 while an operator tells of changes.", float(stale is None)),
            "yett_sync_stale_seconds": (
                "Since when none does; 0 while one does.",
                0.0 if stale is None else max(0.0, time.time() - stale),
            ),
            "yett_sync_revision": ("Of what the operator sent.", replica.revision),
            "yett_sync_updates_total": ("Updates taken.", numbers.updates),
            "yett_sync_refused_total": ("Updates and connections refused.", numbers.refused.total()),
            "yett_sync_connects_total": ("Connections to replicas.", numbers.connects),
            "yett_sync_failed_connects_total": ("Attempts that failed.", numbers.failed_connects),
            "yett_sync_received_bytes_total": ("Bytes of updates.", numbers.received_bytes),
            "yett_sync_sent_bytes_total": ("Bytes of answers.", numbers.sent_bytes),
        }

    # -- inside ----------------------------------------------------------------------------

    async def _resolve(self) -> None:
        host, loop = self._operator.host, asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, self._operator.port, type=1)
        except OSError as error:
            self._complain("resolve", f"cannot find the operator {host}: {error.strerror or error}")
            return
        self._complaints.pop("resolve", None)
        self._addresses = frozenset(sorted({str(item[4][0]) for item in found})[:REPLICAS_MAX])

    async def _keep(self, session: aiohttp.ClientSession, address: str) -> None:
        """Connected to one replica, for as long as the name resolves to it."""
        failures = 0
        while address in self._addresses:
            begun, complaint = time.monotonic(), ""
            try:
                await self._connect(session, address)
            except (Broken, NotReady, aiohttp.ClientError, OSError, TimeoutError) as error:
                complaint = _sentence(error)
            finally:
                self._lost(address)
            if not complaint:
                continue  # it left by itself, to come back in another role
            failures = 1 if time.monotonic() - begun > self._times.lived else failures + 1
            self._follower.numbers.failed_connects += 1
            self._complain(address, f"no stream from the operator at {address}: {complaint}")
            await asyncio.sleep(self._pause(failures))

    async def _connect(self, session: aiohttp.ClientSession, address: str) -> None:
        subscribe = self._listening is None
        if subscribe:
            self._listening = address
        token, tls = self._token(), self._tls()
        host = f"[{address}]" if ":" in address else address
        async with asyncio.timeout(self._times.connect):
            socket = await session.ws_connect(
                f"wss://{host}:{self._operator.port}{self._operator.path}",
                ssl=tls,
                server_hostname=self._operator.host,
                headers={"Authorization": f"Bearer {token}", "Host": self._operator.host},
                protocols=(SUBPROTOCOL,),
                autoping=False,
                compress=0,
                max_msg_size=MESSAGE_LIMIT,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        async with socket:
            if socket.protocol != SUBPROTOCOL:
                raise Broken(f"it does not speak {SUBPROTOCOL}")
            connection = Connection(
                socket, self._node, self._follower, self._token, self._times, subscribe=subscribe
            )
            await connection.run(lambda: self._welcomed(address, connection))

    def _complain(self, about: str, sentence: str) -> None:
        if self._complaints.get(about) != sentence:
            self._complaints[about] = sentence
            log.warning("%s; what is in force stays so", sentence)

    def _welcomed(self, address: str, connection: Connection) -> None:
        self._follower.numbers.connects += 1
        self._complaints.pop(address, None)
        if connection.subscribed:
            log.info("following the operator at %s", address)
            self._follower.stale_since = None
        else:
            self._reporting[address] = connection
            if self._listening is None:
                connection.leave()  # whoever was to be listened to failed meanwhile

    def _lost(self, address: str) -> None:
        self._reporting.pop(address, None)
        if self._listening != address:
            return
        self._listening = None
        if self._follower.stale_since is None:
            self._follower.stale_since = time.time()
        if self._reporting:
            random.choice(list(self._reporting.values())).leave()  # noqa: S311 - no secret

    def _pause(self, failures: int) -> float:
        span = min(self._times.retry_first * 2.0 ** min(failures - 1, 16), self._times.retry_most)
        return random.uniform(span / 10, span)  # noqa: S311 - no secret

    def _token(self) -> str:
        path = self._credentials.token_file
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise NotReady(f"cannot read the token {path}: {reason}; see --token-file") from None
        if not token or any(char.isspace() for char in token):
            raise NotReady(f"cannot use the token {path}: it is empty or has spaces; see --token-file")
        return token

    def _tls(self) -> ssl.SSLContext:
        path = self._credentials.ca_file
        try:
            context = ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise NotReady(
                f"cannot read the certificate authority {path}: {error.strerror or error}; see --ca-file"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


def _sentence(error: Exception) -> str:
    match error:
        case aiohttp.WSServerHandshakeError(status=status):
            hint = {401: "it refuses this node's token", 503: "it cannot review tokens now"}
            return f"it answers {status}: {hint.get(status, 'it takes no stream here')}"
        case TimeoutError():
            return "it does not answer in time"
        case _:
            return str(error) or type(error).__name__
