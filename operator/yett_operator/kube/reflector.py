"""A copy of all objects of one kind, kept up to date: list, then watch.

What is stored is what `slim` makes of an object, so an event that changes nothing that counts
ends here.  After a gap (the server no longer has the history: 410) everything is listed
again and *replaces* what was known, so an object that was deleted meanwhile is seen to be gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Callable, Hashable
from contextlib import aclosing
from typing import Generic, TypeVar

from yett_operator.kube.client import OPENED, ApiError, Json, Kube
from yett_operator.metrics import LISTS

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PAGE = 250
"""Objects that are asked for at once."""
_BACKOFF = (0.2, 20.0)
"""Seconds: first and longest wait after an error."""
_ABSENT = 15.0
"""Seconds between two looks for a kind that the cluster does not have."""


class Reflector(Generic[K, V]):
    """Follows one collection; `changed` is called on the event loop for every real change."""

    def __init__(
        self,
        kube: Kube,
        path: str,
        slim: Callable[[Json], tuple[K, V | None]],
        changed: Callable[[K, V | None], None],
        *,
        optional: bool = False,
        query: dict[str, str] | None = None,
        items: dict[K, V] | None = None,
    ) -> None:
        """`slim`: key and value of an object; None: as if it were not there.

        `items`: where the copy is kept, if somebody else needs it too; `changed` finds it as it was before.

        `optional`: the cluster may not have the kind; then there are no objects.
        """
        self.path = path
        self.items: dict[K, V] = {} if items is None else items
        self.synced = asyncio.Event()
        """Everything was seen once."""
        self.error = ""
        """Why it is out of date; empty if it is not."""
        self.lists = 0
        """How often everything was listed."""
        self._kube = kube
        self._slim = slim
        self._changed = changed
        self._optional = optional
        self._query = query or {}
        self._version: str | None = None
        self._absent = False

    async def run(self) -> None:
        """For ever."""
        wait = _BACKOFF[0]
        while True:
            try:
                if self._version is None:
                    await self._list()
                wait = _BACKOFF[0]
                await self._watch()
                continue
            except ApiError as error:
                if self._is_absent(error):
                    await asyncio.sleep(_ABSENT)
                    continue
                if error.gone:
                    self._version = None
                    continue
                if not self.error:
                    log.warning("%s", error)
                self.error = str(error)
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
            wait = min(2 * wait, _BACKOFF[1])

    def _is_absent(self, error: ApiError) -> bool:
        """A kind that is not served, or no longer, has no objects."""
        if not self._optional or error.status != 404:
            return False
        if not self._absent:
            log.info("%s is not there; looking again every %g s", self.path, _ABSENT)
        self._absent, self._version, self.error = True, None, ""
        self._replace({})
        self.synced.set()
        return True

    async def _list(self) -> None:
        found: dict[K, V] = {}

        def take(item: Json) -> None:
            key, value = self._slim(item)
            if value is not None:
                found[key] = value

        more = ""
        while True:
            query = {**self._query, "limit": str(PAGE), **({"continue": more} if more else {})}
            metadata = await self._kube.page(self.path, take, **query)
            more = metadata.get("continue") or ""
            if not more:
                break
        self._replace(found)
        self._version = metadata["resourceVersion"]
        self.error, self._absent = "", False
        self.lists += 1
        LISTS.labels(self.path.rpartition("/")[2]).inc()
        if not self.synced.is_set():
            log.info("%s: %d objects", self.path, len(self.items))
            self.synced.set()
            gc.freeze()  # what is there now stays; no need to walk it again and again

    def _replace(self, found: dict[K, V]) -> None:
        for key in self.items.keys() - found.keys():
            self._put(key, None)
        for key, value in found.items():
            self._put(key, value)

    def _put(self, key: K, value: V | None) -> None:
        if self.items.get(key) == value:
            return
        self._changed(key, value)
        if value is None:
            self.items.pop(key, None)
        else:
            self.items[key] = value

    async def _watch(self) -> None:
        lifetime = str(random.randint(300, 420))  # noqa: S311 - not all at once
        query = {**self._query, "resourceVersion": self._version or "", "timeoutSeconds": lifetime}
        async with aclosing(self._kube.watch(self.path, **query)) as events:
            async for event in events:
                self.error = ""
                kind, item = event.get("type"), event.get("object") or {}
                if kind == OPENED:
                    continue
                if kind == "ERROR":
                    raise ApiError(
                        f"watch {self.path}",
                        int(item.get("code") or 0),
                        str(item.get("reason", "")),
                        str(item.get("message", "")),
                    )
                if kind in {"ADDED", "MODIFIED", "DELETED"}:
                    key, value = self._slim(item)
                    self._put(key, None if kind == "DELETED" else value)
                self._version = item["metadata"]["resourceVersion"]
