"""The bytes of an unfinished download, and what tells that the rest belongs to them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fss_bench.errors import FetchError, one_line
from fss_bench.files import write_text

READ = 1 << 20


class Part:
    """A file that grows by what is appended, and is hashed as it does. Used as a context.

    Args:
        target: the file that it will be; `<target>.part` and `<target>.part.json` are beside it.
        place: where the bytes come from.
        algorithms: names of hashes.
        checked: the whole file will be, so that its bytes may come from several places.

    Raises:
        FetchError: it cannot be read or written; also from its methods.
    """

    def __init__(
        self, target: Path, place: object, algorithms: Iterable[str], checked: bool
    ) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._facts_file = target.with_name(f"{target.name}.part.json")
        self._place, self._algorithms, self._checked = str(place), set(algorithms), checked
        self.validator = ""
        self.total: int | None = None
        self.size = 0

    def __enter__(self) -> "Part":
        try:
            self._stream = self.path.open("a+b")
            self._start_hashes()
            facts = self._read_facts()
            same = facts.get("place") == self._place
            self.validator = str(facts.get("validator") or "") if same else ""
            total = facts.get("total")
            self.total = total if same and isinstance(total, int) else None
            if self.can_grow:
                self._read_what_is_there()
            else:
                self.restart()
        except OSError as error:
            raise self._cannot_write(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if self.size == 0:
            self.discard()

    @property
    def can_grow(self) -> bool:
        """Whether bytes of another answer than the last may follow those that are here."""
        return bool(self.validator) or self._checked

    def goes_on(self, validator: str, total: int | None) -> bool:
        """Whether an answer is of the file that the bytes here are of, as far as is known."""
        if total is not None and self.total not in (None, total):
            return False
        return validator == self.validator or (self._checked and not self.validator)

    def expect(self, validator: str, total: int | None) -> None:
        """Keep what the bytes to come are a part of."""
        if (validator, total) == (self.validator, self.total) and self._facts_file.is_file():
            return
        self.validator, self.total = validator, total
        facts = {"place": self._place, "validator": validator, "total": total}
        try:
            write_text(self._facts_file, json.dumps(facts) + "\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def append(self, chunk: bytes) -> None:
        """Add bytes."""
        try:
            self._stream.write(chunk)
            self._stream.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._count(chunk)

    def restart(self) -> None:
        """Drop all bytes."""
        try:
            self._stream.truncate(0)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._start_hashes()

    def digests(self) -> Mapping[str, str]:
        """Algorithm -> hex digits, of the bytes so far."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def head(self) -> bytes:
        """The first bytes."""
        return read_head(self.path)

    def become(self, target: Path) -> None:
        """Be the target from now on, whole and on the disk."""
        try:
            os.fsync(self._stream.fileno())
            self.path.replace(target)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._facts_file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
        self._facts_file.unlink(missing_ok=True)

    def _start_hashes(self) -> None:
        self.size = 0
        self._hashes = new_hashes(self._algorithms)

    def _read_what_is_there(self) -> None:
        self._stream.seek(0)
        while chunk := self._stream.read(READ):
            self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for digest in self._hashes.values():
            digest.update(chunk)

    def _read_facts(self) -> Mapping[str, Any]:
        with suppress(OSError, ValueError, RecursionError):
            facts = json.loads(self._facts_file.read_text(encoding="utf-8"))
            return facts if isinstance(facts, dict) else {}
        return {}

    def _cannot_write(self, error: OSError) -> FetchError:
        return FetchError(
            f"cannot write {self.path} ({one_line(error)}): free space or mend its permissions, "
            "then run the same command again, which goes on from there"
        )


def new_hashes(algorithms: Iterable[str]) -> dict[str, Any]:
    """Hash objects by name; those of old publishers guard against accidents, not attacks."""
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def file_digests(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Algorithm -> hex digits of a file."""
    hashes = new_hashes(algorithms)
    with path.open("rb") as stream:
        while chunk := stream.read(READ):
            for digest in hashes.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def read_head(path: Path) -> bytes:
    """The first kilobyte of a file."""
    with path.open("rb") as stream:
        return stream.read(1024)
