"""Egress through a Service's address, translated behind the hook by rules like kube-proxy's.

The client's egress is governed by identity, as policies of a cluster are; the node translates in
PREROUTING and OUTPUT with real conntrack, by iptables and by nft.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from corpus.rules import RULESETS
from support.enforce import CLIENT, HOST, SERVER, Gate, compiled
from support.enforce import gate as make_gate
from support.netns import Topology
from support.origin import Recorder, eventually
from yett_policy.document import ANY_PEER, Direction, Document, Entry, Ruleset, Snapshot, Verdict
from yett_policy.reason import Reason
from yett_policy.service import Backends, Frontend

pytestmark = [pytest.mark.net, pytest.mark.bpf]

SERVICE = {4: "10.96.0.10", 6: "fd00:96::a"}
FRONT, BACK, TCP, UDP = 80, 8080, 6, 17
PUBLIC = RULESETS["public"]
GET = b"GET %s HTTP/1.1\r\nHost: api\r\n\r\n"
KINDS = ("iptables", "nft")


@pytest.fixture(scope="module")
def direction() -> str:
    """The client's egress is what matters here."""
    return "egress"


def iptables(topo: Topology, family: int, proto: str) -> None:
    """As kube-proxy's iptables mode: PREROUTING and OUTPUT to a chain of services, its own marks."""
    program = "iptables" if family == 4 else "ip6tables"
    server = topo.server.address(family)
    to = f"{server}:{BACK}" if family == 4 else f"[{server}]:{BACK}"
    rules = [
        "-N KUBE-SERVICES",
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        f"-A KUBE-SERVICES -d {SERVICE[family]} -p {proto} --dport {FRONT} -j DNAT --to-destination {to}",
    ]
    for rule in rules:
        done = topo.node.run([program, "-w", "-t", "nat", *rule.split()])
        if done.returncode and not rule.startswith("-N"):
            raise AssertionError(done.stderr.decode())


def nft(topo: Topology, family: int, proto: str) -> None:
    """As kube-proxy's nftables mode: a verdict map of services, in prerouting and output."""
    name, server = ("ip" if family == 4 else "ip6"), topo.server.address(family)
    to = f"{server}:{BACK}" if family == 4 else f"[{server}]:{BACK}"
    script = f"""
table {name} kube-proxy-{proto} {{
  chain endpoint {{ meta l4proto {proto} dnat to {to}; }}
  chain services {{
    {name} daddr . meta l4proto . th dport vmap {{ {SERVICE[family]} . {proto} . {FRONT} : goto endpoint }}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
}}"""
    with topo.node:
        subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True, timeout=20)


@pytest.fixture(scope="module", params=KINDS)
def translated(request: pytest.FixtureRequest, topo: Topology) -> Iterator[Topology]:
    """The node translates the service to the server's pod, IPv4 and IPv6, TCP and UDP."""
    make = {"iptables": iptables, "nft": nft}[request.param]
    for family in (4, 6):
        for proto in ("tcp", "udp"):
            make(topo, family, proto)
    yield topo
    with topo.node:
        subprocess.run(["nft", "flush", "ruleset"], check=True, timeout=20)


@pytest.fixture(scope="module")
def server(topo: Topology) -> Iterator[Recorder]:
    """Behind the service, on its target port; nothing listens on the port in front."""
    made = Recorder(topo.server.namespace, BACK)
    yield made
    made.close()


@pytest.fixture(scope="module")
def governed(topo: Topology) -> Iterator[Gate]:
    with make_gate(topo, Direction.EGRESS) as made:
        yield made


Said = Mapping[tuple[int, int], Ruleset | None]
"""(peer, port) that the client may connect to -> HTTP rules."""


def snapshot(gate: Gate, said: Said, services: Mapping[Frontend, Backends]) -> Snapshot:
    """The client may go only where `said` says."""
    rules = ("none", "L7Policy/test/client:default-deny", "L7Policy/test/client:egress[0]")
    client = [
        Entry(Direction.INGRESS, ANY_PEER, 0, 0, 0, Verdict.ALLOW, Reason.NOT_ENFORCED, 0),
        Entry(Direction.EGRESS, ANY_PEER, 0, 0, 0, Verdict.DENY, Reason.POLICY_DENIED, 1),
        *(
            Entry(
                *(Direction.EGRESS, peer, proto, port, 16, Verdict.ALLOW, Reason.ALLOWED, 2),
                rules_of.digest if rules_of and proto == TCP else "",
            )
            for (peer, port), rules_of in said.items()
            for proto in (TCP, UDP)
        ),
    ]
    plain = [
        Entry(direction, ANY_PEER, 0, 0, 0, Verdict.ALLOW, Reason.NOT_ENFORCED, 0) for direction in Direction
    ]
    addresses = [
        (f"{address}/{128 if ':' in address else 32}", identity)
        for side, identity in zip(gate.topology.sides, (CLIENT, SERVER), strict=True)
        for address in side.addresses
    ]
    return Snapshot(
        documents=(Document.of(CLIENT, client, rules), Document.of(SERVER, plain, rules[:1])),
        rulesets=tuple({item.digest: item for item in said.values() if item}.values()),
        ipcache=tuple(sorted([*addresses, (f"{gate.topology.client.gateway4}/32", HOST)])),
        services=tuple(sorted(services.items())),
    )


def behind(*backends: tuple[int, int], family: int = 4, proto: int = TCP) -> dict[Frontend, Backends]:
    return {Frontend(SERVICE[family], proto, FRONT): backends}


@contextlib.contextmanager
def connected(topo: Topology, family: int) -> Iterator[socket.socket]:
    with topo.client.namespace:
        client = socket.create_connection((SERVICE[family], FRONT), timeout=3)
    with client:
        client.settimeout(3)
        yield client


def ask(client: socket.socket, target: bytes) -> bytes:
    """The status of the answer; empty: the connection was reset."""
    client.sendall(GET % target)
    try:
        return client.recv(65536).partition(b"\r\n")[0]
    except ConnectionResetError:
        return b""


def refused(topo: Topology, family: int) -> bool:
    """Whether the service cannot be reached; a drop looks like silence."""
    with topo.client.namespace, socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as client:
        client.settimeout(0.5)
        return client.connect_ex((SERVICE[family], FRONT)) != 0


def test_a_rule_that_names_the_pods_reaches_them_through_their_service(
    governed: Gate, translated: Topology, server: Recorder, family: int
) -> None:
    governed.apply_snapshot(snapshot(governed, {(SERVER, BACK): None}, behind((SERVER, BACK), family=family)))
    with connected(translated, family) as client:
        assert ask(client, b"/any") == b"HTTP/1.1 200 OK"
        assert ask(client, b"/thing") == b"HTTP/1.1 200 OK"
        assert server.saw(*client.getsockname()[:2])


def test_without_knowing_the_service_the_rule_does_not_see_them(
    governed: Gate, translated: Topology, server: Recorder, family: int
) -> None:
    governed.apply_snapshot(snapshot(governed, {(SERVER, BACK): None}, {}))
    before = server.total()
    assert refused(translated, family)
    assert server.total() == before


def test_http_rules_hold_through_the_service_byte_for_byte(
    governed: Gate, translated: Topology, server: Recorder, family: int
) -> None:
    rules = compiled(PUBLIC)
    governed.apply_snapshot(
        snapshot(governed, {(SERVER, BACK): rules}, behind((SERVER, BACK), family=family))
    )
    with connected(translated, family) as client:
        assert ask(client, b"/public") == b"HTTP/1.1 200 OK"
        conversation = server.conversation(*client.getsockname()[:2])
        assert ask(client, b"/private") == b""
    assert eventually(lambda: conversation.end is not None)
    assert bytes(conversation.data) == GET % b"/public"


def test_one_backend_that_is_not_allowed_closes_the_service(
    governed: Gate, translated: Topology, server: Recorder, family: int
) -> None:
    row = behind((SERVER, BACK), (777, BACK), family=family)
    governed.apply_snapshot(snapshot(governed, {(SERVER, BACK): None}, row))
    before = server.total()
    assert refused(translated, family)
    assert governed.denials()[Reason.POLICY_DENIED]
    assert server.total() == before
    governed.apply_snapshot(snapshot(governed, {(SERVER, BACK): None, (777, BACK): None}, row))
    with connected(translated, family) as client:
        assert ask(client, b"/both") == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("reason", [Reason.SERVICE_WITHOUT_BACKENDS, Reason.SERVICE_MIXED])
def test_what_cannot_be_judged_is_denied_with_a_reason_of_its_own(
    governed: Gate, translated: Topology, server: Recorder, family: int, reason: Reason
) -> None:
    said: dict[tuple[int, int], Ruleset | None] = {
        (SERVER, BACK): compiled(PUBLIC),
        (777, BACK): compiled(RULESETS["any"]),
    }
    backends = [] if reason is Reason.SERVICE_WITHOUT_BACKENDS else [(SERVER, BACK), (777, BACK)]
    governed.apply_snapshot(snapshot(governed, said, behind(*backends, family=family)))
    before = governed.denials()[reason]
    assert refused(translated, family)
    assert governed.denials()[reason] > before


def test_an_open_connection_outlives_its_services_backends_and_obeys_new_rules(
    governed: Gate, translated: Topology, server: Recorder, family: int
) -> None:
    said: dict[tuple[int, int], Ruleset | None] = {(SERVER, BACK): None}
    governed.apply_snapshot(snapshot(governed, said, behind((SERVER, BACK), family=family)))
    with connected(translated, family) as client:
        assert ask(client, b"/1") == b"HTTP/1.1 200 OK"
        for row in (behind((SERVER, BACK), (777, BACK), family=family), behind(family=family), {}):
            governed.apply_snapshot(snapshot(governed, said, row))
            assert ask(client, b"/2") == b"HTTP/1.1 200 OK", row
        governed.apply_snapshot(snapshot(governed, {}, behind((SERVER, BACK), family=family)))
        assert ask(client, b"/3") == b""


def test_datagrams_go_through_a_service_and_their_answers_come_back(
    governed: Gate, translated: Topology, family: int
) -> None:
    row = behind((SERVER, BACK), family=family, proto=UDP)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with translated.server.namespace:
        echo = socket.socket(kind, socket.SOCK_DGRAM)
        echo.bind((translated.server.address(family), BACK))
    with translated.client.namespace:
        client = socket.socket(kind, socket.SOCK_DGRAM)
    with echo, client:
        echo.settimeout(2)
        client.settimeout(2)
        governed.apply_snapshot(snapshot(governed, {(SERVER, BACK): None}, row))
        client.sendto(b"query", (SERVICE[family], FRONT))
        data, peer = echo.recvfrom(100)
        assert (data, peer[0]) == (b"query", translated.client.address(family))
        echo.sendto(b"answer", peer)
        data, peer = client.recvfrom(100)
        assert (data, peer[:2]) == (b"answer", (SERVICE[family], FRONT))
        governed.apply_snapshot(snapshot(governed, {}, row))
        client.sendto(b"again", (SERVICE[family], FRONT))
        echo.settimeout(0.3)
        with pytest.raises(TimeoutError):
            echo.recvfrom(100)
