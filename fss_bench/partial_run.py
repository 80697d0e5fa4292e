"""Unfinished work of a run: episode records as they come, so that nothing is done twice."""

import json
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fss_bench.errors import ResultsError, one_line
from fss_bench.files import write_whole

SYNC_SECONDS = 1.0
"""How often records are forced through to the disk; a killed process loses none of them."""


class PartialRun:
    """Episode records of a run that is not finished, appended as they come.

    Used as a context, which holds a lock: two processes never work on the same run.

    Args:
        folder: where they are kept; removed by `discard`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictions = folder / "predictions"
        self._journal = folder / "episodes.jsonl"
        self._lock = FileLock(folder.with_suffix(".lock"))
        self._synced = 0.0

    def __enter__(self) -> "PartialRun":
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResultsError(
                f"another process is working on run {self.folder.name}: wait for it to end"
            ) from None
        except OSError as error:
            raise self._cannot_write(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def rows(self, with_predictions: bool = False) -> list[dict[str, Any]]:
        """Whole records written so far; what follows a damaged one is dropped from the file.

        Args:
            with_predictions: return nothing unless every record has its prediction.

        Raises:
            ResultsError: they cannot be read, or what is damaged cannot be dropped.
        """
        if not self._journal.is_file():
            return []
        try:
            content = self._journal.read_bytes()
            rows, length = _whole_records(content)
            if length != len(content):
                write_whole(self._journal, content[:length])
        except OSError as error:
            raise self._cannot_write(error) from error
        if with_predictions and any(
            not (self.predictions / f"{row['index']}.png").is_file() for row in rows
        ):
            return []
        return rows

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Add records; the system has them when this returns, the disk a second later at most.

        Raises:
            ResultsError: they could not be written.
        """
        lines = b"".join(map(_line, rows))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._journal.open("ab") as file:
                file.write(lines)
                file.flush()
                if time.monotonic() - self._synced > SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> ResultsError:
        return ResultsError(
            f"cannot write to {self.folder} ({one_line(error)}): free space or mend its "
            "permissions, then run the same command again, which goes on from here"
        )

    def discard(self) -> None:
        """Remove all of it but the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _line(row: dict[str, Any]) -> bytes:
    """A record as JSON after the CRC-32 of it: a digit that changes on the disk is seen."""
    text = json.dumps(row).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _whole_records(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records before the first that is cut off, damaged or there twice, and their bytes."""
    rows, length, seen = [], 0, set()
    for line in content.splitlines(keepends=True):
        text = line[9:-1]
        if not text or line != b"%08x %s\n" % (zlib.crc32(text), text):
            break
        row = json.loads(text)
        if row["index"] in seen:
            break
        seen.add(row["index"])
        rows.append(row)
        length += len(line)
    return rows, length
