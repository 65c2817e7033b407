"""Entries as every honest sender writes them, checked at a fifth of the cost.

A document has hundreds.  None: some entry is not of that plain kind, and all must be read by the checks
that can say what is wrong with it; whatever is accepted here they accept, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from yett_policy.document import Direction, Entry, Verdict
from yett_policy.reason import Reason

_FIELDS = tuple(Entry.__dataclass_fields__)
_NAMES = frozenset(_FIELDS)
_NUMBERS = 8
"""How many of the fields, from the first, are numbers."""
_ALL_NUMBERS = {int}
_DIRECTIONS = {item.value: item for item in Direction}
_VERDICTS = {item.value: item for item in Verdict}
_REASONS = {item.value: item for item in Reason}
_RULESET_MAX = 64


def entries(raw: Sequence[object], rules: int) -> tuple[Entry, ...] | None:
    """Objects with the fields of `Entry`; `rules` is how many the document names."""
    found = []
    for item in raw:
        made = _entry(item, rules)
        if made is None:
            return None
        found.append(made)
    return tuple(found)


def _entry(raw: object, rules: int) -> Entry | None:
    if type(raw) is not dict or raw.keys() != _NAMES:
        return None
    values = [raw[name] for name in _FIELDS]
    if set(map(type, values[:_NUMBERS])) != _ALL_NUMBERS:
        return None
    direction, peer, proto, port, port_bits, verdict, reason, rule, ruleset, forbidden = values
    if type(ruleset) is not str or len(ruleset) > _RULESET_MAX or not ruleset.isascii():
        return None
    if type(forbidden) is not bool or not 0 <= rule < rules:
        return None
    if peer >> 32 or proto >> 8 or port >> 16 or not 0 <= port_bits <= 16 or port & (0xFFFF >> port_bits):
        return None
    try:
        return Entry(
            _DIRECTIONS[direction],
            peer,
            proto,
            port,
            port_bits,
            _VERDICTS[verdict],
            _REASONS[reason],
            rule,
            ruleset,
            forbidden,
        )
    except KeyError:
        return None
