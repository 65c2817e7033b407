"""The tables, interpreted: the executable specification of the kernel's HTTP engine.

One byte at a time, in the plainest way.  The kernel engine is compared with it, and it is
compared with the independent parser of `parse.py`.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass

from yett_policy.document import Verdict
from yett_policy.http import layout
from yett_policy.http.layout import Action, AlternativeFlag, Header, Kind, RulesetFlag
from yett_policy.reason import Reason

_DUPLICATE: dict[int, Reason] = {
    Header.HOST: Reason.HTTP_DUPLICATE_HOST,
    Header.CONTENT_LENGTH: Reason.HTTP_DUPLICATE_LENGTH,
    Header.TRANSFER_ENCODING: Reason.HTTP_DUPLICATE_ENCODING,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about one request, and at which byte of the stream (from 0)."""

    verdict: Verdict
    reason: Reason
    rule: int
    """Relative to the ruleset's first; the default rule if none matched."""
    offset: int
    upgrade: bool = False
    """The response may switch protocols."""
    forbidden: bool = False
    """A denial answers 403."""


class Tables:
    """`struct ruleset` and what follows it, read from bytes."""

    def __init__(self, data: bytes) -> None:
        head = struct.unpack_from(layout.HEAD_FORMAT, data)
        fields: dict[str, int] = dict(zip(layout.HEAD_FIELDS, head, strict=True))
        self.data = data
        self.flags = fields["flags"]
        self.default_rule = fields["default_rule"]
        self.start, self.chunk = fields["start"], fields["chunk"]
        self.chunk_end, self.trailer, self.skip = fields["chunk_end"], fields["trailer"], fields["skip"]
        self.sets, self.conditions = fields["sets"], fields["conditions"]
        self.initially: int = struct.unpack_from("<Q", data, layout.INITIALLY_OFFSET)[0]
        headers = f"<{layout.TRACKED_HEADERS}Q"
        self.on_header: tuple[int, ...] = struct.unpack_from(headers, data, layout.ON_HEADER_OFFSET)
        self.off_header: tuple[int, ...] = struct.unpack_from(headers, data, layout.OFF_HEADER_OFFSET)
        self.class_of = data[layout.CLASS_OF_OFFSET : layout.HEAD_SIZE]
        self.cells = array("H", data[: len(data) // 2 * 2])
        tier = next(tier for tier, size in enumerate(layout.TIER_SIZE) if len(data) <= size)
        self.shift = layout.TIER_SHIFT[tier]

    def cell(self, state: int, column: int) -> int:
        """One entry of a state's row."""
        return self.cells[((state & layout.MAX_STATE) << self.shift) + column]

    def word(self, index: int) -> int:
        """A condition word."""
        found: int = struct.unpack_from("<Q", self.data, 8 * (self.conditions + index))[0]
        return found

    def alternatives(self, number: int) -> list[tuple[int, int, int, int, int, int]]:
        """(rule, kind, flags, tolerates, needs, upgrade) of a rule set, in order."""
        first, count = struct.unpack_from(layout.SET_FORMAT, self.data, 8 * (self.sets + number))
        return list(
            struct.iter_unpack(layout.ALTERNATIVE_FORMAT, self.data[8 * first : 8 * (first + 3 * count)])
        )


class Machine:
    """Judges the requests of one connection; feed it the client's bytes in any pieces."""

    def __init__(self, data: bytes) -> None:
        self.tables = Tables(data)
        self.over = False
        """Denied, or audited and no longer in step: nothing more is judged."""
        self.offset = 0
        self.skip = 0
        self.after_skip = 0
        self.state = self.tables.start
        self._begin()

    def _begin(self) -> None:
        """Before the first byte of a request."""
        self.state = self.tables.start
        self.in_head = True
        self.head = 0
        self.conditions = self.tables.initially
        self.rule_set = 0
        self.ambiguous = 0
        self.minor = 0
        self.length = 0
        self.seen = 0
        self.chunked = False
        self.digits = 0

    def feed(self, data: bytes) -> list[Judgement]:
        """The judgements that these further bytes complete."""
        found: list[Judgement] = []
        at = 0
        while at < len(data) and not self.over:
            if self.skip:
                step = min(self.skip, len(data) - at)
                self.skip -= step
                at += step
                self.offset += step
                if not self.skip:
                    self.state = self.after_skip
                continue
            found += self._byte(data[at])
            at += 1
            self.offset += 1
        return found

    def _byte(self, byte: int) -> list[Judgement]:
        found: Judgement | Reason | None = None
        if self.in_head and self.head == layout.HEAD_MAX:
            found = Reason.HTTP_HEAD_TOO_LONG
        else:
            self.head += 1
            before, tables = self.state, self.tables
            after = tables.cell(before, layout.ROW_NEXT + tables.class_of[byte])
            self.state = after & layout.MAX_STATE
            if after & layout.EVENT:
                found = self._act(byte, tables.cell(before, layout.ROW_OPERAND))
        if isinstance(found, Reason):
            found = self._deny(found)
        return [] if found is None else [found]

    def _deny(self, reason: Reason, rule: int | None = None, *, forbidden: bool | None = None) -> Judgement:
        """A denial by the grammar or by a rule ends it."""
        self.over = True
        flags = self.tables.flags
        audited = flags & (RulesetFlag.AUDIT | RulesetFlag.DENIES) == RulesetFlag.AUDIT
        return Judgement(
            Verdict.AUDIT if audited else Verdict.DENY,
            reason,
            self.tables.default_rule if rule is None else rule,
            self.offset,
            forbidden=bool(flags & RulesetFlag.FORBIDDEN) if forbidden is None else forbidden,
        )

    def _act(self, byte: int, before: int) -> Judgement | Reason | None:
        """Run the action of the state just entered."""
        tables = self.tables
        operand = tables.cell(self.state, layout.ROW_OPERAND)
        word = tables.cell(self.state, layout.ROW_ACTION)
        match word & layout.ACTION_MASK:
            case Action.DENY:
                return Reason(operand)
            case Action.RULE_SET:
                self.rule_set = operand
            case Action.TARGET_END:
                if before != layout.SET_KNOWN:
                    self.rule_set = before
                return self._deny_outright()
            case Action.VERSION:
                self.minor = operand
            case Action.HEADER:
                if self.seen >> operand & 1:
                    return _DUPLICATE.get(operand, Reason.HTTP_AMBIGUOUS_HEADER)
                self.seen |= 1 << operand
                self.conditions = self.conditions & ~tables.off_header[operand] | tables.on_header[operand]
            case Action.VALUE_END:
                self.conditions |= tables.word(before)
            case Action.LENGTH_DIGIT:
                self.length = 10 * self.length + byte - ord("0")
                if self.length > layout.LENGTH_MAX:
                    return Reason.HTTP_CONTENT_LENGTH
            case Action.CHUNKED:
                self.chunked = True
            case Action.AMBIGUOUS:
                self.ambiguous |= 1 << (word >> layout.REASON_SHIFT) - Reason.AMBIGUOUS_DOT_SEGMENT
            case Action.HEAD_END:
                return self._head_end()
            case Action.CHUNK_DIGIT:
                self.digits += 1
                if self.digits > layout.CHUNK_DIGITS:
                    return Reason.HTTP_CHUNK
                self.length = self.length << 4 | int(chr(byte), 16)
            case Action.CHUNK_LINE_END:
                return self._chunk_line_end()
            case Action.BODY_END:
                self._begin()
            case _:
                return Reason.INTERNAL
        return None

    def _deny_outright(self) -> Judgement | Reason | None:
        """A rule that denies whatever the headers say need not wait for them."""
        alternatives = self.tables.alternatives(self.rule_set)
        if alternatives:
            rule, kind, flags, _, needs, _ = alternatives[0]
            if kind == Kind.DENY and not needs:
                return self._deny(
                    Reason.DENY_RULE_L7, rule, forbidden=bool(flags & AlternativeFlag.FORBIDDEN)
                )
        elif not self.tables.flags & RulesetFlag.AUDIT:
            return Reason.POLICY_DENIED_L7
        return None

    def _head_end(self) -> Judgement | Reason:
        encoded = self.seen >> Header.TRANSFER_ENCODING & 1
        if self.minor == 1 and not self.seen >> Header.HOST & 1:
            return Reason.HTTP_NO_HOST
        if encoded and self.seen >> Header.CONTENT_LENGTH & 1:
            return Reason.HTTP_LENGTH_AND_ENCODING
        if encoded and self.minor == 0:
            return Reason.HTTP_ENCODING_IN_10
        found = self._search()
        if found.verdict is not Verdict.DENY:
            self._body()
        return found

    def _search(self) -> Judgement:
        """The first alternative whose needs are met decides."""
        audit_rule: int | None = None
        unmet = 0
        for rule, kind, flags, tolerates, needs, upgrade in self.tables.alternatives(self.rule_set):
            if self.conditions & needs != needs:
                continue
            if kind == Kind.DENY:
                return self._deny(
                    Reason.DENY_RULE_L7, rule, forbidden=bool(flags & AlternativeFlag.FORBIDDEN)
                )
            if kind == Kind.AUDIT_DENY:
                audit_rule = rule if audit_rule is None else audit_rule
                continue
            if self.ambiguous & ~tolerates:
                unmet = self.ambiguous & ~tolerates
                continue
            may_upgrade = bool(self.conditions & upgrade or flags & AlternativeFlag.CONNECT)
            if audit_rule is not None:
                return Judgement(Verdict.AUDIT, Reason.DENY_RULE_L7, audit_rule, self.offset, may_upgrade)
            return Judgement(Verdict.ALLOW, Reason.ALLOWED, rule, self.offset, may_upgrade)
        reason = Reason.POLICY_DENIED_L7
        if unmet:  # the lowest: one reason, not several
            reason = Reason(Reason.AMBIGUOUS_DOT_SEGMENT + (unmet & -unmet).bit_length() - 1)
        flags = self.tables.flags
        # What might hide a request from a rule that denies for good is a denial.
        if flags & RulesetFlag.AUDIT and not (unmet and flags & RulesetFlag.DENIES):
            return Judgement(Verdict.AUDIT, reason, self.tables.default_rule, self.offset)
        return self._deny(reason)

    def _body(self) -> None:
        """After a head that passes."""
        length, chunked = self.length, self.chunked
        if not chunked:
            self._begin()
            self.skip, self.after_skip = length, self.state
            return
        self.in_head = False
        self._size_line(self.tables.chunk)

    def _size_line(self, state: int) -> None:
        self.length = self.digits = 0
        self.state = state

    def _chunk_line_end(self) -> Reason | None:
        if self.length > layout.CHUNK_MAX:
            return Reason.HTTP_CHUNK
        if not self.length:
            self.state = self.tables.trailer
            return None
        self.skip = self.length
        self.after_skip = self.tables.chunk_end
        self._size_line(self.tables.chunk_end)
        return None
