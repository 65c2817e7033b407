r"""Parser of the regex subset: RE2 syntax over bytes (Latin-1), strict.

Accepted: literals, `.`, classes with ranges, negation, `\d \w \s \D \W \S` and POSIX
classes, groups (plain, `(?:`, named), `|`, `* + ? {n} {n,} {n,m}` up to 1000 and their lazy
forms, `^ $ \A \z`, the escapes `\a \f \n \r \t \v \xHH \x{HH}` and `\` before
punctuation, and a leading `(?i)`, `(?s)` or both.  What RE2 would read as a literal by
accident (`a{,3}`, a lone `{`) is refused, as is everything else.
"""

from __future__ import annotations

import re

from yett_policy.http.tree import (
    ALL_BYTES,
    EMPTY,
    Begin,
    Bytes,
    Either,
    End,
    Node,
    Repeat,
    Sequence,
    byte_set,
    byte_sets,
    map_bytes,
    members,
)

MAX_LENGTH = 4096
"""Characters of a pattern."""
MAX_DEPTH = 100
"""Groups inside groups; RE2 allows 1000."""
MAX_REPEAT = 1000
"""Of one repetition, and of the product of nested ones; as RE2."""

_DIGIT = byte_set(range(0x30, 0x3A))
_UPPER = byte_set(range(0x41, 0x5B))
_LOWER = byte_set(range(0x61, 0x7B))
_WORD = _DIGIT | _UPPER | _LOWER | byte_set(b"_")
_PERL = {"d": _DIGIT, "w": _WORD, "s": byte_set(b"\t\n\f\r ")}
_PERL |= {name.upper(): ALL_BYTES ^ bits for name, bits in _PERL.items()}
_POSIX = {
    "alnum": _DIGIT | _UPPER | _LOWER,
    "alpha": _UPPER | _LOWER,
    "ascii": byte_set(range(0x80)),
    "blank": byte_set(b"\t "),
    "cntrl": byte_set(range(0x20)) | 1 << 0x7F,
    "digit": _DIGIT,
    "graph": byte_set(range(0x21, 0x7F)),
    "lower": _LOWER,
    "print": byte_set(range(0x20, 0x7F)),
    "punct": byte_set(range(0x21, 0x7F)) & ~(_DIGIT | _UPPER | _LOWER),
    "space": byte_set(b"\t\n\v\f\r "),
    "upper": _UPPER,
    "word": _WORD,
    "xdigit": _DIGIT | byte_set(b"abcdefABCDEF"),
}
_CONTROL = {"a": 0x07, "f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B}
_REPEAT = re.compile(r"\{(0|[1-9][0-9]{0,5})(?:(,)(0|[1-9][0-9]{0,5})?)?\}")
_FLAGS = re.compile(r"\(\?(i|s|is|si)\)")
_NAME = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>")
_POSIX_NAME = re.compile(r"\[:(\^?)([a-z]+):\]")
_REFUSED_ESCAPES = {
    "b": "word boundaries are not supported",
    "B": "word boundaries are not supported",
    "C": r"\C is not supported; write [\x00-\xff]",
    "E": r"\Q..\E quoting is not supported; escape each character",
    "Q": r"\Q..\E quoting is not supported; escape each character",
    "p": "Unicode classes are not supported; values are bytes",
    "P": "Unicode classes are not supported; values are bytes",
    "Z": r"\Z is not supported; write \z",
}


class RegexError(ValueError):
    """A pattern outside the subset; the message says what and where."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at offset {offset})")
        self.offset = offset


def parse(pattern: str) -> Node:
    """The tree of a pattern, or RegexError."""
    if len(pattern) > MAX_LENGTH:
        raise RegexError(
            f"a pattern of {len(pattern):,} characters is over the limit of {MAX_LENGTH:,}", MAX_LENGTH
        )
    for offset, char in enumerate(pattern):
        if ord(char) > 0xFF:
            raise RegexError(
                f"the character {char!a} is no byte; values are compared as bytes (Latin-1)", offset
            )
    return _Parser(pattern).parse()


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.depth = 0
        self.names: set[str] = set()
        self.dot = ALL_BYTES ^ byte_set(b"\n")
        self.fold = False

    def parse(self) -> Node:
        if flags := _FLAGS.match(self.text):
            self.fold = "i" in flags[1]
            if "s" in flags[1]:
                self.dot = ALL_BYTES
            self.at = flags.end()
        node, _ = self.either()
        if self.at < len(self.text):
            raise RegexError("this `)` closes no group; write \\) for the character", self.at)
        if self.fold:
            folds = {bits: _folded(bits) for bits in byte_sets(node)}
            # RE2 itself is not consistent there (its prefix search folds ASCII only).
            if any((before ^ after) >> 0x80 for before, after in folds.items()):
                raise RegexError("(?i) folds ASCII letters only; write both cases of the others", 0)
            node = map_bytes(node, folds)
        return node

    # Each method below returns the tree and the largest product of nested repetitions in it.

    def either(self) -> tuple[Node, int]:
        branches, weight = [], 1
        while True:
            branch, inner = self.sequence()
            branches.append(branch)
            weight = max(weight, inner)
            if self.peek() != "|":
                return (branches[0] if len(branches) == 1 else Either(tuple(branches))), weight
            self.at += 1

    def sequence(self) -> tuple[Node, int]:
        parts: list[Node] = []
        weight = 1
        while self.peek() not in {"", "|", ")"}:
            start = self.at
            node, inner = self.atom()
            node, inner = self.repetition(node, inner, start)
            parts.append(node)
            weight = max(weight, inner)
        return (parts[0] if len(parts) == 1 else Sequence(tuple(parts))), weight

    def repetition(self, node: Node, weight: int, start: int) -> tuple[Node, int]:
        bounds = self.bounds()
        if bounds is None:
            return node, weight
        if isinstance(node, Begin | End):
            raise RegexError("an anchor cannot be repeated", start)
        least, most = bounds
        if self.peek() == "?":  # lazy: the same language
            self.at += 1
        if self.peek() in {"*", "+", "?", "{"}:
            raise RegexError("a repetition cannot be repeated or be possessive; use a group", self.at)
        counted = most if most is not None else least
        if counted > 1:
            weight *= counted
        if weight > MAX_REPEAT:
            raise RegexError(f"repetitions multiply to more than {MAX_REPEAT}", start)
        return Repeat(node, least, most), weight

    def bounds(self) -> tuple[int, int | None] | None:
        char = self.peek()
        if char in {"*", "+", "?"}:
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        if char != "{":
            return None
        match = _REPEAT.match(self.text, self.at)
        if match is None:
            raise RegexError(
                "this `{` begins no repetition {n}, {n,} or {n,m}; write \\{ for the character", self.at
            )
        least = int(match[1])
        most = int(match[3]) if match[3] is not None else (None if match[2] else least)
        if least > MAX_REPEAT or (most or 0) > MAX_REPEAT:
            raise RegexError(f"a repetition of more than {MAX_REPEAT}", self.at)
        if most is not None and most < least:
            raise RegexError(f"the repetition {match[0]} has its bounds in the wrong order", self.at)
        self.at = match.end()
        return least, most

    def atom(self) -> tuple[Node, int]:
        char = self.peek()
        match char:
            case "(":
                return self.group()
            case "[":
                return Bytes(self.klass()), 1
            case "\\":
                return self.escape(), 1
            case "*" | "+" | "?":
                raise RegexError(f"there is nothing that `{char}` could repeat", self.at)
            case "{":
                raise RegexError(
                    "there is nothing that `{` could repeat; write \\{ for the character", self.at
                )
        self.at += 1
        match char:
            case ".":
                return Bytes(self.dot), 1
            case "^":
                return Begin(), 1
            case "$":
                return End(), 1
            case _:
                return Bytes(1 << ord(char)), 1

    def group(self) -> tuple[Node, int]:
        start = self.at
        if self.text.startswith("(?:", start):
            self.at += 3
        elif name := _NAME.match(self.text, start):
            if name[1] in self.names:
                raise RegexError(f"the group name {name[1]} is used twice", start)
            self.names.add(name[1])
            self.at = name.end()
        elif self.text.startswith(("(?=", "(?!", "(?<=", "(?<!"), start):
            raise RegexError("look-around is not supported", start)
        elif self.text.startswith("(?P=", start):
            raise RegexError("back-references are not supported", start)
        elif self.text.startswith("(?", start):
            raise RegexError(
                "this group is not supported; flags are (?i), (?s) and (?is), at the very start", start
            )
        else:
            self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RegexError(f"groups nest more than {MAX_DEPTH} deep", start)
        node, weight = self.either()
        if self.peek() != ")":
            raise RegexError("this group is not closed", start)
        self.at += 1
        self.depth -= 1
        return (EMPTY if node == EMPTY else node), weight

    def escape(self) -> Node:
        char = self.text[self.at + 1 : self.at + 2]
        if char in _PERL:
            self.at += 2
            return Bytes(_PERL[char])
        if char == "A":
            self.at += 2
            return Begin()
        if char == "z":
            self.at += 2
            return End()
        return Bytes(1 << self.escaped_byte())

    def escaped_byte(self) -> int:
        """The byte of an escape that stands for exactly one."""
        start = self.at
        char = self.text[start + 1 : start + 2]
        if char == "":
            raise RegexError("the pattern ends in a lone backslash", start)
        if char == "x":
            match = re.compile(r"\\x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})").match(self.text, start)
            if match is None:
                raise RegexError(r"\x takes two hexadecimal digits, or some in braces", start)
            value = int(match[1] or match[2], 16)
            if value > 0xFF:
                raise RegexError(f"{match[0]} is no byte", start)
            self.at = match.end()
            return value
        if char in _CONTROL:
            self.at += 2
            return _CONTROL[char]
        if char in _REFUSED_ESCAPES:
            raise RegexError(_REFUSED_ESCAPES[char], start)
        if char.isascii() and char.isdigit():
            raise RegexError("back-references and octal escapes are not supported", start)
        if not char.isascii() or char.isalnum() or char == "_":
            raise RegexError(f"the escape \\{char} is not known", start)
        self.at += 2
        return ord(char)

    def klass(self) -> int:
        """A bracket expression; reads it as RE2 does, `-` and `]` in odd places included."""
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        bits, first = 0, True
        while first or self.peek() != "]":
            first = False
            char = self.peek()
            if char == "":
                raise RegexError("this class is not closed", start)
            if self.text.startswith("[:", self.at):
                bits |= self.posix()
            elif char == "\\" and self.text[self.at + 1 : self.at + 2] in _PERL:
                bits |= _PERL[self.text[self.at + 1]]
                self.at += 2
            else:
                bits |= self.range()
        self.at += 1
        if self.fold:  # before the complement, as RE2 does
            bits = _folded(bits)
        return ALL_BYTES ^ bits if negated else bits

    def posix(self) -> int:
        match = _POSIX_NAME.match(self.text, self.at)
        if match is None or match[2] not in _POSIX:
            raise RegexError("this POSIX class is not known; write \\[ for the character", self.at)
        self.at = match.end()
        return ALL_BYTES ^ _POSIX[match[2]] if match[1] else _POSIX[match[2]]

    def range(self) -> int:
        start = self.at
        low = self.class_byte(start)
        if self.peek() != "-" or self.text[self.at + 1 : self.at + 2] in {"]", ""}:
            return 1 << low
        self.at += 1
        high = self.class_byte(start)
        if high < low:
            raise RegexError(f"the range {self.text[start : self.at]} has its ends in the wrong order", start)
        return byte_set(range(low, high + 1))

    def class_byte(self, start: int) -> int:
        char = self.peek()
        if char == "\\":
            if self.text[self.at + 1 : self.at + 2] in _PERL:
                raise RegexError("a range cannot end in a class", start)
            return self.escaped_byte()
        if char == "":
            raise RegexError("this class is not closed", start)
        self.at += 1
        return ord(char)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]


def _other_case(byte: int) -> int:
    """The same letter in the other case, by Unicode as RE2 folds: Latin-1 letters included."""
    folded = chr(byte).swapcase()
    return ord(folded) if len(folded) == 1 and ord(folded) <= 0xFF else byte


_OTHER_CASE = [_other_case(byte) for byte in range(256)]


def _folded(bits: int) -> int:
    return bits | byte_set(_OTHER_CASE[byte] for byte in members(bits))
