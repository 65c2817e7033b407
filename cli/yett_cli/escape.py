"""Bytes that a stranger made, as text that a terminal cannot obey.

Paths, headers and host names come from whoever sends requests; labels and names from whoever
writes manifests.  Everything that is not plainly visible is written as an escape.
"""

from __future__ import annotations

import unicodedata

# Controls, formats (bidi, zero width, tags), surrogates, private use, unassigned, separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me"}


def text(value: str | bytes) -> str:
    """One line of visible characters; backslashes are doubled, so that nothing is ambiguous."""
    decoded = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if decoded.isascii() and decoded.isprintable() and "\\" not in decoded:
        return decoded
    return "".join(map(_character, decoded))


def lines(value: str) -> str:
    """As `text`, but line breaks of our own messages stay, and so do backslashes."""
    return "\n".join(text(line).replace("\\\\", "\\") for line in value.split("\n"))


def _character(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if character == " ":
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in _HIDDEN:
        return character
    if code < 0x80:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
