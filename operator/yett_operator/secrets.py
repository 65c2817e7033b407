"""Secrets that rules name: each is watched by its name, and its value goes to loaders and nowhere else.

What is seen of a value is a version, which is random: a digest could be guessed from.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from yett_operator.kube.client import OPENED, ApiError, Json, Kube
from yett_operator.ports import PublishedSecret
from yett_policy.http.change import value_problem

log = logging.getLogger(__name__)

ROLE = "yett-secret-reader"
NAMES_MAX = 256
"""Watched at once; each takes a connection to the API server."""
_BACKOFF = (0.2, 10.0)
"""Seconds: first and longest wait after an error."""

Named = Mapping[str, bool]
"""Secrets, and whether the rules that name them have a value to use without them."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a Secret gives no value; reads on from its name."""

    problem: str


class Secrets:
    """Those that policies in force name."""

    def __init__(
        self,
        kube: Kube,
        publish: Callable[[str, PublishedSecret | None], None],
        changed: Callable[[Iterable[str]], None],
    ) -> None:
        """`changed` is called with policies of which `problems` may say something else."""
        self._kube = kube
        self._publish = publish
        self._changed = changed
        self._named: dict[str, Named] = {}
        """By policy."""
        self._known: dict[str, PublishedSecret | Unusable] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wanted = asyncio.Event()

    # -- what policies name ----------------------------------------------------------------

    def named(self, policies: Mapping[str, Named]) -> None:
        """What these policies name now."""
        for source, named in policies.items():
            if named:
                self._named[source] = named
            else:
                self._named.pop(source, None)
        self._wanted.set()

    @property
    def sources(self) -> tuple[str, ...]:
        """Policies that name a Secret."""
        return tuple(self._named)

    def problems(self, source: str) -> tuple[str, ...]:
        """A sentence for each Secret that a policy names and that gives no value."""
        found = []
        for name, replaceable in sorted(self._named.get(source, {}).items()):
            known = self._known.get(name)
            if isinstance(known, Unusable):
                instead = "use their value" if replaceable else "match nothing"
                found.append(f"Secret {name} {known.problem}: the rules that name it {instead}")
        return tuple(found)

    # -- watching --------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                self._settle()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _settle(self) -> None:
        wanted = sorted({name for named in self._named.values() for name in named})
        for name in self._tasks.keys() - set(wanted):
            self._tasks.pop(name).cancel()
        for name in self._known.keys() - set(wanted):
            del self._known[name]
            self._publish(name, None)
        for name in wanted:
            if name in self._tasks:
                continue
            if len(self._tasks) >= NAMES_MAX:
                self._put(name, Unusable(f"is not watched, for {NAMES_MAX} others are"))
                continue
            self._tasks[name] = asyncio.create_task(self._follow(name), name=f"secret {name}")

    async def _follow(self, name: str) -> None:
        namespace, _, own = name.partition("/")
        path = f"/api/v1/namespaces/{namespace}/secrets"
        selector = f"metadata.name={own}"
        wait = _BACKOFF[0]
        while True:
            try:
                page = await self._kube.get(path, fieldSelector=selector)
                items = [item for item in page.get("items") or () if item["metadata"]["name"] == own]
                self._put(name, value_of(items[0]) if items else Unusable("is not there"))
                wait = _BACKOFF[0]
                await self._watch(name, path, selector, page["metadata"]["resourceVersion"])
            except ApiError as error:
                if error.status in {401, 403}:
                    why = f"cannot be read by the operator; bind the ClusterRole {ROLE} to it in {namespace}"
                    self._put(name, Unusable(why))
                elif not error.gone:
                    log.warning("%s", error)  # what was known stays in force
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
            wait = min(2 * wait, _BACKOFF[1])

    async def _watch(self, name: str, path: str, selector: str, version: str) -> None:
        lifetime = str(random.randint(300, 420))  # noqa: S311 - not all at once
        watch = self._kube.watch(
            path, fieldSelector=selector, resourceVersion=version, timeoutSeconds=lifetime
        )
        async with aclosing(watch) as events:
            async for event in events:
                kind, item = event.get("type"), event.get("object") or {}
                if kind == "ERROR":
                    reason = str(item.get("reason", ""))
                    raise ApiError(f"watch {path}", int(item.get("code") or 0), reason, "")
                if kind in {OPENED, "BOOKMARK"}:
                    continue
                self._put(name, Unusable("is not there") if kind == "DELETED" else value_of(item))

    def _put(self, name: str, new: str | Unusable) -> None:
        old = self._known.get(name)
        if isinstance(new, Unusable):
            if old == new:
                return
            self._known[name] = new
            self._publish(name, None)
            log.warning("Secret %s %s", name, new.problem)
        else:
            if isinstance(old, PublishedSecret) and old.value == new:
                return
            self._known[name] = made = PublishedSecret(secrets.token_hex(16), new)
            self._publish(name, made)
        self._changed([source for source, named in self._named.items() if name in named])


def value_of(secret: Json) -> str | Unusable:
    """The one value of a Secret; what is said of one that is unusable says nothing of it."""
    data = secret.get("data") or {}
    if len(data) != 1:
        return Unusable(f"has {len(data)} keys, not one")
    try:
        (value,) = (base64.b64decode(text, validate=True).decode("ascii") for text in data.values())
    except (binascii.Error, ValueError):
        return Unusable("is no header value: it has characters that are not printable ASCII")
    problem = value_problem(value)
    return Unusable(f"is no header value: it {problem}") if problem else value
