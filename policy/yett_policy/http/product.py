"""The deterministic automaton: the grammar and the rules' items, walked together.

A core is (grammar state, items, held): what decides where each byte leads.  A state is a
core and the action run on the way in.  Transitions are sparse: one target for each block of
bytes that no single-byte item singles out, and exceptions for those that one does; nearly
all states of a ruleset are nodes of a trie, with one or two exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from yett_policy.http.alternatives import RuleSets
from yett_policy.http.conditions import VALUE_REPORT, Conditions
from yett_policy.http.errors import TooComplex, TooMuchWork
from yett_policy.http.grammar import Edge, Match, Op
from yett_policy.http.layout import REASON_SHIFT, SET_KNOWN, Action, Header
from yett_policy.http.lines import ITEM, Lines
from yett_policy.http.nfa import CLASS, REPORTS, Items, Nfa
from yett_policy.http.partition import Partition, Partitions
from yett_policy.http.reach import Reach, rule_of
from yett_policy.http.request import RequestGrammar
from yett_policy.http.tree import ALL_BYTES
from yett_policy.reason import Reason

SETTLED: Items = (-1,)
"""In the place of items that match whatever follows: the engine was told their rule set."""

TOLD = -1
"""In the place of a rule: an item without a tag, whose rule set was told."""

DENIED = -1
"""Targets below 0 are denials: DENIED - reason."""


@dataclass(slots=True)
class Core:
    """One row of transitions."""

    operand: int
    deniable: bool
    """Part of a method or target: denied where no allow rule can match any more."""
    line: bool
    """Part of a method or target."""
    known: bool
    """The rule set was told on the way here (ACTION_RULE_SET)."""
    partition: Partition
    targets: list[int]
    """By block; state numbers, or denials."""
    exceptions: dict[int, int] = field(default_factory=dict)
    """By byte."""


@dataclass(slots=True)
class Automaton:
    """States are (core, action word); `start` and so on are state numbers."""

    cores: list[Core]
    states: list[tuple[int, int, int]]
    """(core, operand or -1 for the core's, action word)."""
    start: int
    chunk: int
    chunk_end: int
    trailer: int
    skip: int


_CoreKey = tuple[int, Items, int]


class Work:
    """What compiling one ruleset may cost, and has cost."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    def spend(self, work: int) -> None:
        """TooMuchWork if it is."""
        self._left -= work
        if self._left < 0:
            raise TooMuchWork(f"over the budget of {self._most:,} steps of compilation")


class Product:
    """Walks grammar and items; `build()` once."""

    def __init__(
        self,
        places: RequestGrammar,
        nfa: Nfa,
        lines: Lines,
        conditions: Conditions,
        sets: RuleSets,
        *,
        audit: bool,
        settle: bool,
        ends: Iterable[Reason],
        max_states: int,
        max_work: int,
    ) -> None:
        self.places = places
        self.grammar = places.grammar
        self.nfa = nfa
        self.lines = lines
        self.conditions = conditions
        self.sets = sets
        self.audit = audit
        self.settle = settle
        self.ends = tuple(ends)
        self.max_states = max_states
        self.work = Work(max_work)
        self.core_number: dict[_CoreKey, int] = {}
        self.core_keys: list[_CoreKey] = []
        self.state_number: dict[tuple[int, int, int], int] = {}
        self.words: list[int] = self.empty_words()
        self.word_number: dict[int, int] = {0: 0}
        self.reach = Reach(nfa, lines.matched, sets)
        self.certain_sets: dict[tuple[tuple[int, ...], bool], int | None] = {}
        self.partitions = Partitions(places.grammar, self.work.spend)

    def build(self) -> Automaton:
        """Every reachable state."""
        start = self.state(self.places.start, self.lines.start)
        places = [
            self.state(place, ())
            for place in (self.places.chunk, self.places.chunk_end, self.places.trailer, self.places.skip)
        ]
        cores: list[Core] = []
        while len(cores) < len(self.core_keys):
            cores.append(self.core(self.core_keys[len(cores)]))
            if len(self.state_number) > self.max_states:
                raise TooComplex(f"over the budget of {self.max_states:,} states before minimisation")
        return Automaton(cores, list(self.state_number), start, *places)

    # States

    def state(self, place: int, items: Items, held: int = 0, operand: int = -1, action: int = 0) -> int:
        key = (place, items, held)
        core = self.core_number.get(key)
        if core is None:
            core = self.core_number[key] = len(self.core_keys)
            self.core_keys.append(key)
        return self.state_number.setdefault((core, operand, action), len(self.state_number))

    # What items mean

    def reported(self, items: Items) -> list[int]:
        """What the items of a value report."""
        report = self.nfa.report
        return [report[item] for item in items if report[item] >= 0]

    def matched(self, items: Items) -> list[int]:
        """The rules that the items of a target match."""
        return [rule_of(item) for item in items if item & ITEM == self.lines.matched]

    def followers(self, item: int) -> Items:
        """The items after it, with its tag."""
        follow = self.nfa.follow[item & ITEM]
        tag = item & ~ITEM
        self.work.spend(len(follow))
        return tuple([after | tag for after in follow]) if tag else follow

    def word(self, items: Items) -> int:
        """Number of the condition word that these items report."""
        bits = 0
        for value in self.reported(items):
            bits |= 1 << value - VALUE_REPORT
        number = self.word_number.get(bits)
        if number is None:
            number = self.word_number[bits] = len(self.words)
            self.words.append(bits)
        return number

    def empty_words(self) -> list[int]:
        """Word k is what an empty value of tracked header k gives.

        The state behind the colon has k for its operand, and the value may end there.  Of the
        framing headers an empty value is denied, so that word 0 is 0.
        """
        words = []
        for number, items in enumerate(self.conditions.values):
            bits = 0
            for value in self.reported(items) if number >= Header.UPGRADE else ():
                bits |= 1 << value - VALUE_REPORT
            words.append(bits)
        return words

    def in_line(self, place: int) -> bool:
        """Inside a method or target."""
        return self.grammar.states[place].match in {Match.TARGET, Match.CONNECT}

    def deniable(self, place: int) -> bool:
        """Where a request that no rule can allow any more is denied."""
        return self.in_line(place) and not self.grammar.states[place].spared and not self.audit

    # Transitions

    def core(self, key: _CoreKey) -> Core:
        place, items, held = key
        bits, byte_of = self.nfa.bits, self.nfa.byte
        self.work.spend(1 + len(items))
        singles: dict[int, list[Items]] = {}
        classes: dict[int, list[Items]] = {}
        for item in items if items is not SETTLED else ():
            byte = byte_of[item & ITEM]
            if byte >= 0:
                singles.setdefault(byte, []).append(self.followers(item))
            elif byte == CLASS:
                classes.setdefault(bits[item & ITEM], []).append(self.followers(item))
        partition = self.partitions.of(place, tuple(sorted(classes)))
        properties = self.grammar.states[place]
        operand = 0  # of a target: set where the target may end
        if properties.match is Match.VALUE:
            operand = held if properties.held else self.word(items)
        known = items is SETTLED or (bool(items) and items[-1] <= ITEM and self.reach.matches[items[-1]])
        core = Core(operand, self.deniable(place), self.in_line(place), known, partition, [])
        for edge, _, readers in partition.blocks:
            follows = [follow for reader in readers for follow in classes[reader]]
            core.targets.append(self.follow(core, key, edge, follows))
        for byte, literal_follows in singles.items():
            edge = self.grammar.edge(place, byte)
            if edge.op in {Op.ADVANCE, Op.HOLD}:
                follows = list(literal_follows)
                for reader, more in classes.items():
                    if reader >> byte & 1:
                        follows += more
                core.exceptions[byte] = self.follow(core, key, edge, follows)
        return core

    def follow(self, core: Core, key: _CoreKey, edge: Edge, follows: list[Items]) -> int:
        """The state that an edge leads to."""
        place, items, held = key
        if edge.target < 0:
            return DENIED - edge.operand
        match edge.op:
            case Op.DROP:
                return self.state(edge.target, (), 0, *_entry(edge))
            case Op.ADVANCE if items is SETTLED:
                return self.state(edge.target, SETTLED, 0, *_entry(edge))
            case Op.ADVANCE:
                return self.advance(edge, self.union(follows), 0)
            case Op.KEEP:
                return self.state(edge.target, items, held, *_entry(edge))
            case Op.HOLD:
                return self.advance(edge, self.union(follows), core.operand)
            case Op.HOLD_LAST:
                return self.state(edge.target, (), core.operand, *_entry(edge))
            case Op.ENTER:
                return self.state(edge.target, self.conditions.values[edge.operand], 0, *_entry(edge))
            case Op.TARGET_END:
                return self.target_end(core, place, items, edge)
            case Op.VALUE_END:
                # Nothing to tell the engine: then it need not stop there.
                action = Action.VALUE_END if self.words[core.operand] else Action.NONE
                return self.state(edge.target, (), 0, -1, action)

    def union(self, follows: list[Items]) -> Items:
        if len(follows) == 1:
            return follows[0]
        self.work.spend(sum(map(len, follows)))
        return tuple(sorted(set().union(*follows)))

    def advance(self, edge: Edge, items: Items, held: int) -> int:
        """Into a target or value; a request that no rule can allow any more is denied here."""
        connect = self.grammar.states[edge.target].match is Match.CONNECT
        if self.deniable(edge.target) and not any(self.reach.allows(item, connect=connect) for item in items):
            return DENIED - Reason.POLICY_DENIED_L7
        if self.settle and items and edge.action is Action.NONE and self.in_line(edge.target):
            told = self.settled(items, connect=connect)
            if told is not None:
                return self.state(edge.target, told[1], 0, told[0], Action.RULE_SET)
        return self.state(edge.target, items, held, *_entry(edge))

    def settled(self, items: Items, *, connect: bool) -> tuple[int, Items] | None:
        """The rule set that any match from here on gives, and items that need not know it.

        Either all items are of one rule, or they match whatever follows.
        """
        last = items[-1]
        if last <= ITEM:
            return None  # told before, or nothing is certain yet
        if last & ~ITEM == items[0] & ~ITEM and not self.audit:  # audited, it may still match nothing
            number = self.certain(rule_of(last), connect=connect)
            return None if number is None else (number, tuple([item & ITEM for item in items]))
        nfa = self.nfa
        forever = [item for item in items if nfa.byte[item & ITEM] != REPORTS]
        if not forever or any(nfa.bits[item & ITEM] != ALL_BYTES for item in forever):
            return None
        if self.union([self.followers(item) for item in forever]) != items:
            return None
        number = self.certain(*self.matched(items), connect=connect)
        return None if number is None else (number, SETTLED)

    def certain(self, *rules: int, connect: bool) -> int | None:
        """The set of these rules, unless the end of the target could still change it."""
        key = (rules, connect)
        if key not in self.certain_sets:
            number, *others = (
                self.sets.number(rules, connect=connect, ambiguity=ambiguity)[0]
                for ambiguity in (0, *self.ends)
            )
            self.certain_sets[key] = number if all(other == number for other in others) else None
        return self.certain_sets[key]

    def target_end(self, core: Core, place: int, items: Items, edge: Edge) -> int:
        end = self.state(edge.target, (), 0, -1, Action.TARGET_END)
        rules = self.matched(items)
        if items is SETTLED or TOLD in rules:
            core.operand = SET_KNOWN
            return end
        number, allows, refused = self.sets.number(
            rules,
            connect=self.grammar.states[place].match is Match.CONNECT,
            ambiguity=edge.operand,
        )
        if not allows and not self.audit and not self.sets.denies_outright(number):
            return DENIED - (edge.operand if refused else Reason.POLICY_DENIED_L7)
        core.operand = number
        return end


def _entry(edge: Edge) -> tuple[int, int]:
    """(operand or -1 for the core's own, action word) of the state that an edge enters."""
    match edge.action:
        case Action.AMBIGUOUS:
            return -1, Action.AMBIGUOUS | edge.operand << REASON_SHIFT
        case Action.VERSION | Action.HEADER:
            return edge.operand, edge.action
        case action:
            return -1, action
