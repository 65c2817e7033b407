"""Raw requests to the API server: JSON in, JSON out, watches as lines.

kubernetes-asyncio finds the server, the certificates and a fresh token; its typed models are
left out, because making them costs a hundred times what parsing the JSON does.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import kopf
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration

from yett_operator.kube import pages

Json = dict[str, Any]

MANAGER = "yett-operator"
"""Field manager of everything that we apply."""

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=150)
"""The API server sends a bookmark every minute or two; after longer silence we ask anew."""
OPENED = "OPENED"
"""Type of an event of our own: the server has accepted the watch."""
_KOPF_TOKEN = timedelta(minutes=10)
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)


class ApiError(Exception):
    """An answer that is not what was asked for; `str()` is one sentence."""

    def __init__(self, operation: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"cannot {operation}: {message or reason or status}")
        self.status = status
        """HTTP status; 0: no answer at all."""
        self.reason = reason
        """As the API server's, like `AlreadyExists` or `Expired`."""

    @property
    def gone(self) -> bool:
        """The resource version asked for is too old."""
        return self.status == 410 or self.reason in {"Expired", "Gone"}


class Kube:
    """One API server; an async context manager."""

    def __init__(self, configuration: Configuration, connections: int = 64) -> None:
        """`connections`: at once; each watch takes one."""
        self._connections = connections
        self._configuration = configuration
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """By a kubeconfig file, else as kubectl does, else by the pod's service account.

        ApiError if none of them is there.
        """
        configuration = Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
            else:
                await config.load_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise ApiError("find the API server", 0, "NoConfiguration", str(error)) from error
        return cls(configuration)

    async def kopf_connection(self) -> kopf.ConnectionInfo:
        """The same server and credentials, for Kopf."""
        c = self._configuration
        token = await c.get_api_key_with_prefix("BearerToken", "authorization")
        scheme, _, secret = (token or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=self.server,
            ca_path=c.ssl_ca_cert,
            insecure=not c.verify_ssl,
            scheme=(scheme or "Bearer") if secret else None,
            token=secret or None,
            certificate_path=c.cert_file,
            private_key_path=c.key_file,
            # Tokens of service accounts are renewed under way.
            expiration=datetime.now(UTC) + _KOPF_TOKEN if secret else None,
        )

    @property
    def configuration(self) -> Configuration:
        """For clients of other parts of the API."""
        return self._configuration

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._configuration.host)

    async def __aenter__(self) -> Self:
        c = self._configuration
        context = ssl.create_default_context(cafile=c.ssl_ca_cert)
        if c.cert_file:
            context.load_cert_chain(c.cert_file, keyfile=c.key_file)
        if not c.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=context, socket_factory=_socket)
        # Not `trust_env`: that reads netrc for each request.
        self._session = aiohttp.ClientSession(
            connector=connector, read_bufsize=1 << 20, proxy=_proxy(self.server)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: str) -> Json:
        """One object, or a list."""
        return await self._request("GET", path, query)

    async def page(self, path: str, each: Callable[[Json], None], **query: str) -> Json:
        """The metadata of a list, whose items `each` has got, one after the other."""
        text = (await self._raw("GET", path, query)).decode()
        try:
            return pages.read(text, each)
        except ValueError as error:
            raise ApiError(f"get {path}", 0, "NotJson", f"the answer is not a list: {error}") from error

    async def post(self, path: str, body: Json, **query: str) -> Json:
        """Create."""
        return await self._request("POST", path, query, json.dumps(body), "application/json")

    async def put(self, path: str, body: Json) -> Json:
        """Replace; a resourceVersion in the body makes it conditional."""
        return await self._request("PUT", path, {}, json.dumps(body), "application/json")

    async def patch(self, path: str, operations: list[Json]) -> Json:
        """JSON patch."""
        return await self._request("PATCH", path, {}, json.dumps(operations), "application/json-patch+json")

    async def apply(self, path: str, body: Json) -> Json:
        """Server-side apply as `MANAGER`, taking over fields that others hold."""
        return await self._request(
            "PATCH",
            path,
            {"fieldManager": MANAGER, "force": "true"},
            json.dumps(body),
            "application/apply-patch+yaml",
        )

    async def delete(self, path: str) -> Json:
        """Delete one object."""
        return await self._request("DELETE", path, {})

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], body: str | None = None, kind: str = ""
    ) -> Json:
        return _parsed(f"{method.lower()} {path}", await self._raw(method, path, query, body, kind))

    async def _raw(
        self, method: str, path: str, query: Mapping[str, str], body: str | None = None, kind: str = ""
    ) -> bytes:
        headers = await self._headers()
        if body is not None:
            headers["Content-Type"] = kind
        operation = f"{method.lower()} {path}"
        try:
            async with self._open().request(
                method, self.server + path, params=query, data=body, headers=headers, timeout=_TIMEOUT
            ) as answer:
                text = await answer.read()
                if answer.status >= 400:
                    raise _error(operation, answer.status, text)
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(operation, 0, "Unreachable", _words(error)) from error

    async def watch(self, path: str, **query: str) -> AsyncGenerator[Json, None]:
        """Events of a watch, `OPENED` first, until the server ends it or is silent for long;
        ApiError if it breaks off.
        """
        operation = f"watch {path}"
        rest = b""
        try:
            async with self._open().get(
                self.server + path,
                params={**query, "watch": "1", "allowWatchBookmarks": "true"},
                headers=await self._headers(),
                timeout=_WATCH_TIMEOUT,
            ) as answer:
                if answer.status >= 400:
                    raise _error(operation, answer.status, await answer.read())
                yield {"type": OPENED}
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield _parsed(operation, line)
        except aiohttp.SocketTimeoutError:
            return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(operation, 0, "Unreachable", _words(error)) from error

    async def _headers(self) -> dict[str, str]:
        token = await self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        return {**headers, "Authorization": token} if token else headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open; use `async with`")
        return self._session


def _proxy(server: str) -> str | None:
    """That the environment names for the API server."""
    parts = urlsplit(server)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _socket(info: Any) -> socket.socket:
    """Dead peers are noticed within twenty seconds, also by a watch that only listens."""
    family, kind, proto, _, _ = info
    made = socket.socket(family, kind, proto)
    for level, option, value in _KEEPALIVE:
        made.setsockopt(level, option, value)
    return made


def _parsed(operation: str, text: bytes) -> Json:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise ApiError(operation, 0, "NotJson", f"the answer is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(operation, 0, "NotJson", "the answer is not an object")
    return value


def _error(operation: str, status: int, text: bytes) -> ApiError:
    try:
        body = json.loads(text)
        return ApiError(operation, status, str(body.get("reason", "")), str(body.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(operation, status, "", text[:200].decode(errors="replace"))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
