"""What the programs and tables themselves cost: time per run, verifier, load, compile, memory."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from bench import load, stats
from bench.compile_rules import KINDS
from bench.points import BASE_RULES
from bench.request import Shape, requests
from bench.rules import Mix, RuleList, to_spec
from bench.systems.yett import Yett
from bench.world import PORT
from support.enforce import IMAGE
from yett_loader.kernel import Object
from yett_policy.http.compile import compile_tables
from yett_policy.http.errors import TooComplex
from yett_policy.http.rule import RulesetSpec

_PODS = {"from_pod", "to_pod"}
_COUNTS = (1, 100, 1000, 10_000)


def runs() -> dict[str, Any]:
    """Runs per request and nanoseconds per run, both pods governed, at the base point."""
    with contextlib.ExitStack() as cleanup:
        system = Yett()
        cleanup.callback(system.close)
        system.configure(BASE_RULES.rules)
        programs = system.gate.datapath.programs
        with stats.counting():
            before = {name: stats.runs(program) for name, program in programs.items()}
            begin = system.world.served()
            load.run(
                system.world.topology.client.namespace,
                f"http://{system.world.address}:{PORT}",
                requests(BASE_RULES.rules, Shape()),
                connections=32,
                seconds=2,
                pids=system.pids,
            )
            served = system.world.served() - begin
            after = {name: stats.runs(program) for name, program in programs.items()}
        found = {}
        for name in programs:
            count, spent = after[name][0] - before[name][0], after[name][1] - before[name][1]
            if count:  # the gate's has nothing to do without a sidecar
                found[name] = {"runs": round(count / served, 2), "ns": round(spent / count)}
        if not found.keys() >= _PODS:
            raise load.LoadError(f"only {', '.join(found) or 'no program'} ran: the load was none of pods")
        return found


def verifier() -> dict[str, Any]:
    """Instructions that the verifier walks through, and the time to load the whole object."""
    with Object.open(IMAGE) as opened:
        begin = time.monotonic()
        opened.load()
        spent = time.monotonic() - begin
        found = {}
        for name in opened.programs:
            with opened.program(name) as program:
                found[name] = program.info().verified_insns
    return {"load_ms": round(1000 * spent), "insns": found}


def tables() -> list[dict[str, Any]]:
    """The tables of the rule sets that are measured."""
    return [
        _compiled(f"{mix}", count, to_spec(RuleList(mix, count).rules)) for mix in Mix for count in _COUNTS
    ]


def compile_times() -> list[dict[str, Any]]:
    """Rules of several kinds that share less than those of the load."""
    return [
        _compiled(kind.__name__, count, RulesetSpec(tuple(map(kind, range(count))), "default"))
        for kind in KINDS
        for count in _COUNTS
    ]


def _compiled(kind: str, count: int, spec: RulesetSpec) -> dict[str, Any]:
    begin = time.process_time()
    try:
        made = compile_tables(spec)
    except TooComplex as error:
        return {"kind": kind, "rules": count, "refused": str(error)}
    spent = time.process_time() - begin
    return {
        "kind": kind,
        "rules": count,
        "states": made.states,
        "bytes": len(made.data),
        "tier": made.tier,
        "ms": round(1000 * spent, 1),
    }
