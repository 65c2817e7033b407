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
    rows = _reachable(rows)
    block_of = _blocks(rows)
    representative: dict[int, int] = {}
    for state, block in enumerate(block_of):
        representative.setdefault(block, state)
    members = [representative[block] for block in range(len(representative))]
    merged = Rows(
        rows.class_of,
        [rows.labels[state] for state in members],
        [
            tuple([target if target < 0 else block_of[target] for target in rows.rows[state]])
            for state in members
        ],
        tuple(block_of[place] for place in rows.places),
    )
    return _merge_columns(_reachable(merged))


def _reachable(rows: Rows) -> Rows:
    """States that the named places lead to, numbered in the order of a walk from there.

    The order is deterministic, and depth first: the states of one target lie side by side, so
    that a walk through a big table touches few pages.
    """
    number: dict[int, int] = {}
    targets_of: dict[tuple[int, ...], list[int]] = {}  # states that share a core share the row
    work: list[int] = []
    ahead = list(dict.fromkeys(reversed(rows.places)))
    while ahead:
        state = ahead.pop()
        if state in number:
            continue
        number[state] = len(work)
        work.append(state)
        row = rows.rows[state]
        targets = targets_of.get(row)
        if targets is None:
            targets = targets_of[row] = [target for target in dict.fromkeys(reversed(row)) if target >= 0]
        ahead += [target for target in targets if target not in number]
    renumbered = {
        row: tuple([target if target < 0 else number[target] for target in row]) for row in targets_of
    }
    return Rows(
        rows.class_of,
        [rows.labels[state] for state in work],
        [renumbered[rows.rows[state]] for state in work],
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
            found = shapes[row] = (tuple([min(target, 0) for target in row]), [t for t in row if t >= 0])
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


def _merge_columns(rows: Rows) -> Rows:
    """Classes that no row tells apart become one."""
    columns: dict[tuple[int, ...], int] = {}
    merged = [columns.setdefault(column, len(columns)) for column in zip(*rows.rows, strict=True)]
    class_of = [merged[number] for number in rows.class_of]
    return Rows(class_of, rows.labels, list(zip(*columns, strict=True)), rows.places)
