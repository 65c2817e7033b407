"""Egress through a Service's address: the kernel against `decide_service`, over tables of backends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import packet as pk
from support.enforce import compiled
from support.examples import examples
from support.testrun import DROP, PASS, SERVER, SERVER6, SERVER_ID, Kernel
from yett_policy.document import ANY_PEER, Direction, Document, Entry, Ruleset, Verdict
from yett_policy.evaluate import decide_service
from yett_policy.http.rule import HttpRule, RulesetSpec
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX, Backends, Frontend

pytestmark = pytest.mark.bpf

SERVICE, SERVICE6, PORT = "10.96.0.10", "fd00:96::a", 80
A, B, C = 401, 402, 403
TCP, UDP = 6, 17
FIRST = compiled(RulesetSpec((HttpRule("first", path="/a"),), "first:default-deny"))
OTHER = compiled(RulesetSpec((HttpRule("other", path="/b"),), "other:default-deny"))
WORDS: dict[str, tuple[Verdict, Reason, str]] = {
    "denied": (Verdict.DENY, Reason.DENY_RULE, ""),
    "allowed": (Verdict.ALLOW, Reason.ALLOWED, ""),
    "audited": (Verdict.AUDIT, Reason.POLICY_DENIED, ""),
    "first": (Verdict.ALLOW, Reason.ALLOWED, FIRST.digest),
    "other": (Verdict.ALLOW, Reason.ALLOWED, OTHER.digest),
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as made:
        yield made


def document(said: dict[tuple[int, int], str], default: str = "denied") -> Document:
    """Egress of the pod: what is said of (identity, port), and of anyone else."""

    def entry(direction: Direction, peer: int, word: str, port: int = 0, rule: int = 0) -> Entry:
        verdict, reason, ruleset = WORDS[word]
        bits = 16 if port else 0
        return Entry(direction, peer, TCP if port else 0, port, bits, verdict, reason, rule, ruleset)

    words = sorted(said.items())
    entries = [
        entry(Direction.INGRESS, ANY_PEER, "allowed"),
        entry(Direction.EGRESS, ANY_PEER, default, rule=len(words)),
        *(entry(Direction.EGRESS, peer, word, port, rule) for rule, ((peer, port), word) in enumerate(words)),
    ]
    return Document.of(SERVER_ID, entries, (*(f"rule-{i}" for i in range(len(words))), "default"))


_ports = itertools.count(20_000)


def connect(
    kernel: Kernel, *, version: int = 4, proto: int = TCP, to: int = PORT
) -> tuple[int, Verdict, Reason, str, int]:
    """The pod sends its first packet to the service: action, verdict, reason, rule, peer."""
    pod, service = (SERVER, SERVICE) if version == 4 else (SERVER6, SERVICE6)
    port = next(_ports)
    if proto == TCP:
        segment = pk.tcp(pod, service, port, to, 1, 0, pk.Flag.SYN)
    else:
        segment = pk.udp(pod, service, port, to, b"query")
    kernel.events()
    action, _ = kernel.run("from_pod", pk.ip_packet(pod, service, segment, proto=proto))
    (event,) = kernel.events()
    rule = kernel.name_of(event["rule"])
    return action, Verdict(event["verdict"]), Reason(event["reason"]), rule, event["peer"]


def compare(
    kernel: Kernel, made: Document, rulesets: list[Ruleset], backends: Backends, version: int = 4
) -> None:
    address = SERVICE if version == 4 else SERVICE6
    kernel.apply([made], rulesets, {Frontend(address, TCP, PORT): backends})
    want = decide_service(made, {item.digest: item for item in rulesets}, backends, TCP)
    action, verdict, reason, rule, _ = connect(kernel, version=version)
    assert (verdict, reason, rule) == (want.verdict, want.reason, want.rule)
    assert action == (PASS if want.passes else DROP)
    kernel.forget()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("words", [*itertools.product(WORDS, repeat=2)], ids="-".join)
def test_what_is_said_of_two_backends_holds_for_the_address_in_front(
    kernel: Kernel, words: tuple[str, str], version: int
) -> None:
    backends = ((A, 8080), (B, 8080))
    said = dict(zip(backends, words, strict=True))
    compare(kernel, document(said), [FIRST, OTHER], backends, version)


@pytest.mark.parametrize(
    "words", [*itertools.product(["allowed", "first", "other", "denied"], repeat=3)], ids="-".join
)
def test_three_backends_of_one_identity_on_several_ports_are_three(
    kernel: Kernel, words: tuple[str, str, str]
) -> None:
    backends = ((A, 80), (A, 81), (B, 80))
    compare(kernel, document(dict(zip(backends, words, strict=True))), [FIRST, OTHER], backends)


@settings(max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.dictionaries(
        st.tuples(st.integers(A, A + 30), st.sampled_from([80, 81])),
        st.sampled_from(["allowed", "allowed", "allowed", "first", "audited", "denied", "other"]),
        max_size=20,
    ),
    strangers=st.integers(0, 2),
    default=st.sampled_from(["denied", "allowed"]),
)
def test_any_number_of_backends_is_judged_as_the_reference_says(
    kernel: Kernel, said: dict[tuple[int, int], str], strangers: int, default: str
) -> None:
    pairs = sorted({*said, *((500 + i, 80) for i in range(strangers))})
    compare(kernel, document(said, default), [FIRST, OTHER], tuple(pairs[: BACKENDS_MAX + 1]))


def test_the_port_in_front_is_not_the_port_that_policy_speaks_of(kernel: Kernel) -> None:
    row = {Frontend(SERVICE, TCP, PORT): ((A, 8080),)}
    kernel.apply([document({(A, 8080): "allowed"})], (), row)
    assert connect(kernel)[:2] == (PASS, Verdict.ALLOW)
    kernel.apply([document({(A, PORT): "allowed"})], (), row)
    assert connect(kernel)[:2] == (DROP, Verdict.DENY)


def test_only_the_very_address_protocol_and_port_are_the_service(kernel: Kernel) -> None:
    row = {Frontend(SERVICE, TCP, PORT): ((A, 8080),)}
    kernel.apply([document({(A, 8080): "allowed"})], (), row)
    assert connect(kernel)[4] == A
    for other in ({"to": 81}, {"proto": UDP}, {"version": 6}):
        action, _, reason, rule, peer = connect(kernel, **other)  # type: ignore[arg-type]
        assert (action, reason, rule, peer) == (DROP, Reason.DENY_RULE, "default", 2), other


def test_a_service_of_udp_is_one_too(kernel: Kernel) -> None:
    kernel.apply([document({}, "allowed")], (), {Frontend(SERVICE, UDP, 53): ()})
    assert connect(kernel, proto=UDP, to=53)[:3] == (DROP, Verdict.DENY, Reason.SERVICE_WITHOUT_BACKENDS)
    kernel.apply([document({}, "allowed")], (), {Frontend(SERVICE, UDP, 53): ((A, 5353),)})
    assert connect(kernel, proto=UDP, to=53)[:2] == (PASS, Verdict.ALLOW)


def test_who_is_not_governed_is_not_asked_about_services(kernel: Kernel) -> None:
    free = Document.of(
        SERVER_ID,
        (
            Entry(direction, ANY_PEER, 0, 0, 0, Verdict.ALLOW, Reason.NOT_ENFORCED, 0)
            for direction in Direction
        ),
        ("none",),
    )
    kernel.apply([free], (), {Frontend(SERVICE, TCP, PORT): ()})
    assert connect(kernel)[:3] == (PASS, Verdict.ALLOW, Reason.NOT_ENFORCED)


def reopened(kernel: Kernel, made: Document, after: Backends | None, *, proto: int = TCP) -> Verdict:
    """What an open connection to a service with the one backend (A, 8080) meets when that changes."""
    frontend = Frontend(SERVICE, proto, PORT)
    kernel.apply([made], (), {frontend: ((A, 8080),)})
    port = next(_ports)

    def send(flags: pk.Flag) -> None:
        segment = pk.tcp(SERVER, SERVICE, port, PORT, 2, 7, flags)
        if proto == UDP:
            segment = pk.udp(SERVER, SERVICE, port, PORT, b"query")
        kernel.run("from_pod", pk.ip_packet(SERVER, SERVICE, segment, proto=proto))

    send(pk.Flag.SYN)
    send(pk.Flag.ACK)
    kernel.events()
    kernel.apply([made], (), {} if after is None else {frontend: after})
    send(pk.Flag.ACK)
    seen = [Verdict(event["verdict"]) for event in kernel.events()]
    kernel.forget()
    return seen[-1] if seen else Verdict.ALLOW


@pytest.mark.parametrize("after", [((A, 8080), (B, 8080)), (), None])
def test_an_open_connection_stays_with_its_backend_whoever_comes_or_goes(
    kernel: Kernel, after: Backends | None
) -> None:
    assert reopened(kernel, document({(A, 8080): "allowed"}), after) is Verdict.ALLOW


@pytest.mark.parametrize("after", [((B, 8080),), ((A, 8081),)])
def test_an_open_connection_ends_when_nobody_like_its_backend_is_there_any_more(
    kernel: Kernel, after: Backends
) -> None:
    assert reopened(kernel, document({(A, 8080): "allowed"}), after) is Verdict.DENY
    assert reopened(kernel, document({(A, 8080): "allowed", after[0]: "allowed"}), after) is Verdict.ALLOW


def test_packets_of_udp_go_to_whoever_is_there_now(kernel: Kernel) -> None:
    made = document({}, "allowed")
    assert reopened(kernel, made, (), proto=UDP) is Verdict.DENY
    assert reopened(kernel, made, ((B, 1),), proto=UDP) is Verdict.ALLOW


def test_an_open_connection_ends_when_its_backend_is_not_allowed_any_more(kernel: Kernel) -> None:
    row = {Frontend(SERVICE, TCP, PORT): ((A, 8080),)}
    for services in (row, {Frontend(SERVICE, TCP, PORT): ()}, {}):
        kernel.apply([document({(A, 8080): "allowed"})], (), row)
        port = next(_ports)
        for flags in (pk.Flag.SYN, pk.Flag.ACK):
            segment = pk.tcp(SERVER, SERVICE, port, PORT, 2, 7, flags)
            assert kernel.run("from_pod", pk.ip_packet(SERVER, SERVICE, segment))[0] == PASS
        kernel.events()
        kernel.apply([document({(A, 8080): "denied"}, "allowed")], (), services)
        kernel.run("from_pod", pk.ip_packet(SERVER, SERVICE, segment))
        assert [Verdict(event["verdict"]) for event in kernel.events()] == [Verdict.DENY]
        kernel.forget()


def test_an_answer_from_a_service_to_a_connection_that_is_not_known_is_judged_as_egress_too(
    kernel: Kernel,
) -> None:
    row = {Frontend(SERVICE, TCP, PORT): ((A, 8080),)}
    for word, passes in (("allowed", True), ("denied", False)):
        kernel.apply([document({(A, 8080): word})], (), row)
        kernel.forget()
        segment = pk.tcp(SERVICE, SERVER, PORT, next(_ports), 5, 6, pk.Flag.ACK)
        kernel.run("to_pod", pk.ip_packet(SERVICE, SERVER, segment))
        (event,) = kernel.events()
        assert (event["verdict"] == Verdict.ALLOW) is passes, word
