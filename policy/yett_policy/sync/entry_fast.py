"""Entries as every honest sender writes them, checked at a tenth of the cost.

A document has hundreds.  None: the entry is not of that plain kind, and must be read by the checks
that can say what is wrong with it; whatever is accepted here they accept, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from yett_policy.document import Direction, Entry, Verdict
from yett_policy.reason import Reason

_DIRECTIONS = {int(each): each for each in Direction}
_VERDICTS = {int(each): each for each in Verdict}
_REASONS = {int(each): each for each in Reason}


def entry(row: object, rules: int, rulesets: Sequence[str]) -> Entry | None:
    """A row of `Document.to_json`; `rules` is how many the document names, `rulesets` begins with none."""
    if type(row) is not list or len(row) != 10 or set(map(type, row)) != {int}:
        return None
    direction, peer, proto, port, port_bits, verdict, reason, rule, ruleset, forbidden = row
    if not (
        direction in _DIRECTIONS
        and 0 <= peer <= 0xFFFFFFFF
        and 0 <= proto <= 255
        and 0 <= port <= 65535
        and 0 <= port_bits <= 16
        and not port & (0xFFFF >> port_bits)
        and verdict in _VERDICTS
        and reason in _REASONS
        and 0 <= rule < rules
        and 0 <= ruleset < len(rulesets)
        and 0 <= forbidden <= 1
    ):
        return None
    return Entry(
        _DIRECTIONS[direction],
        peer,
        proto,
        port,
        port_bits,
        _VERDICTS[verdict],
        _REASONS[reason],
        rule,
        rulesets[ruleset],
        forbidden == 1,
    )
