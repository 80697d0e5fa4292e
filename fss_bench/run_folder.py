"""The folder of a long run: its lock, its log, its record."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from fss_bench.errors import FssBenchError, ResultsError, one_line
from fss_bench.files import write_whole


@dataclass(frozen=True)
class RunFolder:
    """The files that every long run has.

    Attributes:
        root: the folder.
        doing: what is done in it, for messages.
        record_name: the file name of the record.
    """

    root: Path
    doing: str
    record_name: str

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.root / "log.jsonl"

    @property
    def curves(self) -> Path:
        """The plot; written at the end."""
        return self.root / "curves.png"

    @property
    def record(self) -> Path:
        """The resolved configuration and the final figures."""
        return self.root / self.record_name

    def lock(self) -> FileLock:
        """Make the folder and lock it.

        Raises:
            ResultsError: it cannot be written, or another process is at work in it.
        """
        lock = FileLock(self.root / ".lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ResultsError(
                f"another process is {self.doing} in {self.root}: wait for it to end, or choose "
                "another --output"
            ) from None
        except OSError as error:
            raise self.cannot_write(error) from error
        return lock

    def remove(self, files: Iterable[Path]) -> None:
        """Remove what an earlier run left.

        Raises:
            ResultsError: it cannot be removed.
        """
        try:
            for file in files:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise self.cannot_write(error) from error

    def append(self, *entries: Mapping[str, Any]) -> int:
        """Add lines to the log; returns its length in bytes.

        Raises:
            ResultsError: it cannot be written.
        """
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        try:
            with self.log.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())  # a checkpoint counts on what was logged before it
                return file.tell()
        except OSError as error:
            raise self.cannot_write(error) from error

    def cut_log(self, length: int) -> None:
        """Drop what was logged after the checkpoint.

        Raises:
            ResultsError: lines from before it are missing.
        """
        try:
            with self.log.open("r+b" if length else "ab") as file:
                there = file.seek(0, os.SEEK_END)
                if there < length:
                    raise OSError("it is shorter than the checkpoint says")
                if there > length:
                    file.truncate(length)
        except OSError as error:
            raise ResultsError(
                f"{self.log} cannot be taken up ({one_line(error)}): put it back, or start over "
                "with --no-resume"
            ) from error

    def entries(self) -> list[dict[str, Any]]:
        """The log, without lines that cannot be read."""
        found, text = [], ""
        with suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [entry for entry in found if isinstance(entry, dict)]

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write the record.

        Raises:
            ResultsError: it cannot be written.
        """
        self.write(self.record, (json.dumps(record, indent=2) + "\n").encode())

    def write(self, file: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
        """Write a file whole and onto the disk, or leave the one before as it is.

        Args:
            file: in a folder of this run.
            content: what it holds, or what writes that.

        Raises:
            ResultsError: it cannot be written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
            raise self.cannot_write(error) from error

    def cannot_write(self, error: Exception) -> ResultsError:
        """What to tell the user of a failure to write."""
        return ResultsError(
            f"cannot write to {self.root} ({one_line(error)[:160]}): free space or mend its "
            "permissions, then run the same command again, which goes on from the last checkpoint"
        )


def check_same(there: Mapping[str, Any], here: Mapping[str, Any], root: Path) -> None:
    """Refuse to go on from a checkpoint of another configuration.

    Raises:
        FssBenchError: names the fields that differ.
    """
    old, new = _flat(there), _flat(here)
    changed = [
        f"{key} {old.get(key)} there and {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise FssBenchError(
            f"{root} holds a run of another configuration ({'; '.join(changed)}): choose "
            "another --output, give the options it was started with, or start over with "
            "--no-resume"
        )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON has it, its recipe among the rest."""
    plain = json.loads(json.dumps(config))
    return {**{k: v for k, v in plain.items() if k != "recipe"}, **plain.get("recipe", {})}
