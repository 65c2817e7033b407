"""Leader election by a Lease: one replica writes, all serve.

kubernetes-asyncio has one, but it does not wait for the leader's work to end before it is a
follower again, and does not end it when it is cancelled itself: for a moment two would write.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from yett_operator.kube.client import ApiError, Json, Kube
from yett_operator.metrics import LEADER

log = logging.getLogger(__name__)

DURATION = 10
"""Seconds that a lease lasts after it was renewed."""
DEADLINE = 6.0
"""Seconds without a renewal after which the leader stops by itself; the rest is for stopping."""
PERIOD = 1.5
"""Seconds between attempts."""
ADDRESS = "yett.dev/address"
"""Annotation of the Lease: where the leader takes what other replicas hear from loaders."""


class Election:
    """One candidate."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        lead: Callable[[], Awaitable[None]],
        *,
        address: str = "",
        duration: int = DURATION,
        deadline: float = DEADLINE,
        period: float = PERIOD,
    ) -> None:
        """`lead` does the leader's work until it is cancelled."""
        self.leading = False
        self.leader_address = ""
        """Of the current leader, as far as it is known."""
        self._kube = kube
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._lead = lead
        self._address = address
        self._duration = duration
        self._deadline = deadline
        self._period = period
        self._seen: tuple[str, str] = ("", "")
        """Holder and time of the last renewal that we saw."""
        self._seen_at = 0.0

    @property
    def other_leader(self) -> str:
        """Address of the leader if that is another replica, else empty.

        One that was killed and started again finds its former self in the lease, at its own address.
        """
        return "" if self.leading or self.leader_address == self._address else self.leader_address

    async def run(self) -> None:
        """For ever.  On cancellation the lease is given back, so another leads at once."""
        while True:
            if await self._attempt():
                await self._be_leader()
            await asyncio.sleep(self._period * random.uniform(0.8, 1.2))  # noqa: S311 - spreads candidates

    async def _be_leader(self) -> None:
        log.info("leading as %s", self._identity)
        renewed = time.monotonic()
        self.leading = True
        LEADER.set(1)
        work = asyncio.ensure_future(self._lead())
        try:
            while time.monotonic() - renewed < self._deadline and not work.done():
                await asyncio.wait([work], timeout=self._period)
                begin = time.monotonic()
                if await self._attempt():
                    renewed = begin
                elif self._seen[0] not in {"", self._identity}:
                    log.warning("%s leads now", self._seen[0])
                    break
        finally:
            self.leading = False
            LEADER.set(0)
            await _end(work)
            log.info("not leading any more")
            with suppress(ApiError):
                await asyncio.shield(self._release())
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def _attempt(self) -> bool:
        """Take or renew the lease; whether it is ours now."""
        try:
            async with asyncio.timeout(self._period * 2):
                return await self._take()
        except ApiError as error:
            if error.status != 409:
                log.warning("%s", error)
        except TimeoutError:
            log.warning("cannot renew the lease %s: the API server does not answer", self._name)
        return False

    async def _take(self) -> bool:
        try:
            lease = await self._kube.get(f"{self._leases}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            lease = None
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if lease is None:
            await self._kube.post(self._leases, self._object({}, {"acquireTime": now, "renewTime": now}))
            self._saw(self._identity, now, self._address)
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        annotations = lease["metadata"].get("annotations") or {}
        self._saw(holder, spec.get("renewTime") or "", annotations.get(ADDRESS, ""))
        if holder not in {"", self._identity} and not self._expired(spec):
            return False
        changes: dict[str, Any] = {"renewTime": now}
        if holder != self._identity:
            transitions = int(spec.get("leaseTransitions") or 0) + 1
            changes |= {"acquireTime": now, "leaseTransitions": transitions}
        await self._kube.put(f"{self._leases}/{self._name}", self._object(lease, changes))
        self._saw(self._identity, now, self._address)
        return True

    def _saw(self, holder: str, renewed: str, address: str) -> None:
        """Clocks of other machines are not compared with ours: what counts is when a change was seen."""
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), time.monotonic()
        self.leader_address = address if holder else ""

    def _expired(self, spec: Json) -> bool:
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        return time.monotonic() - self._seen_at > duration

    def _object(self, lease: Json, changes: Json) -> Json:
        """The resourceVersion in the metadata makes the write conditional."""
        metadata = dict(lease.get("metadata") or {"name": self._name})
        metadata.pop("managedFields", None)
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ADDRESS: self._address}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                **(lease.get("spec") or {}),
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._duration,
                **changes,
            },
        }

    async def _release(self) -> None:
        """If it is still ours."""
        lease = await self._kube.get(f"{self._leases}/{self._name}")
        if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            body = self._object(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})
            await self._kube.put(f"{self._leases}/{self._name}", body)
        self._seen = ("", "")


async def _end(work: asyncio.Future[None]) -> None:
    """Cancel and wait, whoever cancels us meanwhile."""
    work.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await asyncio.shield(asyncio.wait([work]))
