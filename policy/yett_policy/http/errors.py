"""What the HTTP compiler raises."""

from __future__ import annotations


class TooComplex(Exception):  # noqa: N818 - a verdict on a ruleset, not a fault
    """The rules do not fit the kernel engine; the message says which budget and by how much."""


class TooMuchWork(TooComplex):
    """It takes more steps than were allowed to find out whether they fit."""
