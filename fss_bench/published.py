"""Numbers that papers report, read from a CSV: rows to be shown beside measured ones.

Nobody can show that two papers drew the same episodes, so these rows are never ranked with measured
rows. docs/published.md has the columns.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from fss_bench.errors import FssBenchError, one_line, shorten
from fss_bench.leaderboard import COLUMNS

FOLDS = ("fold0", "fold1", "fold2", "fold3")
VALUES = {"certainty": ("miou",), "folds_certainty": FOLDS, "fb_certainty": ("fb_iou",)}
"""Column of a certainty -> the columns that it is about."""
CERTAINTIES = ("verified", "secondary", "unverified")
REQUIRED = ("method", "backbone", "dataset", "protocol", "ways", "shots", "paper", "where")
FILE_COLUMNS = (
    "method,backbone,dataset,protocol,ways,shots,fold0,fold1,fold2,fold3,miou,fb_iou,certainty,"
    "folds_certainty,fb_certainty,paper,where,notes"
).split(",")


@dataclass(frozen=True)
class PublishedRow:
    """What one source reports of one method on one setting.

    Attributes:
        method: name, as its paper has it.
        backbone: name, or `unstated`.
        dataset: registered name.
        protocol: a named protocol, or the name of a group that has none here.
        ways: classes an episode.
        shots: supports a class.
        folds: mIoU in percent a fold; None where it is not reported.
        miou: the reported mean in percent, if there is one.
        fb_iou: FB-IoU in percent, if there is one.
        certainty: of `miou`: one of CERTAINTIES, or empty without a value.
        folds_certainty: of `folds`, likewise.
        fb_certainty: of `fb_iou`, likewise.
        paper: short reference.
        where: where the numbers were read.
        notes: anything else.
        rank: in its group; None without a mean or where that is unverified.
    """

    method: str
    backbone: str
    dataset: str
    protocol: str
    ways: int
    shots: int
    folds: tuple[float | None, ...]
    miou: float | None
    fb_iou: float | None
    certainty: str
    folds_certainty: str
    fb_certainty: str
    paper: str
    where: str
    notes: str = ""
    rank: int | None = field(default=None, compare=False)

    @property
    def group(self) -> tuple[str, str, int, int]:
        """What rows of one table share: dataset, protocol, ways, shots."""
        return self.dataset, self.protocol, self.ways, self.shots

    @property
    def unverified(self) -> bool:
        """Whether its mean is from memory or, without a mean, all else is."""
        if self.certainty:
            return self.certainty == "unverified"
        return {self.folds_certainty, self.fb_certainty} - {""} == {"unverified"}

    @property
    def certainties(self) -> str:
        """How sure its values are: one word where all are alike, else which is what."""
        values = {
            "mean": self.certainty,
            "folds": self.folds_certainty,
            "FB-IoU": self.fb_certainty,
        }
        names: dict[str, list[str]] = {}
        for name, certainty in values.items():
            names.setdefault(certainty, []).append(name)
        names.pop("", None)
        if len(names) == 1:
            return next(iter(names))
        return "; ".join(f"{', '.join(which)} {certainty}" for certainty, which in names.items())

    def cells(self) -> list[str]:
        """Values in the order of the leaderboard's COLUMNS; what papers do not tell is empty."""
        known = {
            "rank": "" if self.rank is None else str(self.rank),
            "method": self.method,
            "backbone": self.backbone,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "ways": str(self.ways),
            "shots": str(self.shots),
            **{name: _percent(iou) for name, iou in zip(FOLDS, self.folds, strict=True)},
            "miou": _percent(self.miou),
            "fb_iou": _percent(self.fb_iou),
            "source": "published",
        }
        return [known.get(column, "") for column in COLUMNS]


def load_published(file: Path | str) -> list[PublishedRow]:
    """Read a CSV of published results; grouped and ranked by `ranked`.

    Raises:
        FssBenchError: no such file, or a line that is not as docs/published.md says.
    """
    return ranked(_read(Path(file)))


def ranked(rows: Iterable[PublishedRow]) -> list[PublishedRow]:
    """Rows by setting, best first in each group; what is unverified is last and has no rank.

    Of several sources for one method and backbone the surest has the rank.
    """
    groups: dict[tuple[str, str, int, int], list[PublishedRow]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return [row for _, group in sorted(groups.items()) for row in _ranked(group)]


def _ranked(group: Sequence[PublishedRow]) -> list[PublishedRow]:
    ordered = sorted(
        group,
        key=lambda r: (
            *(r.unverified, r.miou is None, -(r.miou or 0.0)),
            *(r.method, r.backbone, r.where, r.notes),
        ),
    )
    surest: dict[tuple[str, str], PublishedRow] = {}
    for row in sorted(ordered, key=lambda r: CERTAINTIES.index(r.certainty or "unverified")):
        surest.setdefault((row.method, row.backbone), row)
    counted = [
        row
        for row in ordered
        if row is surest[row.method, row.backbone] and not row.unverified and row.miou is not None
    ]
    ranks = {id(row): rank for rank, row in enumerate(counted, start=1)}
    return [replace(row, rank=ranks.get(id(row))) for row in ordered]


def _read(file: Path) -> Iterator[PublishedRow]:
    """The rows in the order of the file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            _check_header(file, reader.fieldnames or ())
            for cells in reader:
                yield _Line(file, reader.line_num, cells).row()
    except csv.Error as error:
        place = (
            f"{file}, line {reader.reader.line_num}"  # its own number stops at the last good line
        )
        raise FssBenchError(f"{place}: {error}: mend the quotes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FssBenchError(
            f"cannot read {file} ({one_line(error)}): give a CSV file as docs/published.md has it"
        ) from error


def _check_header(file: Path, columns: Sequence[str]) -> None:
    if missing := [name for name in FILE_COLUMNS if name not in columns]:
        raise FssBenchError(f"{file}, line 1: no column {', '.join(missing)}: add it")
    unknown = [name for name in columns if name not in FILE_COLUMNS]
    if unknown or len(columns) > len(FILE_COLUMNS):
        names = ", ".join(map(repr, unknown)) or "given twice"
        raise FssBenchError(
            f"{file}, line 1: column {names}: the columns are {','.join(FILE_COLUMNS)}"
        )


class _Line:
    """One line of the file: reads it, and names file and line in what it refuses."""

    def __init__(self, file: Path, number: int, cells: Mapping[str | None, str | None]) -> None:
        self._place = f"{file}, line {number}"
        if None in cells or None in cells.values():
            self._refuse(f"it has not {len(FILE_COLUMNS)} cells: quote cells with commas in them")
        self._cells = {str(name): str(text).strip() for name, text in cells.items()}

    def row(self) -> PublishedRow:
        """The line as a row.

        Raises:
            FssBenchError: a cell is not what its column asks for.
        """
        for name in REQUIRED:
            if not self._cells[name]:
                self._refuse(f"{name} is empty: fill it in")
        for name, columns in VALUES.items():
            self._check_certainty(name, columns)
        if not any(self._cells[name] for name in VALUES):
            self._refuse("it has no number: give miou, a fold or fb_iou, or delete the line")
        texts = self._cells
        return PublishedRow(
            method=texts["method"],
            backbone=texts["backbone"],
            dataset=texts["dataset"],
            protocol=texts["protocol"],
            ways=self._count("ways"),
            shots=self._count("shots"),
            folds=tuple(map(self._score, FOLDS)),
            miou=self._score("miou"),
            fb_iou=self._score("fb_iou"),
            certainty=texts["certainty"],
            folds_certainty=texts["folds_certainty"],
            fb_certainty=texts["fb_certainty"],
            paper=texts["paper"],
            where=texts["where"],
            notes=texts["notes"],
        )

    def _check_certainty(self, name: str, columns: Sequence[str]) -> None:
        """A value has a certainty, and no value has none."""
        certainty = self._cells[name]
        given = [f"{column} {self._cells[column]}" for column in columns if self._cells[column]]
        if certainty and certainty not in CERTAINTIES:
            self._refuse(f"{name} {certainty!r}: it must be one of {', '.join(CERTAINTIES)}")
        if given and not certainty:
            self._refuse(f"{shorten(given)} without {name}: give one of {', '.join(CERTAINTIES)}")
        if certainty and not given:
            self._refuse(f"{name} {certainty} without {shorten(columns)}: leave it empty")

    def _score(self, name: str) -> float | None:
        text = self._cells[name]
        if not text:
            return None
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) > 100:
            self._refuse(f"{name} {text!r}: it must be a number of percent from 0 to 100")
        return float(text)

    def _count(self, name: str) -> int:
        text = self._cells[name]
        if not re.fullmatch("[1-9][0-9]{0,3}", text):
            self._refuse(f"{name} {text!r}: it must be a whole number from 1 to 9999")
        return int(text)

    def _refuse(self, problem: str) -> NoReturn:
        raise FssBenchError(f"{self._place}: {problem}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
