"""From what a user names to the tree that a dataset reads: fetch, unpack, put in place."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fss_bench.archives import unpack
from fss_bench.downloading import Fetched, Progress, alone, check_space, download
from fss_bench.errors import FetchError, one_line, shorten
from fss_bench.file_checks import keep_record
from fss_bench.files import sync_names
from fss_bench.source import Source, SourceFile
from fss_bench.transfer import Patience

ARCHIVES = "archives"
"""Folder in the data root that keeps them; a mirror for other machines, or to be removed."""
SBD, AUGMENTED = "SBD", "SegmentationClassAug"
Watch = Callable[[str, str], AbstractContextManager[Progress]]
"""Shows progress of something, counted in `bytes` or `files`."""


@dataclass(frozen=True)
class Step:
    """A file to fetch, and where it goes.

    Attributes:
        source: what it belongs to.
        file: what is fetched.
        root: the data root.
    """

    source: Source
    file: SourceFile
    root: Path

    @property
    def target(self) -> Path:
        """The file's place."""
        if self.file.unpack:
            return self.root / ARCHIVES / self.file.name
        return self.root / (self.file.lands or self.file.name)

    @property
    def is_done(self) -> bool:
        """Whether all that is needed of an archive is in its place."""
        return bool(self.file.unpack) and not self.missing()

    @property
    def state(self) -> str:
        """What is there of it, in words."""
        if self.is_done:
            return "unpacked"
        if self.target.is_file():
            return "fetched"
        part = self.target.with_name(f"{self.target.name}.part")
        return f"{part.stat().st_size:,} bytes of it" if part.is_file() else "not here"

    def missing(self) -> list[str]:
        """Paths in the root that are not there yet."""
        if SBD in self.file.unpack.values() and (self.root / AUGMENTED).is_dir():
            return []
        wanted = [to for to in self.file.unpack.values() if to != "."]
        for name in self.file.listed_in:
            try:
                lines = (self.root / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                lines = name
            wanted += lines.split()
        return [to for to in wanted if not (self.root / to).exists()]


def plan(sources: Sequence[Source], data_root: Path | None = None) -> list[Step]:
    """The files of sources, in their order.

    Args:
        sources: what is wanted.
        data_root: one folder for all; by default each source has its own.
    """
    return [
        Step(source, file, data_root or Path(source.folder))
        for source in sources
        for file in source.files
    ]


def fetch(
    step: Step,
    watch: Watch,
    note: Callable[[str], None],
    mirror: str | None = None,
    patience: Patience | None = None,
) -> Fetched | None:
    """Fetch a file and put what it holds in place; what is there already is not made again.

    Args:
        step: the file.
        watch: shows progress.
        note: told what takes time.
        mirror, patience: see `download`.

    Returns:
        The file; None where all of it was unpacked before.

    Raises:
        FetchError: it cannot be had, read or written.
    """
    if step.is_done:
        return None
    with watch(step.file.name, "bytes") as progress:
        fetched = download(step.file, step.target, mirror, patience, progress, note)
    if step.file.unpack:
        with alone(step.target, note), _saying_failures(step.root):
            if not step.is_done:
                with watch(f"unpacking {step.file.name}", "files") as progress:
                    _unpack(step, progress)
            if missing := step.missing():
                raise FetchError(
                    f"{step.target} holds no {shorten(missing)}: get {step.file.name} as "
                    f"{step.file.page} says"
                )
            keep_record(step.file, step.target, fetched.sha256)
    return fetched


def finish(source: Source, root: Path, watch: Watch, note: Callable[[str], None]) -> None:
    """Make what a dataset needs and no archive holds: the label maps of SBD.

    Raises:
        FetchError: the root cannot be written.
        DatasetError: see `sbd.convert`.
    """
    target, sbd = root / AUGMENTED, root / SBD
    if source.dataset != "pascal5i" or target.is_dir():
        return
    from fss_bench.sbd import convert

    with alone(target, note):
        if not target.is_dir():
            with watch(f"converting {SBD}", "files") as progress:
                convert(sbd, root, target, progress)


def _unpack(step: Step, progress: Progress) -> None:
    """Into a folder of its own first, so that no place ever holds a part."""
    check_space(step.root, step.target.stat().st_size)  # packed it is smaller than unpacked
    # not beside the archive, which may be on another disk: from there nothing can be moved
    with _scratch(step.root / f".{step.file.name}.making") as folder:
        unpack(step.target, folder, list(step.file.unpack), progress)
        _sync()
        for inside, to in step.file.unpack.items():
            found = folder / inside
            if to == "." and found.is_dir():
                for child in sorted(found.iterdir()):
                    _move(child, step.root / child.name)
            elif found.exists():
                _move(found, step.root / to)


def _sync() -> None:
    """Have content on the disk before the names that promise it."""
    if hasattr(os, "sync"):
        os.sync()


def _move(made: Path, place: Path) -> None:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        made.rename(place)
        sync_names(place.parent)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new folder, removed in the end."""
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _saying_failures(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"cannot write {root} ({one_line(error)}): free space or choose another --data-root, "
            "then run the same command again"
        ) from error
