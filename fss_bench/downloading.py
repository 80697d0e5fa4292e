"""Fetch a published file: once for all processes, on from where it stopped, and checked."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fss_bench.errors import FetchError, one_line, printable
from fss_bench.file_checks import checks, is_checked_whole, keep_record, read_record, wrong
from fss_bench.files import sync_names
from fss_bench.part_file import Part, file_digests, read_head
from fss_bench.source import SourceFile
from fss_bench.transfer import Body, Patience, on_mirror, open_body
from fss_bench.web_opener import InterruptedTransferError, RefusedTransferError

Progress = Callable[[int, int | None], None]
MOST_ATTEMPTS = 1000


@dataclass(frozen=True)
class Fetched:
    """A file that is here.

    Attributes:
        path: of it.
        size: bytes.
        sha256: hex digits.
        checked: by what, in words; "" where nothing is published and this is the first fetch.
        is_new: it was fetched now.
    """

    path: Path
    size: int
    sha256: str
    checked: str
    is_new: bool


def download(
    file: SourceFile,
    target: Path,
    mirror: str | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Fetched:
    """Have a file at a place, with the bytes that were published.

    Args:
        file: what is wanted.
        target: where; what is unfinished is beside it, and so is the sha256 of a file that has
            none published. That of an archive is left to the caller, who learns whether it unpacks.
        mirror: where to look for it by its name instead: an address or a folder.
        patience: with the server.
        progress: called with bytes here and in all, if that is known.
        note: told what takes time.

    Raises:
        FetchError: it cannot be had, or other bytes came; these are not left behind.
    """
    with alone(target, note):
        if target.is_file():
            fetched = _check_there(file, target)
        else:
            place = on_mirror(mirror, file.name) if mirror else file.url
            fetched = _Download(file, target, place, patience or Patience(), progress).run()
        if not file.unpack:
            with _saying_failures(target):
                keep_record(file, target, fetched.sha256)
        return fetched


def by_hand(file: SourceFile, target: Path) -> str:
    """What to do where a file cannot be fetched."""
    return f"give --mirror, or get {file.name} by hand ({file.page}) and put it at {target}"


@dataclass(frozen=True)
class _Download:
    """One file from one place; see `download`."""

    file: SourceFile
    target: Path
    place: str | Path
    patience: Patience
    progress: Progress | None

    def run(self) -> Fetched:
        """Fetch, check, and put in place."""
        algorithms = {"sha256", *self.file.hashes}
        with Part(self.target, self.place, algorithms, is_checked_whole(self.file)) as part:
            resumed = part.size > 0
            self._fill(part)
            if resumed and self._problem(part) is not None:
                part.restart()  # what was here before may have been of another file
                self._fill(part)
            problem = self._problem(part)
            if problem is not None:
                raise self._dropped(part, problem)
            digests, size = part.digests(), part.size
            part.become(self.target)
        sync_names(self.target.parent)
        return Fetched(self.target, size, digests["sha256"], checks(self.file), True)

    def _problem(self, part: Part) -> str | None:
        record = read_record(self.target)
        return wrong(self.file, part.size, part.digests(), part.head(), record)

    def _dropped(self, part: Part, problem: str) -> FetchError:
        part.discard()
        cure = by_hand(self.file, self.target)
        return FetchError(f"{self.place} {problem}; what came was dropped: {cure}")

    def _fill(self, part: Part) -> None:
        """Attempt until all bytes are here."""
        most, vain, reason = part.size, 0, ""
        for _ in range(MOST_ATTEMPTS):
            try:
                self._attempt(part)
                return
            except InterruptedTransferError as error:
                reason = printable(str(error))
            except RefusedTransferError as error:
                raise FetchError(
                    f"{printable(str(error))}: {by_hand(self.file, self.target)}"
                ) from error
            vain = 0 if part.size > most else vain + 1
            most = max(most, part.size)
            if vain >= self.patience.tries:
                break
            time.sleep(min(self.patience.wait * 2**vain, self.patience.longest))
        total = self.file.size or part.total
        raise FetchError(
            f"{self.place} cannot be fetched ({reason}); {part.size:,} of "
            f"{f'{total:,}' if total else 'unknown'} bytes are here: run the same command again, "
            f"which goes on from there; or {by_hand(self.file, self.target)}"
        )

    def _attempt(self, part: Part) -> None:
        expected = self.file.size or part.total
        if not part.can_grow or (expected is not None and part.size > expected):
            part.restart()
        if expected is not None and part.size == expected:
            return
        with open_body(self.place, part.size, part.validator, self.patience) as body:
            if body is None or body.start == 0:
                part.restart()
            if body is None:
                raise InterruptedTransferError("the file has become shorter")
            self._take(part, body)

    def _take(self, part: Part, body: Body) -> None:
        size = self.file.size
        if size and body.total not in (None, size):
            raise self._dropped(
                part, f"has {body.total:,} bytes instead of {size:,} ({self.file.known_from})"
            )
        if body.start and not part.goes_on(body.validator, body.total):
            part.restart()
            raise InterruptedTransferError("the file has changed meanwhile")
        is_same = body.start or body.validator == part.validator != ""
        part.expect(body.validator, body.total or (part.total if is_same else None))
        total = size or part.total
        check_space(self.target.parent, (total or 0) - part.size)
        for chunk in body.chunks:
            part.append(chunk)
            if total is not None and part.size > total:
                raise self._dropped(part, f"sends more than the {total:,} bytes that it has")
            if self.progress:
                self.progress(part.size, total)
        if total is not None and part.size < total:
            raise InterruptedTransferError("the connection ended early")


def check_space(folder: Path, needed: int) -> None:
    """See that a folder has room for bytes.

    Raises:
        FetchError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"{folder} has room for {free:,} bytes, and {needed:,} are to come: free space, or "
            "choose another --data-root"
        )


def _check_there(file: SourceFile, target: Path) -> Fetched:
    """Check a file that was fetched before, or put here by hand."""
    try:
        size, head = target.stat().st_size, read_head(target)
        digests = file_digests(target, {"sha256", *file.hashes})
    except OSError as error:
        raise FetchError(
            f"{target} cannot be read ({one_line(error)}): mend its permissions"
        ) from error
    record = read_record(target)
    problem = wrong(file, size, digests, head, record)
    if problem is not None:
        raise FetchError(f"{target} {problem}: move it away, then run the same command again")
    checked = checks(file) or ("the record of its first fetch" if record else "")
    return Fetched(target, size, digests["sha256"], checked, False)


@contextmanager
def alone(target: Path, note: Callable[[str], None] | None) -> Iterator[None]:
    """No other process makes the same file meanwhile; told where that has to be waited for.

    Raises:
        FetchError: its folder cannot be written.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _saying_failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if note:
                note(f"another process is at {target}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _saying_failures(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"cannot write {target} ({one_line(error)}): choose another --data-root"
        ) from error
