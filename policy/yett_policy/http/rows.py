"""From sparse transitions to rows over byte classes, without dead ends."""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.http.partition import Partition
from yett_policy.http.product import DENIED, Automaton
from yett_policy.http.settle import settled
from yett_policy.reason import Reason


@dataclass(slots=True)
class Rows:
    """A dense automaton: `rows[state][class]` is a state, or a denial (below 0)."""

    class_of: list[int]
    labels: list[tuple[int, int]]
    """By state: operand and action word."""
    rows: list[tuple[int, ...]]
    places: tuple[int, ...]
    """start, chunk, chunk_end, trailer, skip."""


def dense(automaton: Automaton, *, settle: bool) -> Rows:
    """Rows of all states, byte classes as coarse as the transitions allow.

    `settle`: tell the engine the rule set as soon as it is certain; see `settle.py`.
    """
    class_of, partition_of_core, templates = _byte_classes(automaton)
    core_rows: list[tuple[int, ...]] = []
    for core, partition in zip(automaton.cores, partition_of_core, strict=True):
        targets = core.targets
        row = [targets[block] for block in templates[partition]]
        for byte, target in core.exceptions.items():
            row[class_of[byte]] = target
        core_rows.append(tuple(row))
    core_rows = _without_dead_ends(automaton, core_rows)
    operands = [core.operand for core in automaton.cores]
    states = automaton.states
    if settle:
        operands, states, core_rows = settled(automaton, core_rows)
    rows = [core_rows[core] for core, _, _ in states]
    labels = [(operands[core] if operand < 0 else operand, action) for core, operand, action in states]
    places = (automaton.start, automaton.chunk, automaton.chunk_end, automaton.trailer, automaton.skip)
    return Rows(class_of, labels, rows, places)


def _byte_classes(automaton: Automaton) -> tuple[list[int], list[int], list[list[int]]]:
    """Class of each byte; of each core the number of its partition; of each partition its
    block by class.
    """
    numbers: dict[int, int] = {}
    partitions: list[Partition] = []
    partition_of_core = []
    for core in automaton.cores:
        number = numbers.setdefault(id(core.partition), len(partitions))  # partitions are shared objects
        if number == len(partitions):
            partitions.append(core.partition)
        partition_of_core.append(number)
    block_of = [partition.block_of for partition in partitions]
    singled_out = {byte for core in automaton.cores for byte in core.exceptions}
    classes: dict[tuple[int, ...], int] = {}
    class_of: list[int] = []
    representative: list[int] = []
    for byte, signature in enumerate(zip(*block_of, strict=True)):
        key = (byte,) if byte in singled_out else (-1, *signature)
        number = classes.setdefault(key, len(classes))
        if number == len(representative):
            representative.append(byte)
        class_of.append(number)
    templates = [[block_of_byte[byte] for byte in representative] for block_of_byte in block_of]
    return class_of, partition_of_core, templates


def _without_dead_ends(automaton: Automaton, rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Transitions into a method or target that can only end in a denial become that denial.

    The items alone do not show it: a rule may ask for what the grammar never lets through.
    """
    core_of = [core for core, _, _ in automaton.states]
    before: list[list[int]] = [[] for _ in rows]
    alive = [not core.deniable for core in automaton.cores]
    work = [core for core, is_alive in enumerate(alive) if is_alive]
    for core, row in enumerate(rows):
        if automaton.cores[core].deniable:
            for target in set(row):
                if target >= 0:
                    before[core_of[target]].append(core)
    while work:
        for core in before[work.pop()]:
            if not alive[core]:
                alive[core] = True
                work.append(core)
    if all(alive):
        return rows
    denied = DENIED - Reason.POLICY_DENIED_L7
    return [
        tuple(target if target < 0 or alive[core_of[target]] else denied for target in row)
        if is_alive
        else row
        for row, is_alive in zip(rows, alive, strict=True)
    ]
