"""The header is the contract: the bindings, the policy core and the kernel speak its numbers."""

from __future__ import annotations

import re
import runpy
import struct
from enum import IntEnum
from pathlib import Path

import pytest

from yett_loader.kernel import abi
from yett_policy import identity
from yett_policy.document import Direction, Verdict
from yett_policy.http import layout
from yett_policy.reason import Reason

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "bpf_src/include/yett_abi.h").read_text()


def test_the_bindings_were_built_from_this_header() -> None:
    build = runpy.run_path(str(ROOT / "loader/yett_loader/_libbpf/build.py"))
    assert build["abi_digest"]() == abi.HEADER_DIGEST, "the header changed: run `make bindings`"


@pytest.mark.parametrize("name", re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE))
def test_each_struct_of_the_header_is_known_and_survives_a_round_trip(name: str) -> None:
    data = bytes(index % 251 for index in range(abi.size(name)))
    values = abi.unpack(name, data)
    assert tuple(values) == abi.fields(name)
    assert abi.unpack(name, abi.pack(name, **values)) == values


def test_every_struct_in_a_pinned_map_is_part_of_the_layout_digest() -> None:
    assert set(re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE)) == set(abi.PINNED_STRUCTS)


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("reason", Reason),
        ("verdict", Verdict),
        ("http_action", layout.Action),
        ("tracked_header", layout.Header),
        ("alternative_kind", layout.Kind),
        ("alternative_flags", layout.AlternativeFlag),
        ("ruleset_flags", layout.RulesetFlag),
        ("direction", Direction),
    ],
)
def test_enums_of_the_policy_core_are_those_of_the_header(prefix: str, kind: type[IntEnum]) -> None:
    names = {
        "http_action": "ACTION_",
        "tracked_header": "HEADER_",
        "alternative_kind": "ALTERNATIVE_",
        "alternative_flags": "ALTERNATIVE_",
        "ruleset_flags": "RULESET_",
        "direction": "DIR_",
    }
    start = names.get(prefix, f"{prefix.upper()}_")
    in_header = {name.removeprefix(start): number for number, name in abi.enum(prefix).items()}
    assert {member.name: member.value for member in kind} == in_header


def test_constants_of_the_table_layout_are_those_of_the_header() -> None:
    assert layout.ABI_VERSION == abi.ABI_VERSION
    assert layout.TRACKED_HEADERS == abi.number("YETT_TRACKED_HEADERS")
    assert layout.HEAD_MAX == abi.number("YETT_HEAD_MAX")
    assert layout.CHUNK_DIGITS == abi.number("YETT_CHUNK_DIGITS")
    assert len(layout.TIER_SIZE) == abi.number("YETT_RULESET_TIERS")
    assert layout.EVENT == abi.number("RULESET_EVENT")
    assert layout.ROW_OPERAND == abi.number("RULESET_ROW_OPERAND")
    assert layout.ROW_ACTION == abi.number("RULESET_ROW_ACTION")
    assert layout.ROW_NEXT == abi.number("RULESET_ROW_NEXT")
    assert layout.ACTION_MASK == abi.number("RULESET_ACTION")
    assert layout.REASON_SHIFT == abi.number("RULESET_REASON_SHIFT")
    assert identity.HOST == abi.number("IDENTITY_HOST")
    assert identity.WORLD == abi.number("IDENTITY_WORLD")


def test_the_table_writers_header_is_struct_ruleset() -> None:
    numbers = dict(zip(layout.HEAD_FIELDS, range(101, 101 + len(layout.HEAD_FIELDS)), strict=True))
    initially, on, off = 7, tuple(range(32)), tuple(range(100, 132))
    classes = bytes(range(256))
    written = (
        struct.pack(layout.HEAD_FORMAT, *numbers.values())
        + struct.pack("<Q", initially)
        + struct.pack("<32Q", *on)
        + struct.pack("<32Q", *off)
        + classes
    )
    assert len(written) == layout.HEAD_SIZE == abi.size("ruleset")
    assert abi.unpack("ruleset", written) == numbers | {
        "initially": initially,
        "on_header": on,
        "off_header": off,
        "class_of": classes,
    }


def test_sets_and_alternatives_are_written_as_the_header_has_them() -> None:
    assert abi.unpack("rule_set", struct.pack(layout.SET_FORMAT, 5, 6)) == {"first": 5, "count": 6}
    packed = struct.pack(layout.ALTERNATIVE_FORMAT, 1, 2, 3, 4, 5, 6)
    assert abi.unpack("alternative", packed) == {
        "rule": 1,
        "kind": 2,
        "flags": 3,
        "tolerates": 4,
        "needs": 5,
        "upgrade": 6,
    }


def test_a_number_that_does_not_fit_its_field_is_refused() -> None:
    with pytest.raises(OverflowError):
        abi.pack("policy_entry", verdict=256)
    with pytest.raises(OverflowError, match=r"endpoint\.addrs holds 128 bytes, not 129"):
        abi.pack("endpoint", addrs=bytes(129))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(KeyError):
        abi.pack("policy_entry", verdikt=1)


def test_a_struct_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="struct event has"):
        abi.unpack("event", bytes(10))


def test_names_of_maps_and_programs_fit_the_kernels_limit() -> None:
    maps = re.findall(
        r"^\} (\w+) SEC\(\"\.maps\"\)", (ROOT / "bpf_src/include/maps.bpf.h").read_text(), re.MULTILINE
    )
    assert {"config", "endpoints", "ipcache", "policies", "flows", "events", "metrics", "rule_hits"} <= set(
        maps
    )
    assert all(len(name) <= 15 for name in maps)
