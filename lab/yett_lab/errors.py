"""What can go wrong: the user's input, or the machine."""

from __future__ import annotations


class LabError(Exception):
    """The machine or a process did not do what was asked."""


class InputError(LabError):
    """What the user wrote is wrong; the message names file, field and remedy."""
