"""What the operator would send: one server whose ports are judged by the sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from support.enforce import CLIENT, SERVER, document
from support.netns import Topology
from yett_loader.endpoint import LocalEndpoint
from yett_loader.snapshot import Wanted
from yett_policy.document import Direction, Document, Snapshot, Verdict
from yett_policy.http.compile import compile_ruleset
from yett_policy.http.rule import RulesetSpec

Rules = Mapping[int, RulesetSpec]
"""TCP port of the server -> who may ask for what there."""


def wanted(topology: Topology, rules: Rules, engine: str = "Sidecar") -> Wanted:
    """The client is governed too, by no policy, as on a node.  `engine`: Sidecar or Kernel."""
    specs = {spec.digest: spec for spec in rules.values()}
    endpoints = [
        LocalEndpoint("bench", name, identity, side.addresses, side.ifindex)
        for name, identity, side in (
            ("client", CLIENT, topology.client),
            ("server", SERVER, topology.server),
        )
    ]
    addresses = [
        (f"{address}/{128 if ':' in address else 32}", endpoint.identity)
        for endpoint in endpoints
        for address in endpoint.addresses
    ]
    server = document(SERVER, Direction.INGRESS, rules)
    snapshot = Snapshot(
        documents=(
            document(CLIENT, Direction.EGRESS, None),
            _redirecting(server) if engine == "Sidecar" else server,
        ),
        rulesets=tuple(compile_ruleset(specs[digest], engine_wish=engine) for digest in sorted(specs)),
        ipcache=tuple(sorted(addresses)),
    )
    return Wanted(snapshot, tuple(endpoints))


def _redirecting(made: Document) -> Document:
    entries = [replace(entry, verdict=Verdict.REDIRECT) if entry.ruleset else entry for entry in made.entries]
    return Document.of(made.identity, entries, made.rules)
