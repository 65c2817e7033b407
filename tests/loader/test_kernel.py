"""libbpf's objects as Python objects, on the running kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yett_loader.errors import KernelError, NotReady, NotSupported, VerifierError
from yett_loader.kernel import NO_PREALLOC, Map, MapSpec, MapType, Object, RingBuffer, abi

pytestmark = pytest.mark.bpf

HASH = MapSpec(MapType.HASH, 4, 8, 1024, 0)


def test_a_map_takes_gives_and_forgets_elements() -> None:
    with Map.create("elements", HASH) as item:
        assert item.lookup(b"key1") is None
        item.update(b"key1", b"12345678")
        item.update(b"key1", b"87654321")
        assert item.lookup(b"key1") == b"87654321"
        assert item.delete(b"key1")
        assert not item.delete(b"key1")


def test_a_map_refuses_keys_and_values_of_another_size() -> None:
    with Map.create("sizes", HASH) as item:
        with pytest.raises(ValueError, match="a key of map sizes has 4 bytes, not 5"):
            item.lookup(b"12345")
        with pytest.raises(ValueError, match="a value of map sizes has 8 bytes, not 1"):
            item.update(b"1234", b"1")


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LPM_TRIE])
def test_many_elements_are_written_and_read_whole(kind: MapType) -> None:
    lpm = kind is MapType.LPM_TRIE
    spec = MapSpec(kind, 8, 4, 5000, NO_PREALLOC if lpm else 0)
    wanted = {
        (32).to_bytes(4, "little") + index.to_bytes(4, "big"): index.to_bytes(4, "big")
        for index in range(5000)
    }
    with Map.create("many", spec) as item:
        item.update_many(list(wanted.items()))
        assert dict(item.items()) == wanted


def test_a_full_map_is_an_error_with_its_name() -> None:
    with Map.create("small", MapSpec(MapType.HASH, 4, 8, 1, 0)) as item:
        item.update(b"key1", b"12345678")
        with pytest.raises(KernelError, match="cannot update a key in map small") as caught:
            item.update(b"key2", b"12345678")
        assert caught.value.errno == 7


def test_a_program_runs_on_a_packet_of_ours(tiny: Path) -> None:
    with Object.open(tiny) as opened:
        opened.load()
        program, config = opened.program("from_pod"), opened.maps["config"].open()
        events, metrics = opened.maps["events"].open(), opened.maps["metrics"].open()
    with program, config, events, metrics, RingBuffer(events) as ring:
        assert program.test_run(bytes(64)).retval == 2  # no ABI version: deny
        config.update(
            bytes(4), abi.pack("config", abi=abi.ABI_VERSION, flags=abi.number("CONFIG_RECORD_ALLOWED"))
        )
        result = program.test_run(bytes(range(64)), ifindex=1, mark=7, repeat=3)
        assert (result.retval, result.data, result.mark) == (0, bytes(range(64)), 7)
        records = [abi.unpack("event", record) for record in ring.consume()]
        assert [record["ifindex"] for record in records] == [1, 1, 1]
        assert ring.consume() == []
        index = abi.number("REASON_COUNT") + abi.number("REASON_ALLOWED")
        counted = [
            abi.unpack("metric", value)["packets"] for value in metrics.lookup_percpu(abi.pack_u32(index))
        ]
        assert sum(counted) == 3  # type: ignore[arg-type]


def test_a_retval_is_signed(tiny_newer: Path) -> None:
    with Object.open(tiny_newer) as opened:
        opened.load()
        program, config = opened.program("to_pod"), opened.maps["config"].open()
    with program, config:
        config.update(bytes(4), abi.pack("config", abi=abi.ABI_VERSION))
        assert program.test_run(bytes(64)).retval == -1


def test_a_missing_object_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"cannot read the BPF object .*none\.bpf\.o: No such file.*make bpf"):
        Object.open(tmp_path / "none.bpf.o")


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.bpf.o"
    path.write_text("hello")
    with pytest.raises(KernelError, match="cannot open BPF object"):
        Object.open(path)


def test_the_verifiers_last_word_is_the_message() -> None:
    log = (
        "libbpf: prog 'from_pod': BPF program load failed: Permission denied\n"
        "libbpf: prog 'from_pod': -- BEGIN PROG LOAD LOG --\n"
        "0: R1=ctx()\n"
        "R0 invalid mem access 'map_value_or_null'\n"
        "processed 12 insns (limit 1000000) max_states_per_insn 0\n"
        "-- END PROG LOAD LOG --\n"
        "libbpf: failed to load object 'yett'\n"
    )
    error = VerifierError("load", "BPF object yett", 13, log)
    assert "R0 invalid mem access 'map_value_or_null'" in str(error)
    assert error.log == log


def test_what_a_kernel_lacks_is_named_with_its_release() -> None:
    error = NotSupported("attach", "from_pod", 22, "tcx links", "6.6")
    assert str(error) == (
        f"cannot attach from_pod: this kernel ({os.uname().release}) has no tcx links; use kernel 6.6 or newer, "
        "or one whose vendor carries it"
    )


def test_a_closed_map_says_so() -> None:
    item = Map.create("closed", HASH)
    item.close()
    item.close()
    with pytest.raises(ValueError, match="closed is closed"):
        item.lookup(b"1234")
