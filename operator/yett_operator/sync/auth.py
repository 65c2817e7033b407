"""Who is calling: a port, and what stands in front of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

AUDIENCE = "yett-operator"
"""What a loader's token must be made for."""

AT_ONCE = 16
"""Reviews under way; more wait, so that a thousand loaders do not become a thousand requests."""
WAITING_MAX = 2000
REMEMBERED_SECONDS = 10.0
"""A refused token is refused again without asking; short, because clocks and caches catch up."""
REMEMBERED = 1024


class Denied(Exception):  # noqa: N818 - reads better
    """The caller is not who may call; `str()` is one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """CamelCase, for counters."""


class Unavailable(Exception):  # noqa: N818 - reads better
    """It cannot be found out now."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A loader, by its token."""

    node: str
    """That the token is bound to."""
    pod: str = ""


class Authenticator(Protocol):
    """Finds out who holds a token."""

    async def authenticate(self, token: str) -> Caller:
        """Denied if it is nobody who may call; Unavailable if that cannot be found out now."""


def bearer(header: str | None) -> str:
    """The token of an Authorization header; Denied if there is none."""
    scheme, _, token = (header or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Denied("NoToken", "there is no bearer token in the Authorization header")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Denied("BadToken", "the bearer token has characters that no token has")
    return token


class Gate:
    """An authenticator that is not asked too much."""

    def __init__(self, inner: Authenticator, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._refused: OrderedDict[bytes, tuple[float, Denied]] = OrderedDict()

    async def authenticate(self, token: str) -> Caller:
        """As the inner one."""
        key = hashlib.sha256(token.encode()).digest()
        until, denied = self._refused.get(key, (0.0, None))
        if denied is not None and self._clock() < until:
            raise Denied(denied.reason, str(denied))
        if self._waiting >= WAITING_MAX:
            raise Unavailable(f"{self._waiting} callers are waiting for their token's review")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._inner.authenticate(token)
        except Denied as error:
            self._refused[key] = (self._clock() + REMEMBERED_SECONDS, error)
            self._refused.move_to_end(key)
            if len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)
            raise
        finally:
            self._waiting -= 1
