"""Load, adopt, upgrade, attach, unload, on a BPF file system and in namespaces of one's own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EINVAL
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, if_nametoindex, socket

import pytest

from support.netns import Topology, ip
from yett_loader import features
from yett_loader.datapath import Datapath, Sizes, digest, run
from yett_loader.errors import AbiMismatch, KernelError, NotReady
from yett_loader.kernel import Hook, Link, Map, Object, Program, abi, tc
from yett_loader.kernel.link import LinkInfo
from yett_loader.pins import Pins, locked, require_bpffs

pytestmark = [pytest.mark.bpf, pytest.mark.net, pytest.mark.usefixtures("as_in_the_container")]

ZERO = bytes(4)


@pytest.fixture
def pins(bpffs: Path) -> Pins:
    return Pins(bpffs / "yett")


@pytest.fixture
def link(pods: Topology) -> Iterator[int]:
    """The node's end of a fresh veth, in the node's namespace (where the test runs)."""
    with pods.node:
        ip("link add probe0 type veth peer name probe1\nlink set probe0 up\nlink set probe1 up")
        index = if_nametoindex("probe0")
        try:
            yield index
        finally:
            subprocess.run(["ip", "link", "del", "probe0"], check=False, capture_output=True, timeout=20)


class Failing:
    """Raises at one step, or from that step on; remembers the names of all."""

    def __init__(self, at: int | None = None, *, lasting: bool = False) -> None:
        self.at = at
        self.lasting = lasting
        self.steps: list[str] = []

    def __call__(self, step: str, action: Callable[[], object]) -> object:
        here = len(self.steps)
        self.steps.append(step)
        if self.at is not None and (here == self.at or (self.lasting and here > self.at)):
            raise Interrupted(step)
        return action()


class Interrupted(Exception):  # noqa: N818 - it is no error of ours
    pass


def test_loading_pins_every_map_and_program(pins: Pins, tiny: Path) -> None:
    with Object.open(tiny) as opened:
        shared = {name for name, item in opened.maps.items() if not item.internal}
    path = Datapath.load(pins, tiny, Sizes(flows=2048, events=1 << 17, policies=128, rulesets=32))
    assert path.maps.keys() == shared
    assert path.programs.keys() == {"from_pod", "to_pod"}
    assert path.maps["flows"].spec.max_entries == 2048
    assert path.maps["events"].spec.max_entries == 1 << 17
    assert path.maps["rulesets3"].spec.max_entries == 32
    assert abi.unpack("config", path.maps["config"].lookup(ZERO) or b"")["abi"] == abi.ABI_VERSION
    path.close()


def test_loading_twice_is_refused(pins: Pins, tiny: Path) -> None:
    Datapath.load(pins, tiny).close()
    with pytest.raises(NotReady, match="it is loaded already; use upgrade, or unload first"):
        Datapath.load(pins, tiny)


def test_a_load_that_fails_at_any_step_leaves_nothing(pins: Pins, tiny: Path) -> None:
    counting = Failing()
    Datapath.load(pins, tiny, effect=counting).unload()
    assert len(counting.steps) > 15
    for at in range(len(counting.steps)):
        with pytest.raises(Interrupted):
            Datapath.load(pins, tiny, effect=Failing(at))
        assert not pins.home.exists()
        assert not pins.new.home.exists()
    Datapath.start(pins, tiny).unload()


def test_adopting_finds_the_same_kernel_objects(pins: Pins, tiny: Path, link: int) -> None:
    first = Datapath.start(pins, tiny)
    first.attach(link)
    ids = {name: item.id for name, item in first.maps.items()}, first.programs["from_pod"].info().id
    first.close()
    second = Datapath.start(pins, tiny)
    assert ids == (
        {name: item.id for name, item in second.maps.items()},
        second.programs["from_pod"].info().id,
    )
    assert second.attached() == [link]
    second.unload()


def test_attaching_twice_changes_nothing(pins: Pins, tiny: Path, link: int) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    links = link_ids(pins)
    path.attach(link)
    assert link_ids(pins) == links
    assert len(links) == 2
    path.unload()


def link_ids(pins: Pins) -> dict[str, int]:
    found = {}
    for pin in sorted(pins.links.iterdir()):
        with Link.open(pin) as opened:
            found[pin.name] = opened.info().id
    return found


def test_the_pin_of_an_interface_that_went_away_is_forgotten(pins: Pins, tiny: Path, link: int) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    subprocess.run(["ip", "link", "del", "probe0"], check=True, timeout=20)
    assert path.attached() == []
    assert list(pins.links.iterdir()) == []
    path.unload()


def test_an_interface_that_took_over_a_number_is_attached_anew(pins: Pins, tiny: Path, link: int) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    before = link_ids(pins)
    subprocess.run(["ip", "link", "del", "probe0"], check=True, timeout=20)
    ip(f"link add probe0 index {link} type veth peer name probe1")
    path.attach(link)
    assert path.attached() == [link]
    assert before.keys() == link_ids(pins).keys()
    assert not set(before.values()) & set(link_ids(pins).values())
    path.unload()


def test_who_looks_at_a_dead_pin_does_not_remove_the_one_that_takes_its_place(
    pins: Pins, tiny: Path, link: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    subprocess.run(["ip", "link", "del", "probe0"], check=True, timeout=20)
    ip(f"link add probe0 index {link} type veth peer name probe1")
    info, looking, attached = Link.info, threading.Event(), threading.Event()

    def slow(of: Link) -> LinkInfo:
        found = info(of)
        if threading.current_thread() is report and not looking.is_set():
            looking.set()
            attached.wait(0.5)
        return found

    monkeypatch.setattr(Link, "info", slow)
    report = threading.Thread(target=path.attached)
    report.start()
    assert looking.wait(20)
    path.attach(link)
    attached.set()
    report.join()
    assert len(link_ids(pins)) == 2
    path.unload()


def test_unloading_detaches_and_removes_all_pins(pins: Pins, tiny: Path, link: int) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    with Link.open(pins.link(link, "ingress")) as opened:
        path.unload()
        assert opened.info().ifindex == 0
    assert list(pins.root.iterdir()) == []


def test_pins_on_another_file_system_are_refused(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(NotReady, match=r"is not on a BPF file system; mount one .*--pin-dir"):
        Datapath.start(Pins(tmp_path / "yett"), tiny)
    with pytest.raises(NotReady, match="is not on a BPF file system"):
        require_bpffs(tmp_path / "not" / "there")


def test_the_lock_keeps_a_second_loader_out(bpffs: Path) -> None:
    with (
        locked(bpffs / "yett"),
        pytest.raises(NotReady, match="another yett-loader holds its lock"),
        locked(bpffs / "yett"),
    ):
        pass
    with locked(bpffs / "yett"):
        pass


# -- upgrade ------------------------------------------------------------------------------


def test_an_upgrade_keeps_the_maps_and_swaps_every_program(
    pins: Pins, tiny: Path, tiny_newer: Path, link: int
) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    ids = {name: item.id for name, item in path.maps.items()}
    tag = path.programs["from_pod"].info().tag
    links = link_ids(pins)
    path.close()
    newer = Datapath.start(pins, tiny_newer)
    assert {name: item.id for name, item in newer.maps.items()} == ids
    assert newer.programs["from_pod"].info().tag != tag
    assert link_ids(pins) == links
    assert running(pins, link) == {newer.programs[name].info().id for name in ("from_pod", "to_pod")}
    assert pins.mark("object") == digest(tiny_newer)
    newer.unload()


def running(pins: Pins, ifindex: int) -> set[int]:
    ids = set()
    for hook in ("ingress", "egress"):
        with Link.open(pins.link(ifindex, hook)) as opened:
            ids.add(opened.info().program_id)
    return ids


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "as if killed"])
def test_an_upgrade_that_fails_at_any_step_can_be_done_again(
    pins: Pins, tiny: Path, tiny_newer: Path, link: int, lasting: bool
) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    counting = Failing()
    path.effect = counting
    path.upgrade(tiny_newer)
    steps = counting.steps
    assert [step for step in steps if step.startswith("swap")] == ["swap from_pod", "swap to_pod"]
    for at, name in enumerate(steps):
        path.effect = run
        path.upgrade(tiny)
        old = running(pins, link)
        path.effect = Failing(at, lasting=lasting)
        with pytest.raises(Interrupted):
            path.upgrade(tiny_newer)
        assert path.attached() == [link]  # governed all along, by one version or the other
        if not lasting and name.startswith(("create", "stage", "swap")):
            assert running(pins, link) == old
            assert not (pins.home / "programs-new").exists()
        path.close()
        path = Datapath.start(pins, tiny_newer)
        assert running(pins, link) == {program.info().id for program in path.programs.values()}
        assert not running(pins, link) & old
        assert not (pins.home / "programs-new").exists()
        assert pins.mark("object") == digest(tiny_newer)
    path.unload()


def test_a_swap_that_fails_puts_the_swapped_hooks_back(
    pins: Pins, tiny: Path, tiny_newer: Path, link: int
) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    old = running(pins, link)
    failures = iter([True])

    def second_swap_fails(step: str, action: Callable[[], object]) -> object:
        if step == "swap to_pod" and next(failures, False):
            raise Interrupted(step)
        return action()

    path.effect = second_swap_fails
    with pytest.raises(Interrupted):
        path.upgrade(tiny_newer)
    assert running(pins, link) == old
    path.unload()


def test_a_map_whose_definition_changed_is_refused(pins: Pins, tiny: Path, tiny_other_flows: Path) -> None:
    path = Datapath.start(pins, tiny)
    path.close()
    with pytest.raises(AbiMismatch, match=r"its map flows has .* build both from one yett_abi\.h"):
        Datapath.start(pins, tiny_other_flows)
    Datapath.adopt(pins).unload()


def test_a_map_whose_size_is_no_setting_must_not_change(
    pins: Pins, tiny: Path, tiny_fewer_metrics: Path
) -> None:
    path = Datapath.start(pins, tiny)
    with pytest.raises(
        AbiMismatch, match=r"cannot upgrade map metrics: its definition changed \(max_entries"
    ):
        path.upgrade(tiny_fewer_metrics)
    path.unload()


def test_pins_of_another_layout_are_refused(pins: Pins, tiny: Path) -> None:
    Datapath.start(pins, tiny).close()
    pins.set_mark("layout", "0123456789abcdef")
    with pytest.raises(AbiMismatch, match="their layout is 0123456789abcdef, this loader's is"):
        Datapath.start(pins, tiny)
    assert Datapath.remove(pins) == 0


def test_pins_of_another_abi_version_are_refused(pins: Pins, tiny: Path) -> None:
    path = Datapath.start(pins, tiny)
    path.maps["config"].update(ZERO, abi.pack("config", abi=99))
    path.close()
    with pytest.raises(AbiMismatch, match="its ABI version is 99"):
        Datapath.start(pins, tiny)
    Datapath.remove(pins)


class Flood(threading.Thread):
    """Datagrams from the client to the server until stopped; counts both ends."""

    def __init__(self, pods: Topology) -> None:
        super().__init__()
        self.count = 0
        self.received = 0
        self._target = (pods.server.v4, 9999)
        self._over = threading.Event()
        with pods.server.namespace:
            self._receiver = socket(AF_INET, SOCK_DGRAM)
            self._receiver.bind(self._target)
            self._receiver.setblocking(False)
        with pods.client.namespace:
            self._sender = socket(AF_INET, SOCK_DGRAM)

    def run(self) -> None:
        with self._sender, self._receiver:
            while not self._over.is_set():
                self._sender.sendto(b"x", self._target)
                self.count += 1
                with suppress(BlockingIOError):
                    while self._receiver.recv(100):
                        self.received += 1

    def wait_for(self, count: int) -> None:
        """Until so many more were sent."""
        goal = self.count + count
        while self.count < goal:
            time.sleep(0.001)

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_pins_of_another_layout_are_replaced_without_a_moment_of_openness(
    pins: Pins, tiny: Path, tiny_newer: Path, link: int
) -> None:
    path = Datapath.start(pins, tiny)
    path.attach(link)
    path.close()
    counting = Failing()
    old_maps = path_ids(pins)
    filled: list[bool] = []
    for at in [*range(40), None]:
        pins.set_mark("layout", "0123456789abcdef")
        before = running(pins, link)
        failing = Failing(at) if at is not None else counting
        try:
            path = Datapath.replace(pins, tiny_newer, lambda _: filled.append(True), effect=failing)
        except Interrupted as step:
            assert sorted(p.name for p in pins.links.iterdir()) == [f"{link}-egress", f"{link}-ingress"]
            assert 0 not in running(pins, link)
            if str(step) in ("fill", "mark") or str(step).startswith(("create", "pin")):
                assert running(pins, link) == before
            if not pins.home.exists():
                Datapath.start(pins, tiny_newer).close()
                assert running(pins, link) != before
        else:
            path.close()
            break
    assert path_ids(pins) != old_maps
    again = Datapath.start(pins, tiny_newer)
    assert running(pins, link) == {program.info().id for program in again.programs.values()}
    assert not pins.new.home.exists()
    assert not pins.old.home.exists()
    assert {"fill", "swap from_pod", "swap to_pod", "set aside", "rename"} <= set(failing.steps) | set(
        counting.steps
    )
    assert filled
    again.unload()


def path_ids(pins: Pins) -> set[int]:
    ids = set()
    for pin in pins.maps.iterdir():
        with Map.open(pin) as opened:
            ids.add(opened.id)
    return ids


def test_no_packet_slips_through_while_programs_are_swapped(
    pods: Topology, pins: Pins, tiny: Path, tiny_newer: Path
) -> None:
    """Every packet of a flood is dropped by whichever version is attached."""
    with pods.node:
        path = Datapath.start(pins, tiny)
        flood = Flood(pods)
        flood.start()
        try:
            deadline = time.monotonic() + 10
            while not flood.received and time.monotonic() < deadline:
                time.sleep(0.01)
            assert flood.received  # it does arrive where nothing drops it
            path.maps["config"].update(ZERO, abi.pack("config", abi=abi.ABI_VERSION, flags=1 << 31))
            path.attach(pods.server.ifindex)
            flood.wait_for(100)
            before = flood.received
            for version in (tiny_newer, tiny) * 10:
                path.upgrade(version)
                flood.wait_for(100)
        finally:
            flood.stop()
            path.unload()
    assert flood.received == before


# -- kernels without tcx ------------------------------------------------------------------


def test_a_clsact_filter_is_attached_replaced_and_removed(tiny: Path, tiny_newer: Path, link: int) -> None:
    with Object.open(tiny) as opened, Object.open(tiny_newer) as later:
        opened.load()
        later.load()
        with opened.program("from_pod") as first, later.program("from_pod") as second:
            for hook in Hook:
                assert tc.attached(link, hook) == 0
                tc.attach(first, link, hook)
                assert tc.attached(link, hook) == first.info().id
                tc.attach(second, link, hook)
                assert tc.attached(link, hook) == second.info().id
                assert tc.detach(link, hook)
                assert not tc.detach(link, hook)


def test_without_tcx_the_datapath_uses_clsact_throughout(
    pins: Pins, tiny: Path, tiny_newer: Path, link: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(program: Program, ifindex: int, hook: Hook) -> Link:
        raise KernelError("attach", program.name, EINVAL)

    monkeypatch.setattr(Link, "create", refused)
    monkeypatch.setattr(features, "has", lambda feature: feature is not features.TCX)
    path = Datapath.start(pins, tiny)
    path.attach(link)
    path.attach(link)
    assert path.attached() == [link]
    assert filters(link) == [path.programs["from_pod"].info().id, path.programs["to_pod"].info().id]
    path.close()
    newer = Datapath.start(pins, tiny_newer)
    assert newer.attached() == [link]
    assert filters(link) == [newer.programs["from_pod"].info().id, newer.programs["to_pod"].info().id]
    newer.unload()
    assert filters(link) == [0, 0]


def filters(ifindex: int) -> list[int]:
    return [tc.attached(ifindex, Hook.INGRESS), tc.attached(ifindex, Hook.EGRESS)]


def test_an_attachment_that_fails_for_another_reason_is_not_retried_another_way(
    pins: Pins, tiny: Path, link: int
) -> None:
    path = Datapath.start(pins, tiny)
    with pytest.raises(KernelError, match="cannot attach from_pod to interface 2147483647: No such device"):
        path.attach(2**31 - 1)
    assert path.attached() == []
    assert filters(link) == [0, 0]
    path.unload()


def test_run_does_what_it_is_given() -> None:
    assert run("step", lambda: 5) == 5
