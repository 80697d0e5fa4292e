"""The index: which image holds how many pixels of which class.

Built once, in parallel, and cached as Parquet under the user's cache folder, keyed by a fingerprint
of the tree and the format version. Two processes that want the same index build it once. What is
cached is read when it is asked for: a test needs no row of the training images.
"""

import hashlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.errors import DatasetError
from fss_bench.split_rows import CODES, COLUMNS, SplitRows, read_rows, unreadable

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 5
IGNORE_ROW = -1
"""Class id of the row that counts ignored pixels; 0 is the row of the background."""
PARALLEL_FROM = 2000
"""Smaller trees are indexed in this process: starting others would take longer."""
ROW_GROUP = 1 << 16
"""Rows of the cached table that can be read without the others."""
SPLITS = ("test", "train")
"""In the order in which an image is looked for: most runs need no row of the training images."""


@dataclass(frozen=True)
class ImageCounts:
    """What the index keeps of one image.

    Attributes:
        height, width: of the mask.
        pixels: class id -> pixels; 0 background, `IGNORE_ROW` ignored.
        digest: hash of the masks themselves.
        rles: class id -> compressed run-length code of its mask, where the dataset keeps them.
    """

    height: int
    width: int
    pixels: dict[int, int]
    digest: str
    rles: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexSource:
    """What an index is made from.

    Attributes:
        key: dataset and options that change its masks.
        files: files whose change makes the index stale.
        images: lists the (split, image) pairs; called only to build.
        count: counts one image; called only to build, perhaps in another process.
        facts: numbers about the source to keep with the index; called only to build.
    """

    key: str
    files: Sequence[Path]
    images: Callable[[], Sequence[tuple[str, str]]]
    count: Callable[[str], ImageCounts]
    facts: Callable[[], dict[str, Any]]

    def stamp(self) -> str:
        """Hex sha256 over the key and every file's path, size and time of change."""
        digest = hashlib.sha256(f"{FORMAT_VERSION}\n{self.key}\n".encode())
        for file in self.files:
            try:
                status = file.stat()
            except OSError as error:
                raise DatasetError(f"{file} is missing: restore it") from error
            digest.update(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


class Index:
    """Pixel counts of every image.

    Args:
        table: `COLUMNS` and `CODES`, one row an (image, class), one for the background (0), one for
            ignored pixels (`IGNORE_ROW`); or the Parquet file of it, of which a split is read when
            it is first asked for.
        codes: the run-length codes of all rows one after the other, or the file that holds them.
        attrs: facts and fingerprint; by default those of the table.
    """

    def __init__(
        self,
        table: "pd.DataFrame | Path",
        codes: Path | bytes = b"",
        attrs: Mapping[Any, Any] | None = None,
    ) -> None:
        self.file = table if isinstance(table, Path) else None
        self._table, self._codes, self._splits = table, codes, dict[str, SplitRows]()
        self._attrs = attrs if attrs is not None else getattr(table, "attrs", {})

    @cached_property
    def table(self) -> "pd.DataFrame":
        """All rows."""
        if isinstance(self._table, Path):
            return read_rows(self._table)
        return self._table

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of counts and masks: equal trees have equal ones on every machine."""
        return str(self._attrs.get("fingerprint") or _fingerprint(self.table))

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers about the source, as `IndexSource.facts` gave them."""
        return dict(self._attrs.get("facts", {}))

    def images(self, split: str) -> list[str]:
        """A split's images in the order of the source."""
        return list(self._split(split).places)

    def pools(
        self,
        split: str,
        classes: Iterable[int],
        min_pixels: int,
        without: Iterable[int] = (),
    ) -> dict[int, list[str]]:
        """Qualifying images of each class, sorted.

        Args:
            split: `"train"` or `"test"`.
            classes: class ids to list.
            min_pixels: an image qualifies if the class covers this many pixels in it.
            without: images with any pixel of these classes are left out.
        """
        rows = self._split(split).there
        dropped = set(rows.loc[rows["class_id"].isin(list(without)), "image"])
        rows = rows[(rows["pixels"] >= min_pixels) & ~rows["image"].isin(list(dropped))]
        found = {int(str(c)): sorted(g) for c, g in rows.groupby("class_id")["image"]}
        return {c: found.get(c, []) for c in classes}

    def class_pixels(self, split: str, classes: Iterable[int]) -> dict[str, dict[int, int]]:
        """Image -> pixels of each of these classes in it; only images and classes that have some.

        Images in the order of the source.
        """
        rows = self._split(split).there
        rows = rows[rows["class_id"].isin(list(classes))]
        found: dict[str, dict[int, int]] = {}
        columns = (rows[name].tolist() for name in ("image", "class_id", "pixels"))
        for image, class_id, pixels in zip(*columns, strict=True):
            found.setdefault(image, {})[class_id] = pixels
        return found

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Image -> height and width of its mask."""
        return _Sizes(self)

    def rle(self, image: str, class_id: int) -> bytes | None:
        """Run-length code of a class's mask, read when it is asked for; None where there is none.

        Raises:
            DatasetError: the file of the codes is gone.
        """
        place = self.split_of(image).code_place(image, class_id)
        return self._code(*place) if place else None

    def split_of(self, image: str) -> SplitRows:
        """The rows of a split that the image is in; those of another are the same.

        Raises:
            KeyError: no such image.
        """
        for name in (*self._splits, *SPLITS):
            if image in (split := self._split(name)).places:
                return split
        raise KeyError(image)

    def _split(self, name: str) -> SplitRows:
        if name not in self._splits:
            if isinstance(self._table, Path):
                rows = read_rows(self._table, name)
            else:
                rows = self._table[self._table["split"] == name]
            self._splits[name] = SplitRows(rows)
        return self._splits[name]

    def _code(self, start: int, size: int) -> bytes:
        if isinstance(self._codes, bytes):
            return self._codes[start : start + size]
        try:
            with self._codes.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise unreadable(self._codes, error) from error


class _Sizes(Mapping[str, tuple[int, int]]):
    """Sizes of masks, looked up where the index has them."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __getitem__(self, image: str) -> tuple[int, int]:
        return self._index.split_of(image).size(image)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(i for split in SPLITS for i in self._index.images(split)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def label_counts(labels: NDArray[np.integer[Any]]) -> dict[int, int]:
    """Pixels by value of a label map, with 255 in an 8-bit map counted as `IGNORE_ROW`."""
    if labels.dtype == np.uint8:
        counts = np.bincount(labels.ravel(), minlength=256)
        found = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
        if 255 in found:
            found[IGNORE_ROW] = found.pop(255)
        return found
    values, sizes = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, sizes, strict=True)}


def mask_digest(*parts: bytes) -> str:
    """Short hash of a mask's bytes, which the index keeps beside the counts."""
    return hashlib.blake2b(b"/".join(parts), digest_size=8).hexdigest()


def cache_folder() -> Path:
    """Where indexes are kept: `$FSS_BENCH_CACHE`, or the platform's cache folder for this user."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("FSS_BENCH_CACHE") or user_cache_path("fss_bench"))


def cached_index(source: IndexSource, rebuild: bool = False) -> Index:
    """The index of a tree: read from the cache, or built under a lock and cached.

    A cache folder that cannot be written costs a warning and a rebuild next time, not the run.
    """
    from filelock import FileLock

    file = cache_folder() / "index" / f"{source.stamp()[:32]}.parquet"
    found = None if rebuild else _read(file)
    if found:  # no lock needed: it is complete, and the folder may be another user's
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        _warn_not_cached(file, error)
        return Index(*build_table(source))
    try:
        found = None if rebuild else _read(file)
        return found or _build_and_keep(source, file)
    finally:
        lock.release()


def _build_and_keep(source: IndexSource, file: Path) -> Index:
    table, codes = build_table(source)
    try:
        _write(table, codes, file)
    except OSError as error:
        _warn_not_cached(file, error)
        return Index(table, codes)
    return Index(file, _code_file(file), table.attrs)


def _warn_not_cached(file: Path, error: OSError) -> None:
    warnings.warn(f"index not cached: cannot write {file.parent} ({error})", stacklevel=3)


def _code_file(file: Path) -> Path:
    return file.with_suffix(".codes")


def _write(table: "pd.DataFrame", codes: bytes, file: Path) -> None:
    """Both files; the table comes last, so that whoever finds it finds the codes."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        if codes:
            temporary.write_bytes(codes)
            temporary.replace(_code_file(file))
        table.to_parquet(temporary, index=False, row_group_size=ROW_GROUP, write_page_checksum=True)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path) -> Index | None:
    """The cached index, or None if there is none that can be read. Reads none of its rows."""
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        attrs = pd.read_parquet(file, columns=[]).attrs
        size = attrs.get("code_bytes", 0)
        if size and _code_file(file).stat().st_size != size:
            return None
    except (OSError, ValueError, ArrowException):
        return None
    return Index(file, _code_file(file), attrs)


def build_table(source: IndexSource) -> tuple["pd.DataFrame", bytes]:
    """Count the pixels of every image, in parallel when there are many, with a progress bar.

    Returns:
        What `Index` is made of.
    """
    import pandas as pd

    pairs = source.images()
    rows: list[tuple[Any, ...]] = []
    codes: list[bytes] = []
    for (split, image), found in zip(pairs, _counted(source, [i for _, i in pairs]), strict=True):
        for class_id, pixels in sorted(found.pixels.items()):
            codes.append(found.rles.get(class_id, b""))
            row = (split, image, found.height, found.width, class_id, pixels)
            rows.append((*row, found.digest, len(codes[-1])))
    start, size = CODES
    table = pd.DataFrame(rows, columns=[*COLUMNS, size])
    table = table.astype(
        {"split": "str", "image": "str", "class_id": "int32", "pixels": "int64", size: "int32"}
    )
    table[start] = table[size].astype("int64").cumsum() - table[size]
    table.attrs = {
        "facts": source.facts(),
        "fingerprint": _fingerprint(table),
        "code_bytes": sum(map(len, codes)),
    }
    return table, b"".join(codes)


def _fingerprint(table: "pd.DataFrame") -> str:
    ordered = table.sort_values(["split", "image", "class_id"])
    columns = [ordered[name].astype(str) for name in COLUMNS]
    lines = map(" ".join, zip(*columns, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _counted(source: IndexSource, images: Sequence[str]) -> Iterator[ImageCounts]:
    if len(images) < PARALLEL_FROM or (os.cpu_count() or 1) == 1:
        yield from map(source.count, images)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(
        mp_context=context, initializer=_start_worker, initargs=(source.count,)
    ) as pool:
        yield from _with_progress(pool.map(_count_in_worker, images, chunksize=64), len(images))


def _with_progress(rows: Iterable[ImageCounts], total: int) -> Iterable[ImageCounts]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, "indexing", total=total, disable=not sys.stderr.isatty(), console=console)


_worker_count: Callable[[str], ImageCounts]


def _start_worker(count: Callable[[str], ImageCounts]) -> None:
    """Hand the counting function to a worker process once, not with every image."""
    global _worker_count
    _worker_count = count


def _count_in_worker(image: str) -> ImageCounts:
    return _worker_count(image)
