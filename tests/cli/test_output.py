"""Colours only where they are wanted; tables of hostile cells."""

from __future__ import annotations

import sys

import pytest

from yett_cli import output


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colours_only_on_a_terminal_and_never_with_no_color(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert output.paint("DROPPED", "red") == ("\x1b[31mDROPPED\x1b[0m" if coloured else "DROPPED")


def test_a_table_escapes_its_cells_and_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "B"], [["\x1b[1m", "x"], ["\n", "y"]])
    assert capsys.readouterr().out == "A         B\n\\x1b[1m   x\n\\n        y\n"


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_json({"\u202e": "\x9b"})
    assert capsys.readouterr().out == '{\n  "\\u202e": "\\u009b"\n}\n'
