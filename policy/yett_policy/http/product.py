"""The deterministic automaton: the grammar and the rules' items, walked together.

A core is (grammar state, items, held): what decides where each byte leads.  A state is a
core and the action run on the way in.  Transitions are sparse: one target for each block of
bytes that no single-byte item singles out, and exceptions for those that one does; nearly
all states of a ruleset are nodes of a trie, with one or two exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from yett_policy.http.alternatives import RuleSets
from yett_policy.http.conditions import VALUE_REPORT, Conditions
from yett_policy.http.errors import TooComplex
from yett_policy.http.grammar import Edge, Match, Op
from yett_policy.http.layout import REASON_SHIFT, Action
from yett_policy.http.nfa import Items, Nfa
from yett_policy.http.request import RequestGrammar
from yett_policy.reason import Reason

Block = tuple[Edge, int, tuple[int, ...]]
"""Edge of the grammar, bytes, classes of items (sets of bytes) that read them."""

DENIED = -1
"""Targets below 0 are denials: DENIED - reason."""


@dataclass(slots=True)
class Core:
    """One row of transitions."""

    operand: int
    deniable: bool
    """Part of a method or target: denied where no allow rule can match any more."""
    blocks: list[Block]
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


class Product:
    """Walks grammar and items; `build()` once."""

    def __init__(
        self,
        places: RequestGrammar,
        nfa: Nfa,
        lines: Items,
        conditions: Conditions,
        sets: RuleSets,
        *,
        audit: bool,
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
        self.max_states = max_states
        self.work_left = self.max_work = max_work
        self.core_number: dict[_CoreKey, int] = {}
        self.core_keys: list[_CoreKey] = []
        self.state_number: dict[tuple[int, int, int], int] = {}
        self.words: list[int] = self.empty_words()
        self.word_number: dict[int, int] = {0: 0}
        self.can_allow = self.live_items()
        self.grammar_blocks: dict[int, list[tuple[Edge, int]]] = {}
        self.partitions: dict[tuple[int, tuple[int, ...]], list[Block]] = {}

    def build(self) -> Automaton:
        """Every reachable state."""
        start = self.state(self.places.start, self.lines)
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

    def spend(self, work: int) -> None:
        self.work_left -= work
        if self.work_left < 0:
            raise TooComplex(f"over the budget of {self.max_work:,} steps of compilation")

    # What items mean

    def live_items(self) -> tuple[list[bool], list[bool]]:
        """Items from which an allow rule, and one that names CONNECT, can still be reported."""
        nfa = self.nfa
        before: list[list[int]] = [[] for _ in nfa.bits]
        for item, follow in enumerate(nfa.follow):
            for after in follow:
                before[after].append(item)
        live = []
        for connect in (False, True):
            found = [False] * len(nfa.bits)
            work = [
                item
                for item, rule in enumerate(nfa.report)
                if 0 <= rule < VALUE_REPORT and self.sets.allows(rule, connect=connect)
            ]
            for item in work:
                found[item] = True
            while work:
                for previous in before[work.pop()]:
                    if not found[previous]:
                        found[previous] = True
                        work.append(previous)
            live.append(found)
        return live[0], live[1]

    def reported(self, items: Items) -> list[int]:
        report = self.nfa.report
        return [report[item] for item in items if report[item] >= 0]

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
        """Word k is what an empty value of tracked header k gives: the state behind the colon
        has k for its operand, and the value may end there.
        """
        words = []
        for items in self.conditions.values:
            bits = 0
            for value in self.reported(items):
                bits |= 1 << value - VALUE_REPORT
            words.append(bits)
        return words

    def deniable(self, place: int) -> bool:
        properties = self.grammar.states[place]
        return properties.match in {Match.TARGET, Match.CONNECT} and not properties.spared and not self.audit

    # Transitions

    def core(self, key: _CoreKey) -> Core:
        place, items, held = key
        nfa, bits, byte_of = self.nfa, self.nfa.bits, self.nfa.byte
        self.spend(1 + len(items))
        singles: dict[int, list[Items]] = {}
        classes: dict[int, list[Items]] = {}
        for item in items:
            byte = byte_of[item]
            if byte >= 0:
                singles.setdefault(byte, []).append(nfa.follow[item])
            elif byte == -1:
                classes.setdefault(bits[item], []).append(nfa.follow[item])
        blocks = self.partition(place, tuple(sorted(classes)))
        properties = self.grammar.states[place]
        if properties.match is Match.VALUE:
            operand = held if properties.held else self.word(items)
        else:  # of a target: set where the target may end
            operand = 0
        core = Core(operand, self.deniable(place), blocks, [])
        for edge, _, readers in blocks:
            follows = [follow for reader in readers for follow in classes[reader]]
            core.targets.append(self.follow(core, key, edge, follows))
        edges = self.grammar.edges[place]
        for byte, literal_follows in singles.items():
            edge = edges[byte]
            if edge.op in {Op.ADVANCE, Op.HOLD}:
                follows = list(literal_follows)
                for reader, more in classes.items():
                    if reader >> byte & 1:
                        follows += more
                core.exceptions[byte] = self.follow(core, key, edge, follows)
        return core

    def partition(self, place: int, classes: tuple[int, ...]) -> list[Block]:
        """The bytes, by edge of the grammar and by the classes that hold them."""
        found = self.partitions.get((place, classes))
        if found is None:
            blocks = self.grammar_blocks.get(place)
            if blocks is None:
                blocks = self.grammar_blocks[place] = list(self.grammar.blocks(place))
            found = []
            for edge, bits in blocks:
                if edge.op not in {Op.ADVANCE, Op.HOLD}:
                    found.append((edge, bits, ()))
                    continue
                parts: list[tuple[int, tuple[int, ...]]] = [(bits, ())]
                for reader in classes:
                    split = []
                    for part, readers in parts:
                        if part & reader:
                            split.append((part & reader, (*readers, reader)))
                        if part & ~reader:
                            split.append((part & ~reader, readers))
                    parts = split
                found += [(edge, part, readers) for part, readers in parts]
            self.spend(len(found))
            self.partitions[place, classes] = found
        return found

    def follow(self, core: Core, key: _CoreKey, edge: Edge, follows: list[Items]) -> int:
        """The state that an edge leads to."""
        place, items, held = key
        if edge.target < 0:
            return DENIED - edge.operand
        match edge.op:
            case Op.DROP:
                return self.state(edge.target, (), 0, *_entry(edge))
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
        self.spend(sum(map(len, follows)))
        return tuple(sorted(set().union(*follows)))

    def advance(self, edge: Edge, items: Items, held: int) -> int:
        """Into a target or value; a request that no rule can allow any more is denied here."""
        if self.deniable(edge.target):
            live = self.can_allow[self.grammar.states[edge.target].match is Match.CONNECT]
            if not any(live[item] for item in items):
                return DENIED - Reason.POLICY_DENIED_L7
        return self.state(edge.target, items, held, *_entry(edge))

    def target_end(self, core: Core, place: int, items: Items, edge: Edge) -> int:
        number, allows, refused = self.sets.number(
            self.reported(items),
            connect=self.grammar.states[place].match is Match.CONNECT,
            ambiguity=edge.operand,
        )
        if not allows and not self.audit and not self.sets.denies_outright(number):
            return DENIED - (edge.operand if refused else Reason.POLICY_DENIED_L7)
        core.operand = number
        return self.state(edge.target, (), 0, -1, Action.TARGET_END)


def _entry(edge: Edge) -> tuple[int, int]:
    """(operand or -1 for the core's own, action word) of the state that an edge enters."""
    match edge.action:
        case Action.AMBIGUOUS:
            return -1, Action.AMBIGUOUS | edge.operand << REASON_SHIFT
        case Action.VERSION | Action.HEADER:
            return edge.operand, edge.action
        case action:
            return -1, action
