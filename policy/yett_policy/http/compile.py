"""From rules to a ruleset: kernel tables if they fit, else a word to the sidecar."""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.document import Engine, Ruleset
from yett_policy.http import layout
from yett_policy.http.alternatives import RuleSets, names_connect
from yett_policy.http.conditions import Conditions
from yett_policy.http.errors import TooComplex
from yett_policy.http.layout import RulesetFlag
from yett_policy.http.lines import add_lines
from yett_policy.http.minimise import minimise
from yett_policy.http.nfa import Nfa
from yett_policy.http.product import Product
from yett_policy.http.request import request_grammar
from yett_policy.http.rows import dense
from yett_policy.http.rule import RuleAction, RulesetSpec
from yett_policy.http.tables import encode
from yett_policy.reason import Reason

AMBIGUITIES = frozenset(reason for reason in Reason if reason.name.startswith("AMBIGUOUS_"))
ENDS = (Reason.AMBIGUOUS_DOT_SEGMENT, Reason.AMBIGUOUS_PERCENT)
"""Those that the end of the target can complete."""
PLAIN_STATES, PLAIN_TIER = 4_000, 1
"""Up to here rule sets are told at the end of the target only."""
MAX_STATES = 100_000
"""Before minimisation; bounds time and memory of the compiler."""
MAX_WORK = 8_000_000
"""Steps of the compiler, so that the same rules are over budget on every machine."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the kernel runs, and its measures."""

    tier: int
    data: bytes
    states: int
    classes: int


def compile_tables(
    spec: RulesetSpec,
    *,
    settle: bool | None = None,
    max_states: int = MAX_STATES,
    max_work: int = MAX_WORK,
) -> Tables:
    """Kernel tables of a ruleset; TooComplex if they do not fit.

    `settle`: tell rule sets early, which makes big tables small but stops the engine once
    more per request; None: only if the tables would leave the CPU's caches otherwise.
    """
    if settle is None:
        try:
            tables = compile_tables(
                spec, settle=False, max_states=min(PLAIN_STATES, max_states), max_work=max_work
            )
        except TooComplex:
            return compile_tables(spec, settle=True, max_states=max_states, max_work=max_work)
        if tables.tier <= PLAIN_TIER:
            return tables
        return compile_tables(spec, settle=True, max_states=max_states, max_work=max_work)
    nfa = Nfa()
    conditions = Conditions(spec.rules, nfa)
    sets = RuleSets(spec.rules, conditions)
    lines = add_lines(nfa, spec.rules)
    # An audited ruleset notes every ambiguity and goes on, to stay in step with the stream;
    # but not where it could hide a request from a rule that denies for good.
    denies = any(rule.action is RuleAction.DENY for rule in spec.rules)
    watches = spec.audit and not denies
    tolerated = AMBIGUITIES if watches else frozenset(r for rule in spec.rules for r in rule.tolerate)
    places = request_grammar(
        conditions.names,
        tolerated,
        connect=any(map(names_connect, spec.rules)),
        chunk_extensions=spec.chunk_extensions,
        trailers=spec.trailers,
    )
    product = Product(
        places,
        nfa,
        lines,
        conditions,
        sets,
        audit=spec.audit,
        settle=settle,
        ends=[reason for reason in ENDS if reason in tolerated],
        max_states=max_states,
        max_work=max_work,
    )
    rows = minimise(dense(product.build(), settle=settle))
    flags = (RulesetFlag.AUDIT if spec.audit else 0) | (RulesetFlag.FORBIDDEN if spec.forbidden else 0)
    if denies:
        flags |= RulesetFlag.DENIES
    tier, data = encode(
        rows,
        sets.sets,
        product.words,
        conditions,
        digest=spec.digest,
        flags=flags,
        default_rule=len(spec.rules),
    )
    return Tables(tier, data, len(rows.rows), len(rows.rows[0]))


def compile_ruleset(spec: RulesetSpec, *, engine_wish: str = "Auto") -> Ruleset:
    """`engine_wish`: Auto, Kernel or Sidecar.  TooComplex only if the wish was Kernel."""
    if engine_wish == "Sidecar":
        return Ruleset(spec.digest, spec, Engine.SIDECAR, "the policy asks for the sidecar")
    changed = sorted({item.name for rule in spec.rules for item in rule.changes})
    if changed:
        problem = f"a rule changes header {changed[0]}"
        if engine_wish == "Kernel":
            raise TooComplex(problem)
        return Ruleset(spec.digest, spec, Engine.SIDECAR, problem)
    if spec.app_protocol and engine_wish == "Auto":
        return Ruleset(spec.digest, spec, Engine.SIDECAR, f"appProtocol {spec.app_protocol}")
    try:
        tables = compile_tables(spec)
    except TooComplex as error:
        if engine_wish == "Kernel":
            raise
        return Ruleset(spec.digest, spec, Engine.SIDECAR, f"too complex for the kernel: {error}")
    reason = (
        f"fits the kernel budget: {tables.states:,} states of {tables.classes} byte classes,"
        f" {len(tables.data):,} of {layout.TIER_SIZE[tables.tier]:,} bytes"
    )
    if spec.app_protocol:
        reason += (
            f"; the policy asks for the kernel, which denies the HTTP/2 of appProtocol {spec.app_protocol}"
        )
    return Ruleset(spec.digest, spec, Engine.KERNEL, reason, tables.tier, tables.data)
