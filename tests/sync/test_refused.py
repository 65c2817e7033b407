"""What the operator's server refuses: callers, hellos, frames."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from support import wanted as build
from support.sync import Replica, Source, Tokens, until
from yett_operator.complaints import PERIOD, Complaints
from yett_operator.sync.auth import Caller, Denied, Gate, Unavailable, bearer
from yett_operator.sync.settings import Settings
from yett_policy.document import SCHEMA
from yett_policy.sync import decode, encode
from yett_policy.sync.frame import DEFLATED, SUBPROTOCOL, TO_OPERATOR_LIMIT, bundle, pack, unbundle
from yett_policy.sync.message import (
    Ack,
    Begin,
    Close,
    Commit,
    Hello,
    Problem,
    Refusal,
    Renewal,
    ToLoader,
    Welcome,
)

Serve = Callable[..., Awaitable[Replica]]
Socket = aiohttp.ClientWebSocketResponse

HELLO = Hello(node="node-a", instance="0", version="1", kernel="6.18", applied={}, failures=())


@asynccontextmanager
async def calling(
    replica: Replica, token: str | None = "token-of-node-a", protocol: str = SUBPROTOCOL
) -> AsyncIterator[Socket]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"wss://localhost:{replica.port}/v1/sync",
            ssl=replica.certificates.client(),
            headers=headers,
            protocols=(protocol,),
            max_msg_size=0,
        ) as socket,
    ):
        yield socket


async def say(socket: Socket, *frames: bytes) -> None:
    for part in bundle(frames):
        await socket.send_bytes(part)


async def hear(socket: Socket) -> list[ToLoader]:
    """The messages of the next websocket message."""
    received = await socket.receive(timeout=5)
    assert received.type is aiohttp.WSMsgType.BINARY, (received, socket.close_code)
    return [decode.from_operator(frame) for frame in unbundle(received.data)]


async def update(socket: Socket) -> list[ToLoader]:
    """All messages of the next update."""
    messages: list[ToLoader] = []
    while not messages or not isinstance(messages[-1], Commit):
        messages += await hear(socket)
    return messages


async def ended(socket: Socket) -> int | None:
    """The close code; TimeoutError if the stream goes on."""
    async with asyncio.timeout(8):
        while True:
            received = await socket.receive()
            if received.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
                return socket.close_code


@pytest.fixture
async def replica(serve: Serve) -> Replica:
    source = Source()
    source.begin("node-a")
    return await serve(source)


# -- callers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "reason"),
    [(None, "NoToken"), ("forged", "NotAuthenticated"), ("a b", "BadToken")],
    ids=["none", "forged", "with a space"],
)
async def test_who_has_no_valid_token_is_refused_and_counted(
    replica: Replica, token: str | None, reason: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with calling(replica, token):
            pass
    assert caught.value.status == 401
    assert replica.server.counters.refused == {reason: 1}
    assert replica.sink.log == []


async def test_refusals_are_logged_once_and_a_forged_token_is_reviewed_once(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with calling(replica, "forged"):
                pass
    assert replica.server.counters.refused["NotAuthenticated"] == 5
    assert replica.tokens.reviews == 1
    lines = [item for item in caplog.records if item.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "forged" not in lines[0].getMessage().split(":", 1)[0]


async def test_a_flood_of_bad_tokens_is_counted_and_logged_once_a_kind(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    flood = 40
    for number in range(flood):
        for token in (f"forged-{number}", None):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with calling(replica, token):
                    pass
    assert replica.server.counters.refused == {"NotAuthenticated": flood, "NoToken": flood}
    assert replica.tokens.reviews == flood
    lines = [item.getMessage() for item in caplog.records if item.levelno >= logging.WARNING]
    assert [line.partition("refused ")[2][:18] for line in lines] == [
        "(NotAuthenticated)",
        "(NoToken): 'there ",
    ]


def test_a_complaint_is_made_once_a_minute_and_says_what_it_left_out() -> None:
    now = 0.0
    complaints = Complaints(lambda: now)
    assert complaints.due("a") == ""
    assert complaints.due("b") == "", "another kind"
    assert [complaints.due("a") for _ in range(7)] == [None] * 7
    now = PERIOD
    assert complaints.due("a") == " (and 7 more like it since the last line)"
    assert complaints.due("a") is None
    now = 2 * PERIOD
    assert complaints.due("b") == ""


async def test_another_protocol_is_refused_before_the_stream(replica: Replica) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with calling(replica, protocol="yett.sync.v9"):
            pass
    assert caught.value.status == 400
    assert replica.server.counters.refused == {"UnknownProtocol": 1}


async def test_while_tokens_cannot_be_reviewed_nobody_is_let_in(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(_token: str) -> Caller:
        raise Unavailable("the API server does not answer TokenReview")

    monkeypatch.setattr(replica.tokens, "authenticate", nobody)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with calling(replica):
            pass
    assert caught.value.status == 503


async def test_without_tls_nobody_is_heard(replica: Replica) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.ws_connect(f"ws://localhost:{replica.port}/v1/sync")


def test_a_bearer_token_is_what_follows_the_scheme() -> None:
    assert bearer("Bearer abc") == "abc"
    for header in ("", "abc", "Basic abc", "Bearer ", "Bearer a\nb"):
        with pytest.raises(Denied):
            bearer(header)


async def test_a_refused_token_may_become_valid_after_a_while() -> None:
    now = [0.0]
    tokens = Tokens()
    tokens.revoked.add("token-of-a")
    gate = Gate(tokens, clock=lambda: now[0])
    with pytest.raises(Denied):
        await gate.authenticate("token-of-a")
    tokens.revoked.clear()
    with pytest.raises(Denied):
        await gate.authenticate("token-of-a")
    now[0] = 11.0
    assert await gate.authenticate("token-of-a") == Caller("a")


async def test_a_thousand_callers_are_not_a_thousand_reviews_at_once() -> None:
    running = [0, 0]

    class Slow:
        async def authenticate(self, token: str) -> Caller:
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0)
            running[0] -= 1
            return Caller(token)

    gate = Gate(Slow())
    await asyncio.gather(*(gate.authenticate(f"t{number}") for number in range(1000)))
    assert running == [0, 16]


# -- hellos ---------------------------------------------------------------------------------


async def test_a_hello_for_another_node_than_the_tokens_is_refused(replica: Replica) -> None:
    async with calling(replica, "token-of-node-b") as socket:
        await say(socket, encode.hello(HELLO))
        assert await ended(socket) == Close.WRONG_NODE
    assert replica.server.counters.refused == {"WRONG_NODE": 1}
    assert replica.sink.log == []


async def test_another_revision_of_documents_is_refused(replica: Replica) -> None:
    async with calling(replica) as socket:
        await say(socket, encode.hello(replace(HELLO, schema=SCHEMA + 1)))
        assert await ended(socket) == Close.UNKNOWN_REVISION
    assert replica.server.counters.refused == {"UNKNOWN_REVISION": 1}


async def test_who_says_nothing_is_not_waited_for(serve: Serve) -> None:
    replica = await serve(Source(), Settings(hello=0.1))
    async with calling(replica) as socket:
        assert await ended(socket) == Close.SILENT


async def test_an_answer_before_the_hello_is_refused(replica: Replica) -> None:
    async with calling(replica) as socket:
        await say(socket, encode.ack(Ack(0, {})))
        assert await ended(socket) == Close.PROTOCOL_ERROR


# -- frames ---------------------------------------------------------------------------------


async def greeted(socket: Socket) -> list[ToLoader]:
    await say(socket, encode.hello(HELLO))
    assert isinstance((await hear(socket))[0], Welcome)
    return await update(socket)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x00\x00",
        b"\x00\x00\x00\x05\x00{}",
        b"\x00\x00\x00\x03\x07{}",
        next(bundle([pack(b"[]")])),
        next(bundle([pack(b'{"type": "welcome"}')])),
        next(bundle([DEFLATED + zlib.compress(bytes(17 << 20))])),
        next(bundle([encode.hello(HELLO)])),
        next(bundle([encode.ack(Ack(2, {}))])),
        next(bundle([pack(b'{"type": "ack"}')])),
    ],
    ids=[
        "nothing",
        "half a length",
        "too short",
        "another tag",
        "no message",
        "a message of the operator's",
        "a bomb",
        "a second hello",
        "an answer to what was not sent",
        "missing fields",
    ],
)
async def test_a_bad_message_ends_the_stream_and_only_that(replica: Replica, bad: bytes) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        await socket.send_bytes(bad)
        if bad:
            assert await ended(socket) == Close.PROTOCOL_ERROR
            assert replica.server.counters.refused == {"PROTOCOL_ERROR": 1}
    async with calling(replica) as socket:
        await greeted(socket)


async def test_an_oversize_frame_is_not_even_read(replica: Replica) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        await socket.send_bytes(bytes(TO_OPERATOR_LIMIT + 100))
        assert await ended(socket) in {Close.OVERSIZE, 1006}  # 1006: reset with our bytes unread
    await until(lambda: replica.server.counters.refused == {"OVERSIZE": 1})
    assert replica.server.counters.received_bytes < 10_000


async def test_text_is_refused(replica: Replica) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        await socket.send_str("{}")
        assert await ended(socket) == Close.PROTOCOL_ERROR


async def test_a_flood_ends_the_stream(serve: Serve) -> None:
    replica = await serve(Source(), Settings(messages=50))
    async with calling(replica) as socket:
        await say(socket, encode.hello(HELLO))
        for _ in range(60):
            await say(socket, encode.ack(Ack(0, {})))
        assert await ended(socket) == Close.TOO_MUCH


async def test_a_token_of_another_node_does_not_keep_the_stream_alive(serve: Serve) -> None:
    replica = await serve(Source(), Settings(ping=0.05))
    async with calling(replica) as socket:
        await say(socket, encode.hello(HELLO))
        assert isinstance((await hear(socket))[0], Welcome)
        await say(socket, encode.renewal(Renewal("token-of-node-b")))
        assert await ended(socket) == Close.NOT_AUTHENTICATED


# -- answers --------------------------------------------------------------------------------


async def test_a_refused_difference_is_followed_by_a_snapshot_with_everything(replica: Replica) -> None:
    async with calling(replica) as socket:
        first = await greeted(socket)
        assert first[0] == Begin(1, None, 1)
        await say(socket, encode.ack(Ack(1, {})))
        replica.source.tell(ipcache={"10.8.0.1/32": build.WEB})
        second = await update(socket)
        assert second[0] == Begin(2, 1, 2)
        await say(socket, encode.refusal(Refusal(2, Problem.GAP, "no")))
        third = await update(socket)
        assert third[0] == Begin(3, None, 2)
        assert {type(item) for item in third} == {type(item) for item in first}
    assert replica.server.counters.problems == {"Gap": 1}
    assert replica.sink.failures["node-a"] == ((0, "ProtocolError", "no"),)


async def test_a_refused_snapshot_is_not_sent_again_at_once(serve: Serve) -> None:
    source = Source()
    source.begin("node-a")
    replica = await serve(source, Settings(refused_first=0.3, refused_most=0.3))
    async with calling(replica) as socket:
        await greeted(socket)
        await say(socket, encode.refusal(Refusal(1, Problem.MALFORMED, "no")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.receive(), 0.2)
    assert replica.server.counters.updates == {"snapshot": 1}


async def test_an_answer_that_comes_twice_changes_nothing(replica: Replica) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        digest = replica.source.documents[build.WEB].digest
        for _ in range(2):
            await say(socket, encode.ack(Ack(1, {build.WEB: digest})))
        replica.source.tell(ipcache={"10.8.0.1/32": build.WEB})
        assert (await update(socket))[0] == Begin(2, 1, 2)
        await say(socket, encode.ack(Ack(1, {})))
        await asyncio.sleep(0.1)
        replica.source.tell(ipcache={"10.8.0.2/32": build.WEB})
        with pytest.raises(TimeoutError):  # 2 is still to be answered
            await asyncio.wait_for(socket.receive(), 0.2)
    assert replica.sink.nodes["node-a"] == {build.WEB: digest}


async def test_all_that_was_sent_is_in_force_by_the_first_answer_only(replica: Replica) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        await say(socket, encode.ack(Ack(1, {}, as_sent=True)))
        digest = replica.source.documents[build.WEB].digest
        await until(lambda: replica.sink.nodes.get("node-a") == {build.WEB: digest})
        await say(socket, encode.ack(Ack(1, {}, as_sent=True)))
        assert await ended(socket) == Close.PROTOCOL_ERROR
    assert replica.server.counters.refused == {"PROTOCOL_ERROR": 1}


async def test_nothing_is_in_force_as_sent_before_anything_was_sent(serve: Serve) -> None:
    replica = await serve(Source())
    async with calling(replica) as socket:
        await say(socket, encode.hello(HELLO))
        assert isinstance((await hear(socket))[0], Welcome)
        await say(socket, encode.ack(Ack(0, {}, as_sent=True)))
        assert await ended(socket) == Close.PROTOCOL_ERROR
    assert replica.sink.nodes.get("node-a", {}) == {}


async def test_what_was_refused_is_not_in_force_as_sent(replica: Replica) -> None:
    async with calling(replica) as socket:
        await greeted(socket)
        await say(socket, encode.refusal(Refusal(1, Problem.MALFORMED, "no")))
        await say(socket, encode.ack(Ack(1, {}, as_sent=True)))
        assert await ended(socket) == Close.PROTOCOL_ERROR
