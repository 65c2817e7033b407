"""Tokens checked by the API server, with TokenReview."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from kubernetes_asyncio.client import (
    ApiClient,
    ApiException,
    AuthenticationV1Api,
    V1TokenReview,
    V1TokenReviewSpec,
)

from yett_operator.sync.auth import AUDIENCE, Caller, Denied, Unavailable

NODE_NAME = "authentication.kubernetes.io/node-name"
POD_NAME = "authentication.kubernetes.io/pod-name"
REVIEW_SECONDS = 10.0


class TokenReview:
    """Accepts tokens of one ServiceAccount that are bound to a node, and made for us."""

    def __init__(self, client: ApiClient, namespace: str, service_account: str = "yett-loader") -> None:
        """`client` is closed by whoever made it."""
        self._api = AuthenticationV1Api(client)
        self._username = f"system:serviceaccount:{namespace}:{service_account}"

    async def authenticate(self, token: str) -> Caller:
        """See `Authenticator`."""
        review = V1TokenReview(spec=V1TokenReviewSpec(token=token, audiences=[AUDIENCE]))
        try:
            async with asyncio.timeout(REVIEW_SECONDS):
                answer: Any = await self._api.create_token_review(review)
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
            # Not `str(error)`: that of an ApiException has the request's headers in it.
            status = f" ({error.status} {error.reason})" if isinstance(error, ApiException) else ""
            raise Unavailable(
                f"the API server does not answer TokenReview: {type(error).__name__}{status}"
            ) from error
        return caller_of(answer.status, self._username)


def caller_of(status: Any, username: str) -> Caller:
    """What a TokenReview's status says; Denied unless all of it is right."""
    if status is None or not status.authenticated:
        why = (status.error if status is not None else "") or "it is forged, expired or revoked"
        raise Denied("NotAuthenticated", f"the token is not valid: {why}")
    if AUDIENCE not in (status.audiences or ()):
        raise Denied("WrongAudience", f"the token is not for the audience {AUDIENCE}")
    user = status.user
    if user is None or user.username != username:
        raise Denied(
            "WrongAccount", f"the token is of {user.username if user else 'nobody'}, not of {username}"
        )
    nodes = (user.extra or {}).get(NODE_NAME) or []
    if len(nodes) != 1 or not nodes[0]:
        raise Denied(
            "NotBound",
            f"the token is bound to no node ({NODE_NAME}); it must be a pod's own, from Kubernetes >= 1.30",
        )
    pods = (user.extra or {}).get(POD_NAME) or [""]
    return Caller(str(nodes[0]), str(pods[0]))
