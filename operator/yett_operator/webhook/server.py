"""Kopf's admission requests, served with our own certificate.

Kopf can make certificates and webhook configurations by itself, but only with the right to
change every webhook configuration of the cluster, and it removes them when it exits.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp.web
from kopf._core.engines.admission import WebhookError  # Kopf has no public name for it

from yett_operator.metrics import ADMISSIONS
from yett_operator.webhook.keeper import Keeper

log = logging.getLogger(__name__)

PATH = "/validate"
BODY_MAX = 8 << 20
"""Bytes of a review: old and new object, each at most what etcd stores."""


class AdmissionServer:
    """What `settings.admission.server` of Kopf wants: called with the function that answers."""

    def __init__(
        self, keeper: Keeper, host: str, port: int, more: Iterable[aiohttp.web.RouteDef] = ()
    ) -> None:
        """`more`: what else is served there."""
        self.port = port
        """0 becomes a free one when it starts."""
        self._keeper = keeper
        self._host = host
        self._more = tuple(more)
        self._answer: Any = None

    async def __call__(self, answer: Any) -> AsyncIterator[Any]:
        """Serve until cancelled."""
        self._answer = answer
        app = aiohttp.web.Application(client_max_size=BODY_MAX)
        app.add_routes([aiohttp.web.post(PATH, self._review), *self._more])
        runner = aiohttp.web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        try:
            site = aiohttp.web.TCPSite(
                runner, self._host, self.port, ssl_context=self._keeper.context, reuse_port=False
            )
            await site.start()
            self.port = runner.addresses[0][1]
            log.info("admission reviews on port %d", self.port)
            yield {"url": f"https://{self._host}:{self.port}{PATH}"}  # for Kopf; used by nobody
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(runner.cleanup())

    async def _review(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        try:
            review = json.loads(await request.read())
            answer = await self._answer(review, headers=dict(request.headers))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            ADMISSIONS.labels("bad").inc()
            raise aiohttp.web.HTTPBadRequest(
                reason=f"not an AdmissionReview: {type(error).__name__}"
            ) from None
        except WebhookError as error:  # a kind without a handler
            ADMISSIONS.labels("bad").inc()
            raise aiohttp.web.HTTPNotFound(reason=str(error)[:200].replace("\n", " ")) from None
        ADMISSIONS.labels("allowed" if answer["response"]["allowed"] else "refused").inc()
        return aiohttp.web.json_response(answer)
