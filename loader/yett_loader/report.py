"""The agent's state as JSON values: what the API answers and `yett-loader status` prints."""

from __future__ import annotations

import os
import socket
from importlib.metadata import PackageNotFoundError, version

from yett_loader import view
from yett_loader.agent import Agent
from yett_loader.discovery import interfaces
from yett_loader.endpoint import LocalEndpoint
from yett_loader.kernel import abi
from yett_loader.recorder import Recorder
from yett_policy.document import Engine

Json = dict[str, object]


def status(agent: Agent, recorder: Recorder) -> Json:
    """GET /v1/status."""
    datapath, wanted, applied = agent.datapath, agent.wanted, agent.applied
    have, names = agent.have(), interfaces()
    judged = {digest for digest, _ in agent.sidecar.places.ports} if agent.sidecar else set()
    return {
        "version": package_version(),
        "abi": abi.ABI_VERSION,
        "node": socket.gethostname(),
        "kernel": os.uname().release,
        "pins": str(datapath.pins.home),
        "programs": {
            name: {"id": info.id, "tag": info.tag, "verified_instructions": info.verified_insns}
            for name, info in ((name, program.info()) for name, program in datapath.programs.items())
        },
        "maps": {name: item.spec.max_entries for name, item in datapath.maps.items()},
        "attached": [
            {"ifindex": ifindex, "ifname": names.get(ifindex, "")} for ifindex in datapath.attached()
        ],
        "epoch": have.epoch,
        "snapshot": {"digest": applied.digest, "applied_at": agent.applied_at, "seconds": applied.seconds}
        if applied
        else None,
        "documents": {str(item.identity): item.digest for item in wanted.snapshot.documents}
        if wanted
        else {},
        "rulesets": [
            {
                "digest": item.digest,
                "engine": item.engine,
                "engine_reason": item.engine_reason,
                "bytes": len(item.tables),
                "enforced": item.engine is Engine.KERNEL or item.digest in judged,
            }
            for item in (wanted.snapshot.rulesets if wanted else ())
        ],
        "endpoints": {
            "total": len(wanted.endpoints) if wanted else 0,
            "ready": sum(endpoint.ready for endpoint in have.endpoints.values()),
            "waiting": agent.waiting,
        },
        "records": {"seen": recorder.seen, "suppressed": recorder.suppressed},
        "sidecar": agent.sidecar.status if agent.sidecar else None,
        "error": agent.error,
    }


def endpoints(agent: Agent) -> list[Json]:
    """GET /v1/endpoints."""
    return [endpoint(agent, item) for item in (agent.wanted.endpoints if agent.wanted else ())]


def endpoint(agent: Agent, item: LocalEndpoint) -> Json:
    """One of them."""
    entry = agent.have().endpoints.get(item.ifindex) if item.ifindex is not None else None
    digests = {slot: digest for digest, slot in agent.assignment.documents.items()}
    if entry is None:
        state, reason = "waiting", agent.waiting.get(item.name, "its interface is not known")
    elif not entry.ready:
        state, reason = (
            "not-ready",
            f"there is no document for identity {item.identity}: everything is denied",
        )
    else:
        state, reason = "ready", ""
    return {
        "namespace": item.namespace,
        "pod": item.pod,
        "identity": item.identity,
        "labels": list(agent.names.labels_of(item.identity)),
        "addresses": list(item.addresses),
        "ifindex": item.ifindex,
        "ifname": interfaces().get(item.ifindex, "") if item.ifindex is not None else "",
        "state": state,
        "reason": reason,
        "document": digests.get(entry.policy, "") if entry and entry.ready else "",
        "policy_slot": entry.policy if entry and entry.ready else None,
    }


def policy(agent: Agent, item: LocalEndpoint) -> Json:
    """GET /v1/policy/{endpoint}."""
    about = endpoint(agent, item)
    entry = agent.have().endpoints.get(item.ifindex or 0)
    rows = view.policy(agent.datapath.maps, entry.policy, agent.names) if entry and entry.ready else []
    digests = {row["ruleset"] for row in rows if row["ruleset"]}
    known = agent.wanted.snapshot.rulesets if agent.wanted else ()
    return {
        "endpoint": about,
        "entries": rows,
        "rulesets": {
            ruleset.digest: {
                "engine": ruleset.engine,
                "engine_reason": ruleset.engine_reason,
                "audit": ruleset.spec.audit,
                "default_rule": ruleset.spec.default_rule,
                "rules": [rule.ref for rule in ruleset.spec.rules],
            }
            for ruleset in known
            if ruleset.digest in digests
        },
    }


def flows_table(agent: Agent, item: LocalEndpoint) -> Json:
    """GET /v1/flows-table/{endpoint}."""
    rows = (
        list(view.flows(agent.datapath.maps, agent.names, item.ifindex)) if item.ifindex is not None else []
    )
    return {"endpoint": endpoint(agent, item), "flows": rows}


def metrics(agent: Agent, recorder: Recorder) -> Json:
    """GET /v1/metrics-json."""
    return {
        "counters": [
            {"direction": c.direction, "reason": c.reason, "flows": c.packets, "requests": c.requests}
            for c in agent.counters()
        ],
        "rules": agent.hits(),
        "records": {"seen": recorder.seen, "suppressed": recorder.suppressed},
    }


def gauges(agent: Agent, recorder: Recorder) -> dict[str, tuple[str, float]]:
    """For GET /metrics, beside the counters of the kernel."""
    have = agent.have()
    return {
        "yett_endpoints": ("Endpoints in the maps.", len(have.endpoints)),
        "yett_endpoints_ready": (
            "Endpoints whose document is in force.",
            sum(e.ready for e in have.endpoints.values()),
        ),
        "yett_endpoints_waiting": ("Pods whose interface is not found yet.", len(agent.waiting)),
        "yett_epoch": ("Policy epoch.", have.epoch),
        "yett_rulesets": ("Rulesets in the kernel.", len(have.rulesets)),
        "yett_policies": ("Policies in the kernel.", len(have.policies)),
        "yett_ipcache_entries": ("Prefixes with an identity.", len(have.ipcache)),
        "yett_apply_failed": ("1 while the newest snapshot is not in force.", float(bool(agent.error))),
        "yett_applied_timestamp_seconds": ("When a snapshot was last applied.", agent.applied_at),
        "yett_records_total": ("Flow records read.", recorder.seen),
        "yett_records_suppressed_total": ("Flow records left out in the kernel.", recorder.suppressed),
    }


def package_version() -> str:
    """Of this package; `source` when it runs from a checkout."""
    try:
        return version("yett")
    except PackageNotFoundError:
        return "source"
