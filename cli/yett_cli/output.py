"""Tables, JSON, colours: the same on every command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from yett_cli import escape

F = TypeVar("F", bound=Callable[..., Any])

_GAP = "   "


def option(*choices: str) -> Callable[[F], F]:
    """`-o`; the first choice is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="Form of the output.",
    )


def as_json(value: object) -> None:
    """Print a document; ASCII only, so that no byte of it reaches the terminal as a control."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; every cell is escaped."""
    cells = [list(header), *([escape.text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def colours() -> bool:
    """Only on a terminal, and never against the user's wish (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    """Colour a word, where colours are wanted."""
    return click.style(text, fg=colour) if colours() else text


def warn(message: str) -> None:
    """To stderr."""
    click.echo(f"warning: {escape.lines(message)}", err=True)
