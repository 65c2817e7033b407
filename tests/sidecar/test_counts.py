"""The counters of what is let through: whose they are, also where there are more rules than counters."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from yett_loader import data
from yett_loader.sidecar.counts import Counts, let_through
from yett_policy.document import Direction
from yett_policy.reason import Reason

COUNTERS, SIZE, OWN = 8192, 1024, 8190


class Text(ctypes.Structure):
    """`struct text`"""

    _fields_ = (("at", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Module:
    """deny.c as Envoy uses it; each request has to be counted by hand."""

    def __init__(self, path: Path) -> None:
        os.environ["YETT_ALLOWED"] = str(path)
        self._path = path
        library = ctypes.CDLL(str(Path(data.__file__).with_name("libyett_deny.so")), os.RTLD_LAZY)
        prefix = "envoy_dynamic_module_on_http_filter_per_route_config"
        self._new, self._destroy = library[f"{prefix}_new"], library[f"{prefix}_destroy"]
        self._new.argtypes, self._new.restype = [Text, Text], ctypes.c_void_p
        self._destroy.argtypes = [ctypes.c_void_p]
        begin = library.envoy_dynamic_module_on_program_init
        begin.restype = ctypes.c_char_p
        assert begin()

    def route(self, key: str) -> int:
        text = f"reset\n{key}".encode()
        made = self._new(Text(b"", 0), Text(text, len(text)))
        assert made
        return int(made)

    def forget(self, route: int) -> None:
        self._destroy(route)

    def count_each(self) -> None:
        """One request for each counter that was taken."""
        with self._path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as counters:
            for at in range(0, len(counters), SIZE):
                value, length = struct.unpack_from("=QQ", counters, at)
                if length:
                    struct.pack_into("=Q", counters, at, value + 1)


def _more_rules_than_counters(path: Path) -> None:
    module = Module(path)
    first = [module.route(f"{'egress' if n % 2 else 'ingress'} r{n}") for n in range(OWN)]
    late = module.route("ingress late")  # no counter is left for it
    module.count_each()
    assert sum(count for *_, count in let_through(path)) == COUNTERS
    assert "late" not in {rule for _, rule, _ in let_through(path)}
    assert module.route("egress r1")  # a second route of one rule has the same counter
    for route in first[:4]:
        module.forget(route)
    before = totals(path)
    assert module.route("ingress new")
    assert module.route("egress newer")
    rules = {rule: count for _, rule, count in let_through(path) if rule}
    # r1 has a route still; r0 and r2 gave theirs away, and what these held is in the sum of their direction.
    assert {"r1", "r3", "r4"} <= rules.keys()
    assert not {"r0", "r2"} & rules.keys()
    assert totals(path) == before
    module.forget(late)
    assert module.route("ingress " + "x" * SIZE)  # too long a name
    module.count_each()
    counted = {(direction, rule): count for direction, rule, count in let_through(path)}
    assert (counted["ingress", "new"], counted["egress", "newer"]) == (1, 1)
    assert not [rule for _, rule in counted if rule.startswith("x")]


def totals(path: Path) -> dict[str, int]:
    found = dict.fromkeys(("ingress", "egress"), 0)
    for direction, _, count in let_through(path):
        found[direction] += count
    return found


def test_with_more_rules_than_counters_no_count_is_lost_or_given_to_another_rule(tmp_path: Path) -> None:
    child = get_context("spawn").Process(target=_more_rules_than_counters, args=(tmp_path / "allowed",))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def written(*counters: tuple[int, int, bytes]) -> Iterator[bytes]:
    for value, length, key in counters:
        yield struct.pack("=QQ1008s", value, length, key)


def test_what_is_denied_and_what_is_let_through_add_up(tmp_path: Path) -> None:
    (tmp_path / "allowed").write_bytes(
        b"".join(
            written(
                (2, 8, b"ingress "),
                (0, 7, b"egress "),
                (3, 9, b"ingress r"),
                (4, 2**64 - 1, b"ingress s"),  # is being given to another
                (5, 8, b"sideways r"),
                (0, 0, b""),
                (6, 9, b"ingress t"),
            )
        )
    )
    counts = Counts(tmp_path / "counts.json", tmp_path / "allowed")
    counts.add(Direction.INGRESS, Reason.UPGRADE_DENIED, "r")
    assert counts.requests == {("ingress", "ALLOWED"): 5, ("ingress", "UPGRADE_DENIED"): 1}
    assert counts.rules == {"r": 4}
    counts.save()
    assert Counts(tmp_path / "counts.json", tmp_path / "none").rules == {"r": 1}


@pytest.mark.parametrize("text", [b"", b"x" * 5000, b"\xff" * 2048])
def test_a_file_that_is_none_counts_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "allowed").write_bytes(text)
    assert not list(let_through(tmp_path / "allowed"))
