"""The checker of verdicts finds what is wrong, and nothing else."""

from __future__ import annotations

import pytest

from cluster.history import History, Probe

OPEN, SHUT, HALF = (lambda _: True), (lambda _: False), (lambda probe: probe.path == "/public")


def probes(text: str, path: str = "/public", kept: bool = True) -> list[Probe]:
    """One a second from 0 on, half a second each: + passed, - denied."""
    return [
        Probe("client", "server", path, kept, at, at + 0.5, sign == "+", "")
        for at, sign in enumerate(text)
        if sign != " "
    ]


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ("++++++++", [6, 7]),  # not in force although it was said to be
        ("++------", []),
        ("+++-----", []),
        ("++++++--", []),
        ("+-------", [1]),  # before anybody asked for it
        ("+++-+---", [4]),  # taken back
        ("++----+-", [6]),
        ("--------", [0, 1]),
    ],
)
def test_a_change_is_seen_once_from_its_issue_to_its_settling(seen: str, wrong: list[float]):
    history = History(OPEN)
    history.change(SHUT, issued=1.8)
    history.settle(5.9)
    assert [probe.begin for probe in history.wrong(probes(seen))] == wrong


def test_a_request_that_was_under_way_at_the_change_may_have_either_verdict():
    history = History(OPEN)
    history.change(SHUT, issued=1.3)
    history.settle(1.4)
    assert history.wrong(probes("+---")) == history.wrong(probes("++--")) == []


def test_revisions_may_be_skipped_but_not_gone_back_to():
    history = History(OPEN)
    history.change(SHUT, issued=1)
    history.change(HALF, issued=2)
    assert history.wrong(probes("++++", "/public")) == []
    assert [probe.begin for probe in history.wrong(probes("+--+-", "/public"))] == [4]


def test_series_are_apart():
    history = History(OPEN)
    history.change(SHUT, issued=0)
    assert history.wrong(probes("++--", kept=True) + probes("----", kept=False)) == []
