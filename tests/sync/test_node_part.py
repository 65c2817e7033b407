"""What one loader is sent of its own node, update by update, beside all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from support.sync import Source, pod
from yett_loader.sync.replica import Replica, Update
from yett_operator.ports import Change, PublishedSecret
from yett_operator.sync.counters import Counters
from yett_operator.sync.frames import Frames
from yett_operator.sync.history import History
from yett_operator.sync.sent import Sent
from yett_operator.sync.settings import Settings
from yett_operator.sync.stream import Stream
from yett_policy.document import Engine, Verdict
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.sync import decode
from yett_policy.sync.message import Begin, Commit, Hello, NodeChanges, NodePart

NODE, ELSEWHERE = "n1", "n2"
SECRET = HeaderChange("x-key", ChangeOp.REPLACE, None, "n/s")
RULESETS = (
    build.ruleset("/a"),
    build.ruleset("/b"),
    build.ruleset("/c", engine=Engine.SIDECAR, changes=(SECRET,)),
)
Step = Callable[[Source], object]

identities = st.integers(300, 303)
steps = st.one_of(
    st.builds(
        lambda number, rules, verdict: (
            lambda source: source.tell(
                documents=(build.document(number, *rules, verdict=verdict),), rulesets=RULESETS
            )
        ),
        identities,
        st.sampled_from([(), RULESETS[:1], RULESETS[1:2], RULESETS[2:]]),
        st.sampled_from([Verdict.DENY, Verdict.ALLOW]),
    ),
    st.builds(
        lambda name, number, node: (
            lambda source: source.tell(
                pods={f"default/{name}": number and pod(name, node, "10.0.0.9", identity=number)}
            )
        ),
        st.sampled_from("abc"),
        st.none() | identities,
        st.sampled_from([NODE, ELSEWHERE]),
    ),
    st.builds(
        lambda own: lambda source: source.tell(node_addresses={NODE: own}),
        st.dictionaries(st.sampled_from(["10.1.0.1/32", "10.1.0.2/32"]), st.just(1)),
    ),
    st.builds(
        lambda version: lambda source: source.tell(secrets={"n/s": PublishedSecret(version * 32, version)}),
        st.sampled_from("01"),
    ),
)


class Loader:
    """Takes what a stream sends, without a socket."""

    def __init__(self, source: Source, settings: Settings | None = None) -> None:
        self.replica = Replica()
        self.parts: list[type] = []
        self._source = source
        history = History(source, self._changed)
        hello = Hello(NODE, "i", "1", "6", applied={})
        settings = settings or Settings()
        self.stream = Stream(source, Frames(history), Counters(), settings, NODE, hello)

    def _changed(self, change: Change) -> None:
        self.stream.changed(change)

    async def take(self) -> None:
        """One update, if there is one."""
        await self.send(await self.stream._next())

    async def send(self, frames: Sequence[bytes]) -> None:
        """Take it, and answer."""
        update: Update | None = None
        for frame in frames:
            match decode.from_operator(frame):
                case Begin() as begin:
                    update = Update(self.replica, self._source.epoch, begin)
                case Commit() as commit if update:
                    self.replica = update.commit(commit)
                    self.stream.acked(commit.seq)
                case part if update:
                    self.parts.append(type(part))
                    update.take(part)  # type: ignore[arg-type]


@given(st.lists(st.tuples(steps, st.booleans()), min_size=1, max_size=12))
def test_changes_add_up_to_what_the_node_must_have(todo: list[tuple[Step, bool]]) -> None:
    async def run() -> None:
        source = Source()
        loader = Loader(source)
        for step, send in todo:
            step(source)
            if send:
                await loader.take()
        await loader.take()
        part = Sent.of(source.snapshot(NODE)).part
        assert loader.replica.node == part
        assert {item.digest for item in loader.replica.wanted.snapshot.documents} == {
            *part.documents.values()
        }

    asyncio.run(run())


async def test_the_whole_part_is_sent_once_and_then_only_what_is_different() -> None:
    source = Source()
    loader = Loader(source)
    source.begin(NODE, ELSEWHERE)
    await loader.take()
    assert NodePart in loader.parts
    loader.parts.clear()
    source.tell(documents=(build.document(build.WEB, verdict=Verdict.ALLOW),))
    await loader.take()
    assert NodeChanges in loader.parts
    source.tell(documents=(build.document(build.CLIENT),))
    source.tell(identities={999: ("k8s:app=elsewhere",)})
    loader.parts.clear()
    await loader.take()
    assert [kind.__name__ for kind in loader.parts] == ["IdentitiesPart"]


async def test_news_of_the_node_itself_are_not_held_back_with_what_all_are_told() -> None:
    source = Source()
    loader = Loader(source, Settings(spacing=0.001, spread=3600))
    updates: asyncio.Queue[list[str]] = asyncio.Queue()

    async def send(frames: Sequence[bytes], *, whole: bool) -> None:
        loader.parts.clear()
        await loader.send(frames)
        updates.put_nowait([kind.__name__ for kind in loader.parts])

    source.begin(NODE, ELSEWHERE)
    running = asyncio.create_task(loader.stream.run(send))
    await updates.get()
    source.tell(identities={999: ("k8s:app=elsewhere",)})
    source.tell(identities={998: ("k8s:app=also-elsewhere",)})
    source.tell(documents=(build.document(build.WEB, verdict=Verdict.ALLOW),))
    assert await updates.get() == ["DocumentPart", "NodeChanges", "IdentitiesPart"]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
