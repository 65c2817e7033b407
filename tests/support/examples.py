"""How many examples a property test tries."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """As many, and a hundred times that under the profile `fuzz`, which a number of its own would overrule."""
    return count * settings.default.max_examples // settings.get_profile("yett").max_examples
