"""Values for the loader's tests: documents, rulesets with made-up tables, snapshots."""

from __future__ import annotations

import struct

from yett_loader.endpoint import LocalEndpoint
from yett_loader.snapshot import Wanted
from yett_policy.document import Direction, Document, Engine, Entry, Ruleset, Snapshot, Verdict
from yett_policy.http.change import HeaderChange
from yett_policy.http.layout import ABI_VERSION, HEAD_FIELDS, HEAD_FORMAT, HEAD_SIZE
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, RulesetSpec
from yett_policy.reason import Reason
from yett_policy.sync.values import ruleset_id

WEB, CLIENT = 300, 301


def entry(direction: Direction, verdict: Verdict, rule: int, **fields: object) -> Entry:
    values: dict[str, object] = {"peer": 0, "proto": 0, "port": 0, "port_bits": 0} | fields
    reason = Reason.ALLOWED if verdict is Verdict.ALLOW else Reason.POLICY_DENIED
    return Entry(direction, verdict=verdict, reason=reason, rule=rule, **values)  # type: ignore[arg-type]


def ruleset(
    path: str = "/public", engine: Engine = Engine.KERNEL, changes: tuple[HeaderChange, ...] = ()
) -> Ruleset:
    rule = HttpRule(
        ref="L7Policy/default/web:ingress[0].toPorts[0].rules.http[0]",
        method="GET",
        path=path,
        headers=(HeaderRule("x-team", HeaderOp.EXACT, "blue"),),
        upgrades=("websocket",),
        tolerate=(Reason.AMBIGUOUS_SEMICOLON,),
        changes=changes,
    )
    spec = RulesetSpec((rule,), "L7Policy/default/web:default-deny")
    tables = head_only(spec) if engine is Engine.KERNEL else b""
    return Ruleset(spec.digest, spec, engine, "fits the kernel budget", 0, tables)


def head_only(spec: RulesetSpec, **fields: int) -> bytes:
    """Tables that are nothing but a header: enough for whoever does not run them."""
    values = dict.fromkeys(HEAD_FIELDS, 0) | {
        "abi": ABI_VERSION,
        "size": HEAD_SIZE,
        "id": ruleset_id(spec.digest),
        "default_rule": len(spec.rules),
    }
    values |= fields
    return struct.pack(HEAD_FORMAT, *values.values()).ljust(HEAD_SIZE, b"\0")


def document(identity: int = WEB, *rulesets: Ruleset, verdict: Verdict = Verdict.DENY) -> Document:
    """Ingress as `verdict` says, port 80 by the rulesets; egress not enforced."""
    entries = [
        entry(Direction.INGRESS, verdict, 0),
        entry(Direction.EGRESS, Verdict.ALLOW, 1),
        *(
            entry(
                Direction.INGRESS,
                Verdict.ALLOW,
                2,
                peer=CLIENT,
                proto=6,
                port=80 + index,
                port_bits=16,
                ruleset=item.digest,
            )
            for index, item in enumerate(rulesets)
        ),
    ]
    rules = ("L7Policy/default/web:default-deny", "none", "L7Policy/default/web:ingress[0].toPorts[0]")
    return Document.of(identity, entries, rules)


def snapshot(*documents: Document, rulesets: tuple[Ruleset, ...] = (), **fields: object) -> Snapshot:
    values: dict[str, object] = {
        "ipcache": (("10.9.1.2/32", CLIENT), ("10.9.2.2/32", WEB), ("fd00:9:2::2/128", WEB)),
        "identities": ((WEB, ("k8s:app=web",)), (CLIENT, ("k8s:app=client",))),
        "pods": (
            ("default", "client", CLIENT, ("10.9.1.2",)),
            ("default", "web", WEB, ("10.9.2.2", "fd00:9:2::2")),
        ),
    }
    return Snapshot(documents, rulesets, **(values | fields))  # type: ignore[arg-type]


def web(ifindex: int | None = None) -> LocalEndpoint:
    return LocalEndpoint("default", "web", WEB, ("10.9.2.2", "fd00:9:2::2"), ifindex)


def client(ifindex: int | None = None) -> LocalEndpoint:
    return LocalEndpoint("default", "client", CLIENT, ("10.9.1.2",), ifindex)


def wanted(*endpoints: LocalEndpoint, path: str = "/public") -> Wanted:
    """The usual one: web accepts `GET path` from the client."""
    rules = ruleset(path)
    return Wanted(
        snapshot(document(WEB, rules), document(CLIENT, verdict=Verdict.ALLOW), rulesets=(rules,)), endpoints
    )
