"""No byte of a stranger reaches the terminal as anything but visible text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_cli import escape


@pytest.mark.parametrize(
    ("given_value", "shown"),
    [
        (b"/plain?a=1", "/plain?a=1"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\u009b31m"),
        (b"\x9b31m", "\\x9b31m"),
        (b"a\r\nb\tc", "a\\r\\nb\\tc"),
        ("abc\u202edef", "abc\\u202edef"),
        ("a\u200bb\u2066c", "a\\u200bb\\u2066c"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("e\u0301", "e\\u0301"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"caf\xc3\xa9", "café"),
        (b"\\x1b", "\\\\x1b"),
        ("\u00a0", "\\u00a0"),
        (b"\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_hidden_characters_become_visible(given_value: str | bytes, shown: str) -> None:
    assert escape.text(given_value) == shown


@given(st.binary() | st.text())
def test_the_result_is_one_printable_line(value: bytes | str) -> None:
    shown = escape.text(value)
    assert shown.isprintable()
    assert "\x1b" not in shown
    assert not any(0x80 <= ord(c) <= 0x9F for c in shown)


@given(st.binary(), st.binary())
def test_different_bytes_look_different(one: bytes, two: bytes) -> None:
    assert (escape.text(one) == escape.text(two)) == (one == two)


def test_our_own_messages_keep_their_lines_and_backslashes() -> None:
    assert escape.lines("a\\d\nb\x1b[0m") == "a\\d\nb\\x1b[0m"
