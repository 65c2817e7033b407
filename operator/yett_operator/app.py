"""One replica of the operator: its parts, made and connected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kubernetes_asyncio.client import ApiClient

from yett_operator import identities
from yett_operator.compilation.batch import Outcome
from yett_operator.compilation.loop import CompileLoop
from yett_operator.compilation.process import CompilerProcess
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.world import Taken, World
from yett_operator.events import Events
from yett_operator.identities import Identities
from yett_operator.kube import slim
from yett_operator.kube.client import Kube
from yett_operator.kube.reflector import Reflector
from yett_operator.leader import Election
from yett_operator.memory import keep_trimmed
from yett_operator.metrics import (
    BUILD_INFO,
    DOCUMENTS,
    IDENTITIES,
    OBJECTS,
    POLICIES,
    REGISTRY,
    REVISION,
    SYNCED,
    Samples,
)
from yett_operator.ports import Change
from yett_operator.probes import ProbeServer
from yett_operator.relay import RelayClient, RelayServer, RelaySink
from yett_operator.secrets import NAMES_MAX, Secrets
from yett_operator.settings import Settings
from yett_operator.status.rollup import shown
from yett_operator.status.tracker import Tracker
from yett_operator.status.writer import StatusWriter
from yett_operator.sync.server import SyncServer
from yett_operator.sync.token_review import TokenReview
from yett_operator.webhook.keeper import Keeper
from yett_policy.cluster import DENY_RESPONSE, RESPONSES, Namespace, Node

log = logging.getLogger(__name__)

LEASE = "yett-operator"
POLICIES_AT = {
    "L7Policy": "/apis/yett.dev/v1alpha1/l7policies",
    "ClusterL7Policy": "/apis/yett.dev/v1alpha1/clusterl7policies",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
    "CiliumNetworkPolicy": "/apis/cilium.io/v2/ciliumnetworkpolicies",
    "CiliumClusterwideNetworkPolicy": "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies",
}
OPTIONAL = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_SWEEP = 60.0
"""Seconds between two looks for numbers that nothing uses."""


class Operator:
    """Watches, compiles and publishes on every replica; writes on the leader."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.settings = settings
        self.kube = kube
        self.publisher = Publisher()
        self.process = CompilerProcess(forbidden=RESPONSES[settings.deny_response])
        self.world = World(fallback=self._fallback)
        self.events = Events(kube, settings.identity)
        self.tracker = Tracker(self.publisher, self._status_changed)
        self.writer = StatusWriter(kube, self.tracker, self.world.policies, self.events, settings.namespace)
        # Of its own, so that many watches keep nobody from the API server.
        self._secret_kube = Kube(kube.configuration, 2 * NAMES_MAX)
        self.secrets = Secrets(self._secret_kube, self.publisher.publish_secret, self._secrets_changed)
        self.tracker.notes = self.secrets.problems
        self.identities = Identities(kube, self.world, self._compile_anew)
        self.compiling = CompileLoop(
            self.world, self.publisher, self.process, self.identities, self._compiled
        )
        self.keeper = Keeper(kube, settings.namespace, settings.names)
        self.probes = ProbeServer(settings.host, settings.http_port, self.problems, self._set_gauges)
        self.election = Election(
            kube,
            settings.namespace,
            LEASE,
            settings.identity,
            self._lead,
            address=f"{settings.address}:{settings.webhook_port}",
        )
        self.sink = RelaySink(self.tracker.nodes.via(""))
        self.relay_server = RelayServer(self.keeper, self.tracker.nodes, lambda: self.election.leading)
        self.relay_client = RelayClient(
            self.keeper,
            self.tracker.nodes,
            self.sink,
            lambda: self.election.other_leader,
            settings.names[0],
        )
        review = ApiClient(kube.configuration)
        self.sync = SyncServer(self.publisher, self.sink, TokenReview(review, settings.namespace))
        self._review = review
        self.reflectors = self._reflectors()

    def _reflectors(self) -> dict[str, Reflector[Any, Any]]:
        make: Callable[..., Reflector[Any, Any]] = partial(Reflector, self.kube)
        world = self.world
        found = {
            "pods": make("/api/v1/pods", slim.pod, world.pod, items=world.pods),
            "namespaces": make("/api/v1/namespaces", slim.namespace, self._namespace),
            "nodes": make("/api/v1/nodes", slim.node, self._node),
            "services": make("/api/v1/services", slim.service, world.service, items=world.services),
            "endpointslices": make(
                "/apis/discovery.k8s.io/v1/endpointslices",
                slim.endpoint_slice,
                world.slice,
                items=world.slices,
            ),
            "securityidentities": make(identities.PATH, slim.identity, self.identities.changed),
            "policystatuses": make(
                "/apis/yett.dev/v1alpha1/policystatuses", slim.status, self.writer.status_changed
            ),
        }
        for kind, path in POLICIES_AT.items():
            found[path.rpartition("/")[2]] = make(
                path, partial(slim.policy, kind=kind), self._policy, optional=kind in OPTIONAL
            )
        return found

    # -- running

    async def run(self) -> None:
        """Until cancelled; an exception means that the replica cannot go on."""
        BUILD_INFO.labels(package_version()).set(1)
        samples = Samples(self.sync.counters.samples)
        REGISTRY.register(samples)
        async with AsyncExitStack() as stack:
            stack.callback(REGISTRY.unregister, samples)
            stack.callback(self.process.close)
            stack.push_async_callback(self._review.close)
            await stack.enter_async_context(self._secret_kube)
            async with asyncio.TaskGroup() as tasks:
                for reflector in self.reflectors.values():
                    tasks.create_task(reflector.run())
                tasks.create_task(self.probes.run())
                tasks.create_task(self.events.run())
                tasks.create_task(keep_trimmed())
                await self.keeper.start()
                tasks.create_task(self.keeper.run())
                for reflector in self.reflectors.values():
                    await reflector.synced.wait()
                self._start_after_sync(tasks)

    def _start_after_sync(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self.compiling.run())
        tasks.create_task(self.secrets.run())
        tasks.create_task(self.election.run())
        tasks.create_task(self.relay_client.run())
        tasks.create_task(self._serve_loaders())

    async def _serve_loaders(self) -> None:
        settings = self.settings
        await self.sync.start(settings.host, settings.sync_port, self.keeper.context)
        try:
            await asyncio.Event().wait()
        finally:
            await self.sync.stop()

    async def _lead(self) -> None:
        """The leader's work, until it is cancelled."""
        self.identities.leading = True
        self.tracker.lead()
        self._secrets_changed(self.secrets.sources)
        for name in self.world.namespaces:
            self._warn_of_response(name, self.world.policies.values())
        work: list[Callable[[], Awaitable[None]]] = [
            self.identities.run,
            self.writer.run,
            self.keeper.lead,
            self._sweep,
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for run in work:
                    tasks.create_task(_run(run))
        finally:
            self.identities.leading = False
            await self.relay_server.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self.identities.sweep(self.publisher.identities)

    # -- what is heard

    def _policy(self, source: str, policy: slim.SlimPolicy | None) -> None:
        self.world.policy(source, policy)
        self.writer.changed([source])
        if policy is not None:
            self._warn_of_response(policy.namespace, [policy])

    def _namespace(self, name: str, namespace: Namespace | None) -> None:
        before = self.world.namespaces.get(name)
        self.world.namespace(name, namespace)
        if namespace is not None and (before is None or before.deny_response != namespace.deny_response):
            if wrong := wrong_response(namespace):
                log.warning("%s", wrong)
            self._warn_of_response(name, self.world.policies.values())

    def _warn_of_response(self, name: str, policies: Iterable[slim.SlimPolicy]) -> None:
        """The leader tells the owners of policies in a namespace whose annotation is wrong."""
        namespace = self.world.namespaces.get(name)
        if namespace is None or not self.election.leading or not (wrong := wrong_response(namespace)):
            return
        for policy in policies:
            if policy.namespace == name:
                self.events.post(policy, "Warning", "InvalidDenyResponse", wrong)

    def _node(self, name: str, node: Node | None) -> None:
        self.world.node(name, node)
        if node is None:
            self.tracker.nodes.forget(name)

    def _fallback(self, policy: slim.SlimPolicy) -> bytes:
        return self.writer.fallback(policy)

    def _status_changed(self, sources: Iterable[str]) -> None:
        self.writer.changed(sources)

    def _compile_anew(self) -> None:
        self.compiling.rebuild()

    def _compiled(self, taken: Taken, outcome: Outcome, change: Change | None) -> None:
        self.tracker.compiled(taken, outcome, change)
        judged = {source: dict(each.secrets) for source, each in outcome.judgements.items()}
        self.secrets.named(judged | {source: {} for source, each in taken.policies.items() if each is None})
        self._secrets_changed(judged)

    def _secrets_changed(self, sources: Iterable[str]) -> None:
        self.writer.changed(sources)
        if not self.identities.leading:
            return
        for source in sources:
            policy = self.world.policies.get(source)
            if policy is None:
                continue
            for problem in self.secrets.problems(source):
                self.events.post(policy, "Warning", "SecretMissing", problem)

    # -- what is told

    def problems(self) -> list[str]:
        """Why this replica cannot serve loaders yet."""
        waiting = [name for name, each in self.reflectors.items() if not each.synced.is_set()]
        found = [f"waiting for the list of {name}" for name in waiting]
        if not self.publisher.revision:
            found.append("nothing is compiled yet")
        return found

    def _set_gauges(self) -> None:
        for name, each in self.reflectors.items():
            SYNCED.labels(name).set(each.synced.is_set() and not each.error)
            OBJECTS.labels(name).set(len(each.items))
        judged, conflicts = self.tracker.judged, self.tracker.conflicts
        accepted = sum(judged[each].judgement.accepted and each not in conflicts for each in judged)
        POLICIES.labels("true").set(accepted)
        POLICIES.labels("false").set(len(judged) - accepted)
        REVISION.set(self.publisher.revision)
        DOCUMENTS.set(len(self.publisher.documents))
        IDENTITIES.set(len(self.publisher.identities))


def wrong_response(namespace: Namespace) -> str:
    """What is wrong with a namespace's annotation, in one sentence; empty if nothing is."""
    text = namespace.deny_response
    if text is None or text in RESPONSES:
        return ""
    return (
        f"namespace {namespace.name}: annotation {DENY_RESPONSE}={shown(text)[:64]!r} is none of"
        f" {' and '.join(RESPONSES)}, and denied requests are reset; correct it or remove it"
    )


def package_version() -> str:
    """Of this package; `source` when it runs from a checkout."""
    try:
        return version("yett")
    except PackageNotFoundError:
        return "source"


async def _run(run: Callable[[], Awaitable[None]]) -> None:
    await run()
