"""The state directory: the last good snapshot and the node's numbers, each written in one step.

state.db           what was last applied (`lastgood`)
secrets.json       values of Secrets that its rules name; apart, for the snapshot is shown to people
numbers.db         numbers given (`given`)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from yett_loader.assign import Assignment
from yett_loader.errors import NotReady, SnapshotError
from yett_loader.given import Given
from yett_loader.lastgood import LastGood
from yett_loader.snapshot import Wanted
from yett_policy.document import canonical
from yett_policy.sync.reader import Malformed, parse


@dataclass(frozen=True, slots=True)
class Store:
    """Files below one directory, which is made if it is missing."""

    directory: Path
    _last: LastGood = field(init=False, repr=False, compare=False)
    _given: Given = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_last", LastGood(self.directory / "state.db"))
        object.__setattr__(self, "_given", Given(self.directory / "numbers.db"))

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
        return self._last.load()

    def save_snapshot(self, wanted: Wanted) -> str:
        """Put it in the place of the last one; its digest.  StoreError if that fails: then the last one stays."""
        return self._last.save(wanted)

    def tidy(self) -> None:
        """Do what no change should wait for."""
        self._last.tidy()
        self._given.tidy()

    def close(self) -> None:
        """Give up the files."""
        self._last.close()
        self._given.close()

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
        return self._given.load()

    def save_assignment(self, given: Assignment) -> None:
        """Replace them; StoreError if that fails: then the last ones stay."""
        self._given.save(given)


def load_or_default(store: Store) -> tuple[Assignment, str]:
    """The numbers, and what was wrong with the file (then they are given anew)."""
    try:
        return store.load_assignment(), ""
    except SnapshotError as error:
        return Assignment(), str(error)


def _write(path: Path, body: bytes) -> None:
    """All of it or nothing, also if the machine loses power."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
