"""The state directory: what was applied last is there whole, whatever interrupts, and nothing older ever is."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from yett_loader.assign import Assignment, Limits, assign
from yett_loader.errors import SnapshotError, StoreError
from yett_loader.lastgood import LastGood
from yett_loader.snapshot import Wanted
from yett_loader.state import MapState
from yett_loader.store import Store
from yett_policy.document import SCHEMA

KILLS = 12


def node(*paths: str, pods: int = 0) -> Wanted:
    """A document and a ruleset for each path, and so many pods besides."""
    rules = tuple(sorted((build.ruleset(path) for path in paths), key=lambda item: item.digest))
    documents = tuple(build.document(400 + number, item) for number, item in enumerate(rules))
    numbers = range(pods)
    return Wanted(
        build.snapshot(
            *documents,
            rulesets=rules,
            ipcache=tuple(sorted((f"10.1.{n // 250}.{n % 250}/32", 500 + n % 7) for n in numbers)),
            pods=tuple(
                ("default", f"pod-{n:05}", 500 + n % 7, (f"10.1.{n // 250}.{n % 250}",)) for n in numbers
            ),
            identities=tuple((500 + n, (f"k8s:app=a{n}",)) for n in range(7)),
        ),
        (build.client(3), build.web(4)),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "state")
    made.prepare()
    return made


def again(store: Store) -> Wanted | None:
    """What a loader finds that starts now."""
    return Store(store.directory).load_snapshot()


def test_a_snapshot_is_found_again_by_whoever_starts_next(store: Store) -> None:
    assert store.load_snapshot() is None
    for wanted in (node("/one", pods=5), node("/two", "/one", pods=3), node(), node("/two", pods=9)):
        store.save_snapshot(wanted)
        assert again(store) == wanted


paths = st.lists(st.sampled_from(["/a", "/b", "/c"]), unique=True, max_size=3)
snapshots = st.builds(lambda some, pods: node(*some, pods=pods), paths, st.integers(0, 6))


@given(st.lists(snapshots, min_size=1, max_size=4))
def test_differences_one_by_one_add_up_to_the_last_snapshot_and_its_digest(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Wanted]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    changed, whole = LastGood(directory / "changed.db"), LastGood(directory / "whole.db")
    for wanted in steps:
        digest = changed.save(wanted)
    assert whole.save(steps[-1]) == digest
    changed.close()
    whole.close()
    found = LastGood(directory / "changed.db")
    assert found.load() == steps[-1]
    assert found.save(steps[-1]) == digest
    found.close()


def test_different_snapshots_have_different_digests(store: Store) -> None:
    said = [node("/one", pods=3), node("/two", pods=3), node("/one", pods=4), node(pods=3), node()]
    moved = replace(said[0], endpoints=(build.client(3), build.web(5)))
    assert len({store.save_snapshot(wanted) for wanted in (*said, moved)}) == len(said) + 1


def test_only_root_can_read_the_files(store: Store) -> None:
    store.save_snapshot(node("/one"))
    for path in store.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_secrets_are_not_in_the_snapshots_file(store: Store) -> None:
    store.save_snapshot(replace(node("/one"), secrets={"n/s": "a-secret-value"}))
    store.close()
    assert all(b"a-secret-value" not in path.read_bytes() for path in store.directory.iterdir())


# -- killed in the middle -----------------------------------------------------------------


def test_a_loader_that_is_killed_while_it_stores_leaves_the_state_before_or_after(store: Store) -> None:
    states = [node("/one", pods=200), node("/two", "/three", pods=400), node(pods=50)]
    for number in range(KILLS):
        told = _killed_while_storing(store, states, 3 + number)
        found = again(store)
        assert found in (states[told % len(states)], states[(told + 1) % len(states)])


def _killed_while_storing(store: Store, states: list[Wanted], after: int) -> int:
    """Store one state after the other in a child, and kill it once it has told of so many; the last it told of."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own = Store(store.directory)
            own.load_snapshot()
            for wanted in itertools.cycle(states):
                own.save_snapshot(wanted)
                os.write(writing, b".")
        finally:
            os._exit(1)  # a pipe that nobody reads ends us too
    os.close(writing)
    told = 0
    try:
        while told < after:
            assert os.read(reading, 1)
            told += 1
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    while os.read(reading, 1):  # told between our last look and its end
        told += 1
    os.close(reading)
    return told - 1


# -- numbers ------------------------------------------------------------------------------


def given(wanted: Wanted, previous: Assignment | None = None) -> Assignment:
    limits = Limits(policies=64, rulesets=(32, 32, 32, 32), ipcache=100, endpoints=100)
    return assign(wanted.snapshot, previous or Assignment(), MapState(), limits)


def test_numbers_are_found_again_by_whoever_starts_next(store: Store) -> None:
    assert store.load_assignment() == Assignment()
    numbers = Assignment()
    for wanted in (node("/one"), node("/one", "/two"), node(), node("/two")):
        numbers = given(wanted, numbers)
        store.save_assignment(numbers)
        assert Store(store.directory).load_assignment() == numbers


def test_numbers_that_are_none_are_refused(store: Store) -> None:
    for change in (
        "UPDATE number SET value = '[1, 2, 3]' WHERE kind = 'rulesets'",
        "UPDATE number SET value = '[0, 2, 3, 4]' WHERE kind = 'rulesets'",
        "UPDATE number SET value = '[1, 2, 3, 65536]' WHERE kind = 'rulesets'",
        "UPDATE number SET value = '0' WHERE kind = 'documents'",
        "UPDATE number SET value = 'true' WHERE kind = 'documents'",
        "UPDATE number SET value = '\"1\"' WHERE kind = 'rules'",
        "UPDATE number SET key = '0' WHERE kind = 'names' AND key = '1'",
        "UPDATE number SET key = '65536' WHERE kind = 'names' AND key = '1'",
        "UPDATE number SET key = '\u0662' WHERE kind = 'names' AND key = '1'",
        "UPDATE number SET value = '2' WHERE kind = 'names'",
    ):
        store.save_assignment(Assignment())
        store.save_assignment(given(node("/one")))
        store.close()
        _sql(change)(store.directory / "numbers.db")
        with pytest.raises(SnapshotError, match=r"numbers\.db\."):
            Store(store.directory).load_assignment()


# -- damage -------------------------------------------------------------------------------


def _sql(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with sqlite3.connect(path) as database:
            assert database.execute(statement).rowcount
        database.close()

    return run


def _bytes(path: Path) -> None:
    path.write_bytes(b"damaged" * 1000)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_bytes, "file is not a database"),
        (_cut, "malformed"),
        (_sql("DELETE FROM part WHERE kind = 'documents'"), "it is not all that was saved"),
        (_sql("DELETE FROM part"), "it is not all that was saved"),
        (_sql("UPDATE whole SET digest = 'x'"), "it is not all that was saved"),
        (_sql("UPDATE whole SET digest = 1"), "it is not all that was saved"),
        (_sql("UPDATE whole SET schema = 'x'"), "it is not all that was saved"),
        (_sql("UPDATE whole SET schema = 1"), f"schema 1 is not the {SCHEMA} that this loader speaks"),
        (_sql("UPDATE part SET digest = 1 WHERE kind = 'pods'"), "is not what was saved"),
        (_sql("UPDATE part SET digest = x'00' WHERE kind = 'pods'"), "is not what was saved"),
        (_sql("UPDATE part SET body = 'text' WHERE kind = 'pods'"), "a row is of another type"),
        (_sql("UPDATE part SET key = x'ff' WHERE key LIKE '%pod-00007%'"), "a row is of another type"),
        (
            _sql("UPDATE part SET body = CAST(replace(body, '10.1', '10.2') AS BLOB) WHERE kind = 'ipcache'"),
            "is not what was saved",
        ),
        (_sql("DROP TABLE whole"), "no such table: whole"),
        (_sql("PRAGMA user_version = 7"), "layout 7 is not the 1 of this loader"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence_and_then_replaced(
    store: Store, damage: Callable[[Path], None], message: str
) -> None:
    store.save_snapshot(node("/one", pods=300))
    store.close()
    path = store.directory / "state.db"
    damage(path)
    found = Store(store.directory)
    with pytest.raises(SnapshotError) as caught:
        found.load_snapshot()
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    found.save_snapshot(node("/two", pods=3))
    assert again(store) == node("/two", pods=3)


@pytest.mark.parametrize(
    "damage",
    [
        _bytes,
        _sql("UPDATE number SET value = '' WHERE kind = 'rules'"),
        _sql("UPDATE number SET value = x'ff' WHERE kind = 'rules'"),
        _sql("UPDATE number SET value = '70000' WHERE kind = 'rules'"),
        _sql("UPDATE number SET kind = 'other' WHERE kind = 'names'"),
        _sql("UPDATE number SET key = 'x' || key WHERE kind = 'names'"),
        _sql("UPDATE number SET key = x'ff' WHERE key = '1'"),
        _sql("PRAGMA user_version = 7"),
        _sql("DROP TABLE number"),
    ],
)
def test_damaged_numbers_are_refused_in_a_sentence_and_then_replaced(
    store: Store, damage: Callable[[Path], None]
) -> None:
    store.save_assignment(given(node("/one")))
    store.close()
    path = store.directory / "numbers.db"
    damage(path)
    found = Store(store.directory)
    with pytest.raises(SnapshotError) as caught:
        found.load_assignment()
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    found.save_assignment(given(node("/two")))
    assert Store(store.directory).load_assignment() == given(node("/two"))


def test_what_is_forged_with_its_digests_is_still_checked(store: Store) -> None:
    """As anything that comes from outside: no row is believed for the digest that stands beside it."""
    last = LastGood(store.directory / "state.db")
    wanted = node("/one", pods=2)
    pods = (("default", "x", 0, ("10.1.0.1",)),)
    last.save(replace(wanted, snapshot=replace(wanted.snapshot, pods=pods)))
    last.close()
    with pytest.raises(SnapshotError, match=r"state\.db\.pods\[0\]\[2\]: 0 is not in 1\.\."):
        store.load_snapshot()


def test_tidying_leaves_what_was_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.tidy()
    store.save_snapshot(node("/one", pods=50))
    store.save_assignment(given(node("/one")))
    logs = [store.directory / f"{name}.db-wal" for name in ("state", "numbers")]
    assert all(log.stat().st_size for log in logs)
    store.tidy()
    assert all(log.stat().st_size for log in logs)  # little
    monkeypatch.setattr("yett_loader.database.LOG_MAX", 0)
    store.tidy()
    assert not any(log.stat().st_size for log in logs)
    assert again(store) == node("/one", pods=50)
    assert Store(store.directory).load_assignment() == given(node("/one"))
    store.save_snapshot(node("/two"))
    assert again(store) == node("/two")


@pytest.mark.parametrize("names", [["state.db"], ["state.db", "state.db-wal", "state.db-shm"]])
def test_a_file_that_somebody_removes_is_made_again_with_all_that_was_in_it(
    store: Store, names: list[str]
) -> None:
    store.save_snapshot(node("/one", pods=5))
    for name in names:
        (store.directory / name).unlink()
    store.save_snapshot(node("/one", pods=6))
    assert again(store) == node("/one", pods=6)


def test_what_cannot_be_stored_leaves_what_was(store: Store) -> None:
    store.save_snapshot(node("/one"))
    limit = store._last._database._open().execute
    limit("PRAGMA max_page_count = 1")  # no more than it has: as if the disk were full
    with pytest.raises(StoreError, match=r"cannot keep state in .*state\.db: database or disk is full"):
        store.save_snapshot(node("/two", pods=999))
    assert again(store) == node("/one")
    limit("PRAGMA max_page_count = 1000000")
    store.save_snapshot(node("/two", pods=999))
    assert again(store) == node("/two", pods=999)
