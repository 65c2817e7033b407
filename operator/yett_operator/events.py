"""Events on policies: a complement to their conditions, for `kubectl describe`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import takewhile

from yett_operator.kube.client import MANAGER, ApiError, Json, Kube
from yett_operator.kube.slim import SlimPolicy

log = logging.getLogger(__name__)

REPEAT = 300.0
"""Seconds in which the same thing is not said again of one policy."""
_QUEUE = 256
"""Events waiting; more are left out."""
_MESSAGE_MAX = 1000


class Events:
    """Posts in the background; never delays or fails what it tells of."""

    def __init__(self, kube: Kube, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._instance = instance
        self._clock = clock
        self._queue: asyncio.Queue[Json] = asyncio.Queue(_QUEUE)
        self._said: dict[int, float] = {}
        """Hash of what was said of whom -> when, oldest first."""

    def post(self, policy: SlimPolicy, kind: str, reason: str, message: str) -> None:
        """`kind`: Normal or Warning."""
        now = self._clock()
        key = hash((policy.uid, reason, message))
        for old in list(takewhile(lambda each: now - self._said[each] >= REPEAT, self._said)):
            del self._said[old]
        if key in self._said or self._queue.full():
            return
        self._said[key] = now
        self._queue.put_nowait(event_object(policy, kind, reason, message, self._instance))

    async def run(self) -> None:
        """For ever."""
        while True:
            event = await self._queue.get()
            namespace = event["metadata"]["namespace"]
            try:
                await self._kube.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
            except ApiError as error:
                log.info("%s", error)


def event_object(policy: SlimPolicy, kind: str, reason: str, message: str, instance: str) -> Json:
    """As it is posted."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    regarding = {
        "apiVersion": policy.api_version,
        "kind": policy.kind,
        "name": policy.name,
        "uid": policy.uid,
        **({"namespace": policy.namespace} if policy.namespace else {}),
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{policy.name[:200]}-", "namespace": policy.namespace or "default"},
        "regarding": regarding,
        "type": kind,
        "reason": reason,
        "note": message[:_MESSAGE_MAX],
        "action": "Enforce",
        "reportingController": f"yett.dev/{MANAGER}",
        "reportingInstance": instance[:128],
        "eventTime": now,
    }
