"""What the loader refuses: an operator that lies."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from support import wanted as build
from support.sync import Certificates, Loader, Target, until
from yett_operator.compilation import encode as publish
from yett_policy.document import SCHEMA
from yett_policy.sync import decode, encode, values
from yett_policy.sync.frame import (
    DEFLATED,
    SUBPROTOCOL,
    TO_LOADER_LIMIT,
    bundle,
    pack,
    unbundle,
    unpack,
)
from yett_policy.sync.message import (
    LOCAL_MAX,
    Ack,
    Begin,
    Commit,
    Hello,
    NodeChanges,
    NodePart,
    Problem,
    Refusal,
    SecretPart,
    ToOperator,
    Welcome,
)

RULES = build.ruleset()
DOCUMENT = build.document(build.WEB, RULES)
GOOD_DOCUMENT = publish.document(DOCUMENT)
GOOD_RULESET = publish.ruleset(RULES)
NODE = NodePart(
    {build.WEB: GOOD_DOCUMENT.digest},
    {RULES.digest: GOOD_RULESET.content},
    {"192.168.0.1/32": 1},
    (("default", "web", build.WEB, ("10.0.0.2",)),),
)


def snapshot(seq: int = 1, revision: int = 1, parts: dict[str, bytes] | None = None) -> list[bytes]:
    """A good one; `parts` take the place of its own."""
    whole = {
        "begin": encode.begin(Begin(seq, None, revision)),
        "ruleset": GOOD_RULESET.frame,
        "document": GOOD_DOCUMENT.frame,
        "node": encode.node(NODE),
        "addresses": encode.addresses([("10.0.0.2/32", build.WEB)]),
        "commit": encode.commit(Commit(seq, 1, 0, 0, 0)),
    }
    return list((whole | (parts or {})).values())


class Liar:
    """An operator's server that says whatever a test wants."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.port = 0
        self.hellos: list[Hello] = []
        self.heard: list[ToOperator] = []
        self.script: list[list[bytes]] = []
        """Updates, each sent when the one before was answered."""
        self.welcome = encode.welcome(Welcome("liar", 30))
        self.socket: web.WebSocketResponse | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/v1/sync", self._serve)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.certificates.server()).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def say(self, *frames: bytes) -> None:
        assert self.socket is not None
        for part in bundle(frames):
            await self.socket.send_bytes(part)

    def answers(self) -> list[ToOperator]:
        return [item for item in self.heard if isinstance(item, Ack | Refusal)]

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.socket = socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False)
        await socket.prepare(request)
        script = iter(self.script)
        async for received in socket:
            for frame in unbundle(received.data):
                item = decode.from_loader(frame)
                if isinstance(item, Hello):
                    self.hellos.append(item)
                    await socket.send_bytes(next(bundle([self.welcome])))
                else:
                    self.heard.append(item)
                if isinstance(item, Hello | Ack | Refusal):
                    for part in bundle(next(script, [])):
                        await socket.send_bytes(part)
        return socket


@pytest.fixture
async def liar(certificates: Certificates) -> AsyncIterator[Liar]:
    made = Liar(certificates)
    await made.start()
    yield made
    await made.stop()


Follow = Callable[..., Loader]


@pytest.fixture
def follow(load: Callable[..., Loader]) -> Follow:
    return load


async def test_the_good_snapshot_of_these_tests_is_taken(liar: Liar, follow: Follow) -> None:
    liar.script = [snapshot()]
    loader = follow(liar)
    await until(liar.answers)
    assert liar.answers() == [Ack(1, {build.WEB: DOCUMENT.digest})]
    assert loader.target.wanted is not None
    assert loader.target.wanted.snapshot.documents == (DOCUMENT,)


def changed(frame: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    """Another JSON in the frame."""
    raw = unpack(frame, TO_LOADER_LIMIT).raw
    assert isinstance(raw, dict)
    change(raw)
    return pack(json.dumps(raw).encode())


def document_changed(change: Callable[[dict[str, object]], object]) -> bytes:
    """A document with other contents, whose digest was not made anew."""
    body = json.loads(DOCUMENT.to_bytes())
    change(body)
    return encode.document(GOOD_DOCUMENT.digest, json.dumps(body).encode())


def ruleset_changed(change: Callable[[dict[str, object]], object]) -> bytes:
    body = json.loads(json.dumps(values.ruleset_json(RULES)))
    change(body)
    return encode.ruleset(GOOD_RULESET.content, json.dumps(body).encode())


OTHER = publish.document(build.document(build.WEB, build.ruleset("/other")))

LIES: list[tuple[str, dict[str, bytes], Problem, str]] = [
    (
        "a document behind its digest's back",
        {"document": document_changed(lambda d: d["entries"][0].__setitem__(5, 1))},  # type: ignore[index]
        Problem.MALFORMED,
        "document.digest: the digest of the document is ",
    ),
    (
        "a document of another revision",
        {"document": document_changed(lambda d: d.update(schema=7))},
        Problem.MALFORMED,
        f"document.document.schema: revision 7 is not the {SCHEMA}",
    ),
    (
        "a port that is none",
        {"document": document_changed(lambda d: d["entries"][0].__setitem__(3, 65536))},  # type: ignore[index]
        Problem.MALFORMED,
        "document.document.entries[0][3]: 65536 is not in 0..65535",
    ),
    (
        "an unknown field",
        {"document": document_changed(lambda d: d.update(more=1))},
        Problem.MALFORMED,
        "unknown field 'more'",
    ),
    (
        "a ruleset behind its digest's back",
        {"ruleset": ruleset_changed(lambda r: r.update(engine_reason="because"))},
        Problem.MALFORMED,
        "ruleset.content: the digest of the ruleset's bytes is ",
    ),
    (
        "rules that are not those of the digest",
        {"ruleset": ruleset_changed(lambda r: r["spec"].update(audit=True))},  # type: ignore[attr-defined]
        Problem.MALFORMED,
        "ruleset.ruleset.digest: the digest of its rules is ",
    ),
    (
        "a document that was not sent",
        {"document": encode.identities([])},
        Problem.GAP,
        "of identity 300 was not sent",
    ),
    (
        "another document than the one named",
        {"document": OTHER.frame},
        Problem.GAP,
        "was not sent",
    ),
    (
        "a ruleset that was not sent",
        {"ruleset": encode.identities([])},
        Problem.GAP,
        "ruleset ",
    ),
    (
        "a secret that was not sent",
        {"node": encode.node(replace(NODE, secrets={"n/s": "0" * 32}))},
        Problem.GAP,
        "secret n/s was not sent",
    ),
    (
        "another version of a secret",
        {
            "addresses": encode.secret(SecretPart("n/s", "1" * 32, "hidden")),
            "node": encode.node(replace(NODE, secrets={"n/s": "0" * 32})),
            "commit": encode.commit(Commit(1, 0, 0, 0, 0)),
        },
        Problem.GAP,
        "secret n/s was not sent",
    ),
    (
        "a ruleset that is not listed",
        {"node": changed(encode.node(NODE), lambda n: n.update(rulesets={}))},
        Problem.MALFORMED,
        "is not listed",
    ),
    (
        "a document under another identity",
        {"node": changed(encode.node(NODE), lambda n: n.update(documents=[[301, GOOD_DOCUMENT.digest]]))},
        Problem.MALFORMED,
        "is of 300, not 301",
    ),
    (
        "an endpoint twice",
        {"node": changed(encode.node(NODE), lambda n: n["endpoints"].extend(n["endpoints"]))},  # type: ignore[attr-defined]
        Problem.MALFORMED,
        "an endpoint occurs twice",
    ),
    (
        "fewer services than there are",
        {"commit": encode.commit(Commit(1, 1, 0, 0, 1))},
        Problem.GAP,
        "0 services here, 1 at the operator",
    ),
    (
        "a backend out of range",
        {"addresses": pack(b'{"type":"services","rows":[["10.96.0.1",6,80,[[300,65536]]]]}')},
        Problem.MALFORMED,
        "65536 is not in 1..65535",
    ),
    (
        "an identity out of range",
        {"addresses": pack(b'{"type":"addresses","rows":[["10.0.0.2/32",4294967296]]}')},
        Problem.MALFORMED,
        "4294967296 is not in 1..4294967295",
    ),
    (
        "a prefix that is none",
        {"addresses": encode.addresses([("10.0.0.2/31", 300), ("10.0.0.1/24", 300)])},
        Problem.MALFORMED,
        "'10.0.0.1/24' is no prefix",
    ),
    (
        "one prefix in two spellings",
        {
            "addresses": encode.addresses([("10.0.0.2/32", 300), ("::ffff:10.0.0.2/128", 300)]),
            "commit": encode.commit(Commit(1, 2, 0, 0, 0)),
        },
        Problem.MALFORMED,
        "is spelled in another way",
    ),
    (
        "fewer addresses than were announced",
        {"commit": encode.commit(Commit(1, 2, 0, 0, 0))},
        Problem.GAP,
        "1 addresses here, 2 at the operator",
    ),
    ("no part of the node", {"node": encode.identities([])}, Problem.MALFORMED, "without the node's part"),
    ("another commit", {"commit": encode.commit(Commit(2, 1, 0, 0, 0))}, Problem.MALFORMED, "commit 2 ends"),
    (
        "a change to what is not here",
        {"begin": encode.begin(Begin(1, 7, 8))},
        Problem.GAP,
        "changes revision 7, this node is at 0",
    ),
    ("a number left out", {"begin": encode.begin(Begin(3, None, 1))}, Problem.GAP, "update 3 follows 0"),
    (
        "a bomb",
        {"addresses": DEFLATED + zlib.compress(bytes(17 << 20))},
        Problem.MALFORMED,
        "bytes when inflated",
    ),
    ("what is no frame", {"addresses": b"\x07" + bytes(300)}, Problem.MALFORMED, "its tag is 07"),
    (
        "half a character",
        {"addresses": pack(rb'{"type":"addresses","rows":[["\ud800",1]]}')},
        Problem.MALFORMED,
        "surrogate",
    ),
]


@pytest.mark.parametrize(
    ("parts", "problem", "text"), [row[1:] for row in LIES], ids=[row[0] for row in LIES]
)
async def test_a_lie_is_refused_whole_and_the_truth_is_taken_afterwards(
    liar: Liar,
    follow: Follow,
    caplog: pytest.LogCaptureFixture,
    parts: dict[str, bytes],
    problem: Problem,
    text: str,
) -> None:
    seq = 3 if parts.get("begin") == encode.begin(Begin(3, None, 1)) else 1
    liar.script = [snapshot(parts=parts), snapshot(seq + 1)]
    loader = follow(liar)
    await until(lambda: len(liar.answers()) == 2)
    refusal, ack = liar.answers()
    assert isinstance(refusal, Refusal)
    assert (refusal.seq, refusal.problem) == (seq, problem)
    assert text in refusal.message
    assert ack == Ack(seq + 1, {build.WEB: DOCUMENT.digest})
    assert loader.snapshots == 1
    assert loader.follower.numbers.refused == {problem: 1}
    assert len([item for item in caplog.records if "nothing of update" in item.getMessage()]) == 1
    assert len(liar.hellos) == 1


async def test_what_is_in_force_stays_when_a_change_is_refused(liar: Liar, follow: Follow) -> None:
    liar.script = [
        snapshot(),
        [
            encode.begin(Begin(2, 1, 2)),
            encode.addresses([("10.0.0.2/32", None), ("10.0.0.9/32", 300)]),
            encode.commit(Commit(2, 5, 0, 0, 0)),
        ],
    ]
    loader = follow(liar)
    await until(lambda: len(liar.answers()) == 2)
    assert dict(loader.follower.replica.ipcache) == {"10.0.0.2/32": build.WEB}
    assert loader.follower.replica.revision == 1
    assert loader.snapshots == 1


def node_changes(**fields: object) -> bytes:
    nothing = NodeChanges({}, {}, {}, {}, {})
    return encode.node_changes(replace(nothing, **fields))  # type: ignore[arg-type]


LYING_CHANGES: list[tuple[str, bytes, Problem, str]] = [
    (
        "a document that was not sent",
        node_changes(documents={build.WEB: OTHER.digest}),
        Problem.GAP,
        "of identity 300 was not sent",
    ),
    (
        "a document under another identity",
        node_changes(documents={301: GOOD_DOCUMENT.digest}),
        Problem.MALFORMED,
        "is of 300, not 301",
    ),
    (
        "a ruleset that is taken away from its document",
        node_changes(rulesets={RULES.digest: None}),
        Problem.MALFORMED,
        "is not listed",
    ),
    (
        "more endpoints than a node has",
        node_changes(endpoints={("n", f"p{number}"): (300, ()) for number in range(LOCAL_MAX)}),
        Problem.MALFORMED,
        f"{LOCAL_MAX + 1} endpoints",
    ),
    (
        "an endpoint twice",
        changed(
            node_changes(endpoints={("n", "p"): (300, ())}),
            lambda n: n["endpoints"].extend(n["endpoints"]),  # type: ignore[attr-defined]
        ),
        Problem.MALFORMED,
        "an endpoint occurs twice",
    ),
    (
        "an address of the node in another spelling",
        node_changes(addresses={"::ffff:10.0.0.2/128": 1}),
        Problem.MALFORMED,
        "is spelled in another way",
    ),
    (
        "a secret that was not sent",
        node_changes(secrets={"n/s": "0" * 32}),
        Problem.GAP,
        "secret n/s was not sent",
    ),
    (
        "an identity out of range",
        node_changes(endpoints={("n", "p"): (0, ())}),
        Problem.MALFORMED,
        "0 is not in 1..4294967295",
    ),
]


@pytest.mark.parametrize(
    ("part", "problem", "text"), [row[1:] for row in LYING_CHANGES], ids=[row[0] for row in LYING_CHANGES]
)
async def test_a_lying_change_of_the_nodes_part_is_refused_and_what_is_in_force_stays(
    liar: Liar, follow: Follow, part: bytes, problem: Problem, text: str
) -> None:
    change = [encode.begin(Begin(2, 1, 2)), part, encode.commit(Commit(2, 1, 0, 0, 0))]
    liar.script = [snapshot(), change]
    loader = follow(liar)
    await until(lambda: len(liar.answers()) == 2)
    refusal = liar.answers()[1]
    assert isinstance(refusal, Refusal)
    assert refusal.problem == problem
    assert text in refusal.message
    assert loader.snapshots == 1
    assert len(liar.hellos) == 1


async def test_changes_of_the_nodes_part_in_a_snapshot_are_refused(liar: Liar, follow: Follow) -> None:
    liar.script = [snapshot(parts={"node": node_changes()}), snapshot(2)]
    follow(liar)
    await until(lambda: len(liar.answers()) == 2)
    refusal, _ = liar.answers()
    assert isinstance(refusal, Refusal)
    assert (refusal.problem, refusal.message) == (
        Problem.MALFORMED,
        "changes of the node's part in a snapshot",
    )


async def test_a_replayed_update_is_refused_and_changes_nothing(liar: Liar, follow: Follow) -> None:
    change = [
        encode.begin(Begin(2, 1, 2)),
        encode.addresses([("10.0.0.2/32", None)]),
        encode.commit(Commit(2, 0, 0, 0, 0)),
    ]
    back = [
        encode.begin(Begin(3, 2, 3)),
        encode.addresses([("10.0.0.2/32", 301)]),
        encode.commit(Commit(3, 1, 0, 0, 0)),
    ]
    liar.script = [snapshot(), change, back, change, snapshot(1), [*snapshot(4, 4)]]
    loader = follow(liar)
    await until(lambda: len(liar.answers()) == 6)
    kinds = [(type(item).__name__, item.seq) for item in liar.answers()]  # type: ignore[union-attr]
    assert kinds == [("Ack", 1), ("Ack", 2), ("Ack", 3), ("Refusal", 2), ("Refusal", 1), ("Ack", 4)]
    assert loader.follower.numbers.refused == {"Replayed": 2}
    assert loader.snapshots == 4


@pytest.mark.parametrize(
    "frames",
    [
        [encode.addresses([("10.0.0.2/32", 300)])],
        [encode.commit(Commit(1, 0, 0, 0, 0))],
        [encode.welcome(Welcome("again", 30))],
        [encode.begin(Begin(1, None, 1)), encode.begin(Begin(2, None, 1))],
        [pack(b"{}")],
        [pack(b"no JSON")],
        [b""],
    ],
    ids=["a part", "a commit", "a welcome", "a beginning within another", "no type", "no JSON", "nothing"],
)
async def test_what_comes_out_of_order_ends_the_stream(
    liar: Liar, follow: Follow, frames: list[bytes]
) -> None:
    liar.script = [frames]
    loader = follow(liar)
    await until(lambda: len(liar.hellos) >= 2)
    assert loader.snapshots == 0


async def test_an_oversize_frame_ends_the_stream(liar: Liar, follow: Follow) -> None:
    loader = follow(liar)
    await until(lambda: liar.hellos and loader.follower.stale_since is None)
    assert liar.socket is not None
    await liar.socket.send_bytes(bytes(TO_LOADER_LIMIT + (1 << 20)))
    await until(lambda: loader.follower.numbers.refused == {"Oversize": 1})
    await until(lambda: len(liar.hellos) >= 2)
    assert loader.follower.numbers.received_bytes < 10_000


async def test_another_revision_of_documents_is_refused(liar: Liar, follow: Follow) -> None:
    liar.welcome = pack(
        b'{"type":"welcome","schema":%d,"epoch":"e","counters_seconds":30,"new":1}' % (SCHEMA + 1)
    )
    loader = follow(liar)
    await until(lambda: loader.follower.numbers.refused["UnknownRevision"] >= 2)
    assert loader.follower.stale_since is not None
    assert loader.snapshots == 0


async def test_an_update_before_the_answer_to_the_last_ends_the_stream(liar: Liar, follow: Follow) -> None:
    liar.script = [[*snapshot(), *snapshot(2, 2)]]
    loader = follow(liar, target=Target(delay=0.2))
    await until(lambda: len(liar.hellos) >= 2)
    assert loader.follower.replica.revision == 1


async def test_a_server_of_another_name_is_not_spoken_to(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    other = Liar(Certificates.make(tmp_path, "elsewhere"))
    await other.start()
    follow(other)
    await until(lambda: "certificate" in caplog.text.lower())
    assert other.hellos == []
    await other.stop()


async def test_a_server_of_another_authority_is_not_spoken_to(
    liar: Liar, tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Certificates.make(tmp_path)
    liar.certificates = stranger
    follow(liar)  # its server still shows the first authority's certificate
    await until(lambda: "certificate verify failed" in caplog.text.lower())
    assert liar.hellos == []


async def test_a_server_that_pings_no_more_is_left(liar: Liar, follow: Follow) -> None:
    loader = follow(liar)
    await until(lambda: loader.follower.stale_since is None)
    await until(lambda: len(liar.hellos) >= 2, 10)
