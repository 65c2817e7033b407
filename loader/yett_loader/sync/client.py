"""The loader's client: finds a replica of the operator, follows it, and finds another when it must."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time

import aiohttp

from yett_loader.errors import NotReady
from yett_loader.sync.connection import Broken, Connection
from yett_loader.sync.follower import Follower
from yett_loader.sync.settings import Credentials, Operator, Times
from yett_policy.sync.frame import BUNDLE, SUBPROTOCOL, TO_LOADER_LIMIT

log = logging.getLogger(__name__)

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
        self._address = ""
        """Of the replica that is followed, or was tried last."""
        self._complaint = ""
        """What was logged last, until it is well again."""

    async def run(self) -> None:
        """For ever."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        trying = asyncio.create_task(self._follower.keep_trying(self._times.again))
        failures = 0
        try:
            async with aiohttp.ClientSession(connector=connector) as session:
                while True:
                    begun = time.monotonic()
                    complaint = await self._follow(session)
                    if self._follower.stale_since is None:
                        self._follower.stale_since = time.time()
                        self._complaint = ""
                    failures = 1 if time.monotonic() - begun > self._times.lived else failures + 1
                    self._complain(complaint)
                    await asyncio.sleep(self._pause(failures))
        finally:
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)
            await self._follower.close()

    @property
    def told(self) -> bool:
        """Whether an operator tells of changes now."""
        return self._follower.stale_since is None

    def status(self) -> dict[str, object]:
        """For people."""
        replica, numbers = self._follower.replica, self._follower.numbers
        return {
            "operator": f"{self._operator.host}:{self._operator.port}",
            "replica": self._address if self._follower.stale_since is None else "",
            "stale_since": self._follower.stale_since,
            "problem": self._complaint,
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

    async def _follow(self, session: aiohttp.ClientSession) -> str:
        """One replica, for as long as it goes well; why it does not."""
        try:
            self._address = await self._resolve()
            await self._connect(session, self._address)
        except (Broken, NotReady, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._follower.numbers.failed_connects += self._follower.stale_since is not None
            return _sentence(error)
        return "it ended"

    async def _resolve(self) -> str:
        """Some replica, another than the last one if there is another."""
        host, loop = self._operator.host, asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, self._operator.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Broken(f"cannot find {host}: {error.strerror or error}") from None
        addresses = {str(item[4][0]) for item in found}
        others = addresses - {self._address} or addresses
        return random.choice(sorted(others))  # noqa: S311 - no secret

    async def _connect(self, session: aiohttp.ClientSession, address: str) -> None:
        token, tls = self._token(), self._tls()
        host = f"[{address}]" if ":" in address else address
        async with asyncio.timeout(self._times.connect):
            opened = await session.ws_connect(
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
        async with opened:
            if opened.protocol != SUBPROTOCOL:
                raise Broken(f"it does not speak {SUBPROTOCOL}")
            connection = Connection(opened, self._node, self._follower, self._token, self._times)
            await connection.run(self._welcomed)

    def _welcomed(self) -> None:
        log.info("following the operator at %s", self._address)
        self._follower.numbers.connects += 1
        self._follower.stale_since = None
        self._complaint = ""

    def _complain(self, complaint: str) -> None:
        """Log it, unless it was said the last time."""
        if complaint == self._complaint:
            return
        self._complaint = complaint
        log.warning(
            "no stream from the operator (%s): %s; what is in force stays so", self._address, complaint
        )

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
