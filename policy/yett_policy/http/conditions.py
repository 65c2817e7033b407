"""Conditions: what a rule asks of headers, as bits of a 64-bit word.

Each distinct condition of a ruleset has one bit.  The value of a tracked header sets a word
of bits at its end; presence and absence are settled by the header's number alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from yett_policy.http.errors import TooComplex
from yett_policy.http.fields import FRAMING
from yett_policy.http.layout import CONDITIONS, TRACKED_HEADERS, Header
from yett_policy.http.nfa import Items, Nfa, joined
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule
from yett_policy.http.syntax import parse
from yett_policy.http.tree import (
    ALL_BYTES,
    Bytes,
    Either,
    Node,
    Repeat,
    Sequence,
    byte_set,
    byte_sets,
    literal,
    map_bytes,
)

ANYTHING = Repeat(Bytes(ALL_BYTES), 0, None)
OWS = Repeat(Bytes(byte_set(b" \t")), 0, None)

Condition = tuple[str, HeaderOp | None, str]
"""(header, operation, value); operation None: host regex, or the list of upgrades."""


def fold(node: Node) -> Node:
    """The tree for a value that is lower-cased before it is matched."""
    folded = {
        bits: byte_set(
            byte for byte in range(256) if bits >> (byte + 0x20 if 0x41 <= byte <= 0x5A else byte) & 1
        )
        for bits in byte_sets(node)
    }
    return map_bytes(node, folded)


def _upgrade_list(protocols: Iterable[str]) -> Node:
    """A comma-separated list of which every element is one of these, in any case."""
    element = Either(tuple(fold(literal(protocol.encode("latin-1"))) for protocol in protocols))
    more = Sequence((OWS, *literal(b",").parts, OWS, element))
    return Sequence((element, Repeat(more, 0, None)))


def _value_tree(condition: Condition) -> Node | None:
    name, op, value = condition
    match op:
        case None if name == "host":
            return fold(parse(value))
        case None:
            return _upgrade_list(value.split(","))
        case HeaderOp.EXACT:
            return literal(value.encode("latin-1"))
        case HeaderOp.PREFIX:
            return Sequence((literal(value.encode("latin-1")), ANYTHING))
        case HeaderOp.SUFFIX:
            return Sequence((ANYTHING, literal(value.encode("latin-1"))))
        case HeaderOp.REGEX:
            return parse(value)
        case HeaderOp.PRESENT | HeaderOp.ABSENT:
            return None


class Conditions:
    """Bits, tracked headers, and the automata of their values."""

    def __init__(self, rules: Iterable[HttpRule], nfa: Nfa) -> None:
        rules = tuple(rules)
        wanted = sorted(
            {c for rule in rules for c in self.of_rule(rule)}, key=lambda c: (c[0], c[1] or "", c[2])
        )
        if len(wanted) > CONDITIONS:
            raise TooComplex(f"{len(wanted):,} distinct header conditions over the budget of {CONDITIONS}")
        self.bit: dict[Condition, int] = {condition: 1 << index for index, condition in enumerate(wanted)}
        named = sorted({name.encode("latin-1") for name, _, _ in wanted} - set(FRAMING))
        self.names: tuple[bytes, ...] = (*FRAMING, *named)
        if len(self.names) > TRACKED_HEADERS:
            most = TRACKED_HEADERS - Header.FIRST_RULE
            raise TooComplex(f"rules name {len(named):,} headers, over the budget of {most}")
        self.initially = 0
        self.on_header = [0] * TRACKED_HEADERS
        self.off_header = [0] * TRACKED_HEADERS
        self.values: list[Items] = [()] * len(self.names)
        """By tracked header: the items of its conditions; they report the bit's number."""
        for condition, bit in self.bit.items():
            self._add(condition, bit, nfa)

    def _add(self, condition: Condition, bit: int, nfa: Nfa) -> None:
        number = self.names.index(condition[0].encode("latin-1"))
        if condition[1] is HeaderOp.PRESENT:
            self.on_header[number] |= bit
        elif condition[1] is HeaderOp.ABSENT:
            self.initially |= bit
            self.off_header[number] |= bit
        else:
            tree = _value_tree(condition)
            assert tree is not None  # noqa: S101 - for the type checker
            report = nfa.reports(VALUE_REPORT + bit.bit_length() - 1)
            self.values[number] = joined(self.values[number], nfa.compile(tree, (report,)))

    @staticmethod
    def of_rule(rule: HttpRule) -> set[Condition]:
        """Every condition that a rule speaks of."""
        found: set[Condition] = {_of_header(header) for header in rule.headers}
        if rule.host is not None:
            found.add(("host", None, rule.host))
        if rule.upgrades:
            found.add(Conditions.upgrade(rule))
        return found

    @staticmethod
    def upgrade(rule: HttpRule) -> Condition:
        """That every protocol the client offers is one the rule allows: the server may pick any."""
        return ("upgrade", None, ",".join(sorted(set(rule.upgrades))))

    def needs(self, rule: HttpRule) -> int:
        """Bits that must hold for the rule to match."""
        bits = 0
        for header in rule.headers:
            bits |= self.bit[_of_header(header)]
        if rule.host is not None:
            bits |= self.bit["host", None, rule.host]
        return bits

    def upgrades(self, rule: HttpRule) -> int:
        """The bit under which the rule lets the request upgrade, or 0."""
        return self.bit[self.upgrade(rule)] if rule.upgrades else 0


def _of_header(header: HeaderRule) -> Condition:
    return (header.name, header.op, header.value)


VALUE_REPORT = 1 << 32
"""Reports of values are bit numbers above this; those of targets are rule numbers below it."""
