"""Kopf: the process's life cycle and admission.

Only low-level handlers: Kopf's create and update handlers would write annotations and
finalizers into users' objects.  Nor does Kopf watch the policies: after a gap in the history it
lists again but does not tell what was deleted meanwhile, and a policy that is gone and goes
on being enforced is a fault that nobody finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import kopf
from kopf._core.engines.peering import Identity  # Kopf has no public name for it

from yett_operator.kube.client import Kube
from yett_operator.kube.slim import SlimPolicy
from yett_operator.webhook.review import names_engine, review
from yett_operator.webhook.server import AdmissionServer

log = logging.getLogger(__name__)

RESOURCES = (
    ("yett.dev", "v1alpha1", "l7policies"),
    ("yett.dev", "v1alpha1", "clusterl7policies"),
    ("cilium.io", "v2", "ciliumnetworkpolicies"),
    ("cilium.io", "v2", "ciliumclusterwidenetworkpolicies"),
    ("networking.k8s.io", "v1", "networkpolicies"),
)
REFUSED = 422


Policies = Mapping[str, SlimPolicy]


def registry(kube: Kube, policies: Policies) -> kopf.OperatorRegistry:
    """The handlers; `policies` are those that are stored."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await kube.kopf_connection()

    async def validate(body: kopf.Body, warnings: list[str], **_: Any) -> None:
        # In a thread: a policy may be big, and the event loop has other things to do.
        plain = _plain(body)
        stored = [each.body for each in policies.values() if names_engine(each.body)]
        answer = await asyncio.to_thread(review, plain, stored)
        warnings += answer.warnings
        if answer.error:
            raise kopf.AdmissionError(answer.error, code=REFUSED)

    for group, version, plural in RESOURCES:
        kopf.on.validate(
            group,
            version,
            plural,
            id=f"validate-{plural}",
            operations=["CREATE", "UPDATE"],
            side_effects=False,
            registry=handlers,
        )(validate)
    return handlers


def settings(server: AdmissionServer) -> kopf.OperatorSettings:
    """Standalone (leader election is ours), and nothing is ever written by Kopf."""
    made = kopf.OperatorSettings()
    made.peering.standalone = True
    made.posting.enabled = False
    made.posting.loggers = False
    made.admission.server = server
    made.admission.managed = None
    # If ever a handler were added that needs them, they would at least be our own.
    made.persistence.finalizer = "yett.dev/unused"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="yett.dev")
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="yett.dev")
    return made


async def run(
    kube: Kube, server: AdmissionServer, policies: Policies, identity: str, started: asyncio.Event
) -> None:
    """Until SIGTERM or SIGINT, for as long as nobody else handles these once it has `started`.

    `identity`: of this replica; left to itself, Kopf asks for the name of a user that has none.
    """
    await kopf.operator(
        registry=registry(kube, policies),
        settings=settings(server),
        identity=Identity(identity),
        clusterwide=True,
        standalone=True,
        ready_flag=started,
    )


def _plain(value: Any) -> Any:
    """Kopf's read-only views as dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
