"""The images of a pretraining run: found in folders, checked one by one, decoded upright."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fss_bench.errors import DatasetError, one_line, shorten
from fss_bench.files import write_text
from fss_bench.images import FORMATS, read_image
from fss_bench.workers import quiet_worker

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LARGEST = 89_478_485
"""Pixels: Pillow's own limit, beyond which it warns of a decompression bomb."""
CHECKED_TOGETHER = 32
ORIENTATION = 0x0112
"""The EXIF tag."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the picture upright (EXIF 2.32, section 4.6.4)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes:
        name: POSIX path below the folder it was found in.
        path: where it is.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Checked:
    """What a check found of one file: the blake2b of its bytes, or why it cannot be used."""

    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Pictures:
    """The images that can be used, and those that cannot.

    Attributes:
        usable: in the order of folders, then of names.
        skipped: name and reason of each file that was left out.
        sha256: over names and contents of the usable ones.
    """

    usable: tuple[Picture, ...]
    skipped: tuple[tuple[str, str], ...]
    sha256: str


def find_pictures(folders: Sequence[Path]) -> list[Picture]:
    """Image files below folders, sorted by name within each; a file met twice counts once.

    Hidden files and folders are left out, and links that lead back. Of two files with one stem
    beside each other the JPEG is the photograph and the PNG its mask, which is left out.

    Raises:
        DatasetError: no such folder, or no image in it.
    """
    found: list[Picture] = []
    met: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"--images {folder}: no such folder")
        pictures = list_pictures(folder)
        if not pictures:
            raise DatasetError(
                f"--images {folder}: no image in it ({', '.join(SUFFIXES)}): give the folder that "
                "holds them"
            )
        for picture in pictures:
            real = os.path.realpath(picture.path)  # which bears links that lead nowhere
            if real not in met:
                met.add(real)
                found.append(picture)
    return found


def list_pictures(folder: Path) -> list[Picture]:
    """Image files below a folder, sorted by name; see `find_pictures` for what is left out."""
    files = [Picture(file.relative_to(folder).as_posix(), file) for file in _photographs(folder)]
    return sorted(files, key=lambda picture: picture.name)


def check_pictures(
    found: Sequence[Picture],
    workers: int = 0,
    progress: Progress | None = None,
    known: Sequence[Checked] | None = None,
) -> tuple[Pictures, list[Checked]]:
    """Decode every image once, so that none fails in the middle of a run.

    Args:
        found: the files.
        workers: processes that decode.
        progress: called with files done and files in all.
        known: what an earlier check of the same files found.

    Returns:
        The images, and what was found of each file.
    """
    checks = list(known) if known is not None else _check_all(found, workers, progress)
    pairs = list(zip(found, checks, strict=True))
    usable = tuple(picture for picture, check in pairs if not check.problem)
    skipped = tuple((picture.name, check.problem) for picture, check in pairs if check.problem)
    digest = hashlib.sha256()
    for picture, check in pairs:
        if not check.problem:
            digest.update(f"{picture.name}\0{check.digest}\0".encode("utf-8", "surrogateescape"))
    return Pictures(usable, skipped, digest.hexdigest()), checks


def take_pictures(
    folders: Sequence[Path], known: Path, workers: int = 0, progress: Progress | None = None
) -> Pictures:
    """Find and check images; what was found stays in a file, for the next time.

    Args:
        folders: see `find_pictures`.
        known: that file. It counts as long as path, size and time of every image are the same.
        workers, progress: see `check_pictures`.

    Raises:
        DatasetError: see `find_pictures`.
    """
    found = find_pictures(folders)
    key = hashlib.sha256()
    for picture in found:
        line = f"{picture.path}\0{_stamp(picture.path)}\0"
        key.update(line.encode("utf-8", "surrogateescape"))
    before = _read_known(known, key.hexdigest(), len(found))
    pictures, checks = check_pictures(found, workers, progress, before)
    if before is None:
        pairs = [[check.digest, check.problem] for check in checks]
        with suppress(OSError):  # it saves time, no more
            write_text(known, json.dumps({"files": key.hexdigest(), "checks": pairs}))
    return pictures


def _stamp(path: Path) -> str:
    """Size and time of a file; empty where there is none."""
    try:
        status = path.stat()
    except (OSError, RuntimeError):  # the latter for a link to itself
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_picture(path: Path) -> Image.Image:
    """A photograph as RGB, turned upright as its EXIF data say.

    Raises:
        DatasetError: missing, truncated, not an image, larger than `LARGEST`, or one that Pillow
            fails at in any other way.
    """
    try:
        return _read_upright(path)
    except DatasetError:
        raise
    except Exception as error:  # of any kind: Pillow's decoders meet strangers' files here
        raise DatasetError(f"image {path} cannot be read ({one_line(error)[:160]})") from error


def _read_upright(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd EXIF data and palettes, once an image and worker
        orientation = _look(path)
        picture = Image.fromarray(read_image(path))
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def first_problem(items: Iterable[object]) -> str | None:
    """Of images that were read, or why they could not be: the first such reason."""
    return next((item for item in items if isinstance(item, str)), None)


def note_skipped(pictures: Pictures) -> str | None:
    """One line about the files that were left out; None if there are none."""
    if not pictures.skipped:
        return None
    names = shorten([repr(name)[1:-1] for name, _ in pictures.skipped])
    total = len(pictures.skipped) + len(pictures.usable)
    return f"{len(pictures.skipped)} of {total} images cannot be used and are skipped: {names}"


def _read_known(file: Path, key: str, count: int) -> list[Checked] | None:
    """What was found of these very files before, or None."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        checks = [Checked(digest, problem) for digest, problem in content["checks"]]
        return checks if content["files"] == key and len(checks) == count else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _photographs(folder: Path) -> Iterator[Path]:
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = [Path(place, name) for name in files if _is_image(name)]
        jpegs = {file.stem for file in here if file.suffix.lower() in (".jpg", ".jpeg")}
        yield from (f for f in here if f.suffix.lower() != ".png" or f.stem not in jpegs)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _look(path: Path) -> int:
    """The EXIF orientation of an image of bearable size."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                raise DatasetError(
                    f"image {path} is too large ({picture.width} x {picture.height} px): shrink "
                    f"it to at most {LARGEST} px"
                )
            return int(picture.getexif().get(ORIENTATION, 1))
    except Image.DecompressionBombError as error:
        raise DatasetError(f"image {path} is too large ({one_line(error)})") from error
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"image {path} cannot be read: by its content it is none of {', '.join(FORMATS)}"
        ) from error
    except DatasetError:
        raise
    except Exception:
        return 1  # read_image says better what is wrong


class _Checks(TorchDataset[Checked]):
    """The check of each of a list of files."""

    def __init__(self, found: Sequence[Picture]) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> Checked:
        path = self.found[i].path
        try:
            read_picture(path)
            return Checked(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest())
        except Exception as error:  # DatasetError, or no memory for the file's bytes
            return Checked(problem=one_line(error))


def _check_all(found: Sequence[Picture], workers: int, progress: Progress | None) -> list[Checked]:
    loader: Iterable[Any] = DataLoader(
        _Checks(found),
        batch_size=CHECKED_TOGETHER,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=quiet_worker,
    )
    checks: list[Checked] = []
    for some in loader:
        checks += some
        if progress is not None:
            progress(len(checks), len(found))
    return checks
