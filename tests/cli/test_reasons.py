"""Every reason has words."""

from __future__ import annotations

from yett_cli import reasons
from yett_policy.reason import Reason


def test_each_reason_has_words_of_its_own() -> None:
    names = {reason.name for reason in Reason} - {"COUNT"}
    assert set(reasons.TEXT) == names
    assert len(set(reasons.TEXT.values())) == len(names)


def test_a_reason_of_a_newer_node_is_shown_by_name() -> None:
    assert reasons.text("SOMETHING_NEW") == "SOMETHING_NEW"
