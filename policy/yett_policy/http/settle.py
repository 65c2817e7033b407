"""Rule sets told early, so that rules share the rest of their tables.

Where every way to finish the target gives the same rule set, the engine is told that set at
once (ACTION_RULE_SET), and what remains of the target need not remember it: the tails of ten
thousand literal paths become one automaton of a few rows.
"""

from __future__ import annotations

from collections.abc import Callable

from yett_policy.http.layout import SET_KNOWN, Action
from yett_policy.http.product import Automaton

_OPEN = -1
"""More than one rule set is still possible."""

State = tuple[int, int, int]
Row = tuple[int, ...]


def settled(automaton: Automaton, rows: list[Row]) -> tuple[list[int], list[State], list[Row]]:
    """Operands of cores, states, rows of cores; core c + n is core c with its rule set told.

    States keep their numbers; new ones come after them.  What nothing reaches any more is
    left to minimisation.
    """
    outcome = _outcomes(automaton, rows)
    cores, states = automaton.cores, list(automaton.states)
    number = {state: index for index, state in enumerate(states)}
    count = len(cores)

    told = [decided is not None and decided != _OPEN for decided in outcome]

    def state(key: State) -> int:
        found = number.get(key)
        if found is None:
            found = number[key] = len(states)
            states.append(key)
        return found

    def before(target: int) -> int:
        """A transition while the set is open."""
        if target < 0:
            return target
        core, _, action = states[target]
        decided = outcome[core]
        if action != Action.NONE or decided is None or decided == _OPEN:
            return target
        return state((core + count, decided, Action.RULE_SET))

    def after(target: int) -> int:
        """A transition once it is told."""
        if target < 0:
            return target
        core, operand, action = states[target]
        if action == Action.RULE_SET:
            return state((core, -1, Action.NONE))
        if not told[core] or action == Action.TARGET_END:
            return target
        return state((core + count, operand, action))

    operands = [core.operand for core in cores] + [SET_KNOWN if is_told else 0 for is_told in told]
    new_rows = [
        _changed(row, before) if core.line and not core.known else row
        for core, row in zip(cores, rows, strict=True)
    ]
    new_rows += [_changed(row, after) if is_told else () for is_told, row in zip(told, rows, strict=True)]
    return operands, states, new_rows


def _changed(row: Row, change: Callable[[int], int]) -> Row:
    changes = {target: change(target) for target in sorted(set(row))}
    return tuple([changes[target] for target in row])


def _outcomes(automaton: Automaton, rows: list[Row]) -> list[int | None]:
    """By core: the rule set in which every way to finish the target ends, or _OPEN.

    None outside targets, and where none can be reached.
    """
    outcome: list[int | None] = [None] * len(rows)
    before: list[list[int]] = [[] for _ in rows]
    work: list[tuple[int, int]] = []
    for core, row in enumerate(rows):
        if not automaton.cores[core].line or automaton.cores[core].known:
            continue
        for target in sorted(set(row)):
            if target < 0:
                continue
            after, operand, action = automaton.states[target]
            if action == Action.TARGET_END:
                work.append((core, automaton.cores[core].operand))
            elif action == Action.RULE_SET:
                work.append((core, operand))
            else:
                before[after].append(core)
    while work:
        core, found = work.pop()
        if outcome[core] in {found, _OPEN}:
            continue
        outcome[core] = found if outcome[core] is None else _OPEN
        work += [(previous, outcome[core] or 0) for previous in before[core]]
    return outcome
