"""The state directory: the last good snapshot and the node's numbers, each written in one step.

state.db           what was last applied (`lastgood`)
secrets.json       values of Secrets that its rules name; apart, for the snapshot is shown to people
assignments.json   numbers given; losing it costs numbers, never meaning (`assign`)
snapshot.json      what an older loader applied last; taken over, and removed
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from yett_loader.assign import RULE_LIMIT, Assignment, Place
from yett_loader.errors import NotReady, SnapshotError, StoreError
from yett_loader.lastgood import LastGood
from yett_loader.older import of_now
from yett_loader.snapshot import Wanted, from_bytes
from yett_loader.state import RulesetState
from yett_policy.document import canonical
from yett_policy.sync.reader import Malformed, parse

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Store:
    """Files below one directory, which is made if it is missing."""

    directory: Path
    _last: LastGood = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_last", LastGood(self.directory / "state.db"))

    def prepare(self) -> None:
        """NotReady unless the directory is there and can be written."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise NotReady(
                f"cannot keep state in {self.directory}: {error.strerror}; name another place with --state-dir"
            ) from error

    def load_snapshot(self) -> Wanted | None:
        """What was last applied, None if nothing was; SnapshotError if the file is damaged."""
        older = self._older
        try:
            body = older.read_bytes()
        except FileNotFoundError:
            return self._last.load()
        # It is removed once it was taken over: an older loader has run since.
        wanted = from_bytes(of_now(body), str(older))
        try:
            self.save_snapshot(wanted)
        except StoreError as error:
            log.warning("%s stays in use: %s", older, error)
        return wanted

    def save_snapshot(self, wanted: Wanted) -> str:
        """Put it in the place of the last one; its digest.  StoreError if that fails: then the last one stays."""
        digest = self._last.save(wanted)
        self._older.unlink(missing_ok=True)
        return digest

    def close(self) -> None:
        """Give up the file of the last snapshot."""
        self._last.close()

    @property
    def _older(self) -> Path:
        return self.directory / "snapshot.json"

    def load_secrets(self) -> dict[str, str]:
        """Values by `namespace/name`; none if the file is missing or damaged: they will be sent again."""
        try:
            return {
                name: value.text()
                for name, value in parse((self.directory / "secrets.json").read_bytes(), "secrets").mapping()
            }
        except (FileNotFoundError, Malformed):
            return {}

    def save_secrets(self, secrets: Mapping[str, str]) -> None:
        """Replace them; nobody but root can read the file."""
        _write(self.directory / "secrets.json", canonical(dict(secrets)))

    def load_assignment(self) -> Assignment:
        """The numbers given; none if the file is missing. SnapshotError if it is damaged."""
        path = self.directory / "assignments.json"
        try:
            return assignment_from_bytes(path.read_bytes(), str(path))
        except FileNotFoundError:
            return Assignment()

    def save_assignment(self, assignment: Assignment) -> None:
        """Replace it.  Without waiting for the disk: the numbers mean something as long as the kernel runs."""
        _write(self.directory / "assignments.json", assignment_to_bytes(assignment), durable=False)


def assignment_to_bytes(assignment: Assignment) -> bytes:
    """Canonical JSON."""
    return canonical(
        {
            "schema": SCHEMA,
            "rulesets": {
                digest: [place.handle, *place.state] for digest, place in assignment.rulesets.items()
            },
            "documents": assignment.documents,
            "rules": assignment.rules,
            "names": [[number, name] for number, name in sorted(assignment.names.items())],
        }
    )


def assignment_from_bytes(body: bytes, name: str) -> Assignment:
    """The inverse; SnapshotError if it is damaged."""
    try:
        return _assignment(body, name)
    except Malformed as error:
        raise SnapshotError(str(error)) from None


def _assignment(body: bytes, name: str) -> Assignment:
    schema, rulesets, documents, rules, names = parse(body, name).fields(
        "schema", "rulesets", "documents", "rules", "names"
    )
    if schema.raw != SCHEMA:
        raise schema.fail(f"schema {str(schema.raw)[:40]} is not {SCHEMA}")
    places = {}
    for digest, value in rulesets.mapping():
        handle, identifier, base, count = value.row(4)
        state = RulesetState(
            identifier.integer(1, 2**64 - 1),
            base.integer(1, RULE_LIMIT - 1),
            count.integer(1, RULE_LIMIT - 1),
        )
        places[digest] = Place(handle.integer(1, 2**32 - 1), state)
    pairs = [item.row(2) for item in names.items()]
    return Assignment(
        rulesets=places,
        documents={digest: value.integer(1, 2**31 - 1) for digest, value in documents.mapping()},
        rules={reference: value.integer(1, RULE_LIMIT - 1) for reference, value in rules.mapping()},
        names={number.integer(1, RULE_LIMIT - 1): text.text() for number, text in pairs},
    )


def load_or_default(store: Store) -> tuple[Assignment, str]:
    """The numbers, and what was wrong with the file (then they are given anew)."""
    try:
        return store.load_assignment(), ""
    except SnapshotError as error:
        return Assignment(), str(error)


def _write(path: Path, body: bytes, *, durable: bool = True) -> None:
    """All of it or nothing, if `durable` also when the machine loses power."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
        if durable:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
