"""The smallest automaton that does the same: partition refinement.

Moore's refinement, but a state is looked at again only if one of its targets changed block,
and of a block that splits the largest part keeps its number: each state is looked at O(log n)
times for each of its targets, as in Hopcroft's algorithm.  Denials never change, so a state
is compared by its live targets only; most have one or two.
"""

from __future__ import annotations

from yett_policy.http.rows import Rows


def minimise(rows: Rows) -> Rows:
    """Merge states that no sequence of bytes tells apart; drop those that nothing reaches."""
    block_of = _blocks(rows)
    # Number the blocks by a walk from the named places: deterministic, and near states lie
    # near each other in the table.
    representative: dict[int, int] = {}
    for state, block in enumerate(block_of):
        representative.setdefault(block, state)
    order: dict[int, int] = {}
    work = []
    for place in rows.places:
        if block_of[place] not in order:
            order[block_of[place]] = len(order)
            work.append(block_of[place])
    for block in work:
        for target in rows.rows[representative[block]]:
            if target >= 0 and block_of[target] not in order:
                order[block_of[target]] = len(order)
                work.append(block_of[target])
    number = [order.get(block, -1) for block in block_of]
    new_rows = [
        tuple(target if target < 0 else number[target] for target in rows.rows[representative[block]])
        for block in work
    ]
    class_of, new_rows = _merge_columns(rows.class_of, new_rows)
    return Rows(
        class_of,
        [rows.labels[representative[block]] for block in work],
        new_rows,
        tuple(number[place] for place in rows.places),
    )


def _blocks(rows: Rows) -> list[int]:
    """Number of the block of each state."""
    live: list[list[int]] = []
    before: list[list[int]] = [[] for _ in rows.rows]
    block_of: list[int] = []
    first: dict[tuple[tuple[int, int], tuple[int, ...]], int] = {}
    blocks: list[list[int]] = []
    shapes: dict[tuple[int, ...], tuple[tuple[int, ...], list[int]]] = {}
    for state, row in enumerate(rows.rows):
        found = shapes.get(row)  # states that share a core share the row
        if found is None:
            found = shapes[row] = (tuple(min(target, 0) for target in row), [t for t in row if t >= 0])
        shape, targets = found
        live.append(targets)
        for target in set(targets):
            before[target].append(state)
        block = first.setdefault((rows.labels[state], shape), len(blocks))
        if block == len(blocks):
            blocks.append([])
        blocks[block].append(state)
        block_of.append(block)
    dirty = set(range(len(live)))
    while dirty:
        touched: dict[int, list[int]] = {}
        for state in sorted(dirty):
            touched.setdefault(block_of[state], []).append(state)
        moved: list[int] = []
        splits: list[tuple[int, list[list[int]]]] = []
        for block, states in touched.items():
            if len(blocks[block]) == 1:
                continue
            groups: dict[tuple[int, ...], list[int]] = {}
            for state in states:
                groups.setdefault(tuple([block_of[target] for target in live[state]]), []).append(state)
            parts = list(groups.values())
            if len(states) < len(blocks[block]):
                # The others have the signature they had: none of their targets moved.
                changed = set(states)
                parts.append([state for state in blocks[block] if state not in changed])
            if len(parts) > 1:
                splits.append((block, parts))
        for block, parts in splits:  # after all signatures of this round were taken
            largest = max(range(len(parts)), key=lambda part: len(parts[part]))
            for index, part in enumerate(parts):
                if index == largest:
                    blocks[block] = part
                    continue
                for state in part:
                    block_of[state] = len(blocks)
                blocks.append(part)
                moved += part
        dirty = {state for target in moved for state in before[target]}
    return block_of


def _merge_columns(
    class_of: list[int], rows: list[tuple[int, ...]]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Classes that no row tells apart become one."""
    columns: dict[tuple[int, ...], int] = {}
    merged = [columns.setdefault(column, len(columns)) for column in zip(*rows, strict=True)]
    return [merged[number] for number in class_of], list(zip(*columns, strict=True))
