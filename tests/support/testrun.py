"""The kernel engine under BPF_PROG_TEST_RUN: one connection, fed like the table interpreter.

No network, no server: the programs are run on hand-made packets of a connection from CLIENT to
SERVER, and what they decided is read from the flow, the packet and the events.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support import packet as pk
from support.enforce import BPFFS
from support.netns import Namespace
from yett_loader.assign import Assignment, assign
from yett_loader.encode import encode
from yett_loader.endpoint import LocalEndpoint
from yett_loader.enforce import Enforcer
from yett_loader.inner import OuterMap, outer
from yett_loader.kernel import Map, MapType, Object, ObjectMap, RingBuffer, abi
from yett_loader.pins import remove_tree
from yett_loader.plan import drops, plan, retired
from yett_policy.document import Document, Ruleset, Snapshot, Verdict
from yett_policy.reason import Reason
from yett_policy.service import Backends, Frontend

IMAGE = Path(__file__).resolve().parents[2] / "build" / "yett.bpf.o"
CLIENT, SERVER = "10.9.1.1", "10.9.2.2"
CLIENT6, SERVER6 = "fd00:9:1::1", "fd00:9:2::2"
CLIENT_ID, SERVER_ID = 301, 302
PASS, DROP = -1, 2
ETHER = bytes.fromhex("020000000001020000000002")
LOOPBACK = 1
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision about a request, as the events tell it."""

    verdict: Verdict
    reason: Reason
    rule: int


def frame(packet: bytes) -> bytes:
    """An Ethernet frame around an IP packet."""
    kind = pk.ETH_IPV6 if packet[0] >> 4 == 6 else pk.ETH_IPV4
    return ETHER + struct.pack("!H", kind) + packet


class Kernel:
    """The programs, loaded and not attached, with one pod behind the loopback interface."""

    def __init__(self) -> None:
        self.namespace = Namespace("testrun")
        self._object = Object.open(IMAGE)
        for name, size in {"flows": 4096, "history": 64, "events": 1 << 22}.items():
            self._object.maps[name].resize(size)
        self._object.load()
        self.programs = {name: self._object.program(name) for name in self._object.programs}
        self._inner = BPFFS / f"yett-test-{os.getpid()}-run-{next(_numbers)}"
        self.maps = {name: self._open(item) for name, item in self._object.maps.items() if not item.internal}
        self.enforcer = Enforcer(self.maps)
        self.enforcer.configure(
            abi=abi.ABI_VERSION,
            flags=1,
            deny_events_per_second=10**9,
            history_slots=64,
            head_timeout_ms=60_000,
        )
        self._events = RingBuffer(self.maps["events"])
        self._assignment = Assignment()
        self._port = 1024
        self.current = ""

    def apply(
        self,
        documents: Iterable[Document],
        rulesets: Iterable[Ruleset] = (),
        services: Mapping[Frontend, Backends] | None = None,
    ) -> None:
        """Put these documents in force; the pod has SERVER_ID."""
        snapshot = Snapshot(
            documents=tuple(documents),
            rulesets=tuple(rulesets),
            ipcache=((f"{CLIENT}/32", CLIENT_ID), (f"{CLIENT6}/128", CLIENT_ID)),
            services=tuple(sorted((services or {}).items())),
        )
        have = self.enforcer.read_state()
        self._assignment = assign(snapshot, self._assignment, have, self.enforcer.limits)
        pod = LocalEndpoint("test", "server", SERVER_ID, (SERVER, SERVER6), LOOPBACK)
        want = encode(snapshot, [pod], self._assignment)
        self.enforcer.tables = {
            self._assignment.rulesets[item.digest].handle: item.tables for item in snapshot.rulesets
        }
        self.enforcer.apply(plan(have, want, self.enforcer.limits.policies))
        self.enforcer.apply(drops(retired(have, want)))

    def name_of(self, rule: int) -> str:
        """Reference behind a rule number, `none` if there is none."""
        return self._assignment.names.get(rule, "none")

    def rule_base(self, ruleset: Ruleset) -> int:
        """Number of the ruleset's first rule on this node."""
        placed = self._assignment.rulesets[ruleset.digest]
        rulesets = outer(self.maps, f"rulesets{placed.handle >> 24}")
        assert rulesets is not None
        inner = rulesets.inner(placed.handle & 0xFFFFFF)
        assert inner is not None
        value = inner.lookup(bytes(4))
        assert value is not None
        return int(str(abi.unpack("ruleset", value)["rule_base"]))

    def _open(self, item: ObjectMap) -> Map:
        opened = item.open()
        if item.spec.type != MapType.ARRAY_OF_MAPS:
            return opened
        with opened:
            return OuterMap(os.dup(opened.fd), item.name, self._inner / item.name)

    def run(self, hook: str, packet: bytes, **context: Any) -> tuple[int, bytes]:
        """(TC action, the packet afterwards) of one program on an IP packet."""
        with self.namespace:
            result = self.programs[hook].test_run(frame(packet), **context)
        return result.retval, result.data

    def events(self) -> list[dict[str, Any]]:
        """Records since the last call."""
        return [dict(abi.unpack("event", record)) for record in self._events.consume()]

    def connect(self, *, isn: int = 0x1000) -> Connection:
        """An open connection to the pod's port 80."""
        self._port = 1024 + (self._port - 1023) % 60_000
        return Connection(self, self._port, isn)

    def room(self) -> None:
        """For many connections more, none of which is open now: flows are never taken from each other."""
        if self._port % 2048 == 0:
            self.forget()

    def flow(self, port: int) -> dict[str, Any] | None:
        """The flow entry of the client's port."""
        for key, value in self.maps["flows"].items():
            if abi.unpack("flow_key", key)["remote_port"] == int.from_bytes(
                port.to_bytes(2, "big"), "little"
            ):
                return dict(abi.unpack("flow", value))
        return None

    def forget(self) -> None:
        """Empty the flow table."""
        for key in list(self.maps["flows"].keys()):
            self.maps["flows"].delete(key)

    def close(self) -> None:
        """Let go of everything."""
        self._events.close()
        self._object.close()
        remove_tree(self._inner)
        self.namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """One TCP connection of the client's, opened on construction."""

    def __init__(self, kernel: Kernel, port: int, isn: int) -> None:
        self.kernel, self.port, self.isn = kernel, port, isn
        self.reply_seq = 0x77000000
        self.at = 0
        self.send(b"", flags=pk.Flag.SYN, at=-1)
        answer = pk.tcp(SERVER, CLIENT, 80, port, self.reply_seq, isn + 1, pk.Flag.SYN | pk.Flag.ACK)
        kernel.run("from_pod", pk.ip_packet(SERVER, CLIENT, answer))
        self.reply_seq += 1
        kernel.events()

    def send(
        self, payload: bytes, *, at: int | None = None, flags: pk.Flag = pk.Flag.ACK, **options: Any
    ) -> tuple[int, bytes]:
        """A segment of the request stream; `at` is its position, the next one if None."""
        position = self.at if at is None else at
        ack = 0 if flags == pk.Flag.SYN else self.reply_seq
        segment = pk.tcp(
            CLIENT,
            SERVER,
            self.port,
            80,
            (self.isn + 1 + position) & 0xFFFFFFFF,
            ack,
            flags,
            payload,
            **options,
        )
        result = self.kernel.run("to_pod", pk.ip_packet(CLIENT, SERVER, segment))
        if at is None:
            self.at += len(payload)
        return result

    def acknowledge(self, upto: int | None = None) -> None:
        """The server acknowledges everything (or `upto`)."""
        ack = (self.isn + 1 + (self.at if upto is None else upto)) & 0xFFFFFFFF
        segment = pk.tcp(SERVER, CLIENT, 80, self.port, self.reply_seq, ack, pk.Flag.ACK)
        self.kernel.run("from_pod", pk.ip_packet(SERVER, CLIENT, segment))

    def feed(self, pieces: Iterable[bytes], *, acknowledge: bool = True) -> list[Seen]:
        """Send the stream in these pieces; the decisions, in order, until one poisons the flow."""
        seen: list[Seen] = []
        for piece in pieces:
            self.send(piece)
            found = [
                Seen(Verdict(item["verdict"]), Reason(item["reason"]), item["rule"])
                for item in self.kernel.events()
                if item["type"] == abi.number("EVENT_REQUEST")
            ]
            seen += found
            if any(item.verdict is Verdict.DENY for item in found):
                break
            if acknowledge:
                self.acknowledge()
        return seen
