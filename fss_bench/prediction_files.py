"""Where predictions go: a PNG a query, never over what they are made from."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fss_bench.errors import FssBenchError
from fss_bench.images import SUFFIXES


@dataclass(frozen=True)
class Target:
    """Where the prediction of a query goes.

    Attributes:
        query: the picture.
        labels: the PNG of way numbers.
        overlay: the PNG of the picture with them, if it is asked for.
    """

    query: Path
    labels: Path
    overlay: Path | None

    @property
    def files(self) -> list[Path]:
        """All that is written."""
        return [self.labels, *([self.overlay] if self.overlay else [])]


def find_queries(given: Sequence[Path]) -> list[Path]:
    """Files, and the pictures in folders, in their order; each once.

    Raises:
        FssBenchError: a folder without pictures, or none given.
    """
    found: list[Path] = []
    for path in given:
        found += _pictures_in(path) if path.is_dir() else [path]
    if not found:
        raise FssBenchError("no query: give --query FILE or FOLDER, once or more")
    return list(dict.fromkeys(found))


def plan_targets(
    queries: Sequence[Path], output: Path, in_folder: bool, overlay: bool, inputs: Sequence[Path]
) -> list[Target]:
    """Where predictions go.

    Args:
        queries: the pictures.
        output: a PNG, or a folder.
        in_folder: whether it is a folder even if it is not there yet.
        overlay: whether overlays are written too.
        inputs: files that must not be written over, besides the queries.

    Raises:
        FssBenchError: two queries would go to one file, an input would be written over, or the
            place cannot be written to.
    """
    in_folder = in_folder or output.is_dir()
    if in_folder and output.exists() and not output.is_dir():
        raise FssBenchError(f"-o {output} is a file: several queries need a folder")
    if not in_folder and output.suffix.lower() != ".png":
        raise FssBenchError(f"-o {output}: predictions are PNG files: give it a name in .png")
    targets = [
        _target(query, output / f"{query.stem}.png" if in_folder else output, overlay)
        for query in queries
    ]
    _check_apart(targets, [*queries, *inputs])
    _check_writable(targets[0].labels.parent)
    for file in (file for target in targets for file in target.files):
        if file.is_dir():
            raise FssBenchError(f"cannot write {file}, which is a folder: choose another -o")
    return targets


def _pictures_in(folder: Path) -> Iterator[Path]:
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and f.is_file()]
    if not files:
        raise FssBenchError(
            f"--query {folder} holds no pictures ({', '.join(SUFFIXES)}): give another folder"
        )
    yield from files


def _target(query: Path, labels: Path, overlay: bool) -> Target:
    beside = labels.with_name(f"{labels.stem}-overlay.png")
    return Target(query, labels, beside if overlay else None)


def _check_apart(targets: Sequence[Target], inputs: Sequence[Path]) -> None:
    read = {path.resolve(): path for path in inputs}
    taken: dict[Path, Path] = {}
    for target in targets:
        for file in target.files:
            place = file.resolve()
            if place in read:
                raise FssBenchError(
                    f"{file} is among the inputs ({read[place]}) and would be written over: choose "
                    "another -o"
                )
            if place in taken:
                raise FssBenchError(
                    f"{taken[place]} and {target.query} would both go to {file}: rename one, or "
                    "segment them in two commands"
                )
            taken[place] = target.query


def _check_writable(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise FssBenchError(f"cannot write to {folder}: choose another -o")
