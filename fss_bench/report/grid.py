"""Tables of the leaderboard as plain cells, for the formats that papers and pages take."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fss_bench.leaderboard import COLUMNS, Row
from fss_bench.published import PublishedRow

FOLDS = ("fold0", "fold1", "fold2", "fold3")


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table: its text, and `best`, `second` or no mark."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Grid:
    """One table: rows that are ranked together, or the published ones of a setting.

    Attributes:
        title: what was evaluated.
        detail: on which episodes.
        columns: their names.
        rows: cells, best row first.
        numbers: how many of the last columns are numbers, to be aligned at the right.
    """

    title: str
    detail: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int


def grids(rows: Sequence[Row], published: Sequence[PublishedRow] = ()) -> list[Grid]:
    """A table a comparable group; published ones follow the first of their setting, or are last."""
    reported = {key: list(group) for key, group in groupby(published, lambda row: row.group)}
    found = []
    for group in groups(rows):
        found.append(_measured(group))
        if beside := reported.pop(setting(group[0]), None):
            found.append(_published(beside))
    return [*found, *map(_published, reported.values())]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows that are ranked together, in their order."""
    return [list(group) for _, group in groupby(rows, lambda row: row.group)]


def setting(row: Row) -> tuple[str, str, int, int]:
    """What a measured row shares with the published ones beside it."""
    cell = named_cells(row)
    return cell["dataset"], cell["protocol"], int(cell["ways"]), int(cell["shots"])


def named_cells(row: Row | PublishedRow) -> dict[str, str]:
    """The cells of a row by column of the leaderboard."""
    return dict(zip(COLUMNS, row.cells(), strict=True))


def place(row: Row, group: Sequence[Row]) -> str:
    """The rank, with `=` where others share it."""
    if row.rank is None:
        return ""
    shared = sum(other.rank == row.rank for other in group) > 1
    return f"{row.rank}=" if shared else str(row.rank)


def titles(row: Row | PublishedRow) -> tuple[str, str]:
    """What was evaluated, and on which episodes."""
    cell = named_cells(row)
    title = (
        f"{cell['dataset']}, {cell['ways']}-way {cell['shots']}-shot, protocol {cell['protocol']}"
    )
    if isinstance(row, PublishedRow):
        return title, "published, episode lists unknown"
    runs = f", {row.repetitions} runs" if row.repetitions > 1 else ""
    digest = cell["episodes_sha256"][:12]
    return title, f"{cell['episodes']} episodes{runs} of {row.classes} classes, sha256 {digest}"


def _measured(group: Sequence[Row]) -> Grid:
    folds = FOLDS[: group[0].dataset_folds]
    scores = [*folds, "miou", "fb_iou"]
    cells = [named_cells(row) for row in group]
    marked = {name: _marked([cell[name] for cell in cells]) for name in scores}
    rows = [
        (
            Cell(place(row, group)),
            *(Cell(cell[name]) for name in ("method", "backbone", "weights")),
            *(marked[name][i] for name in (*folds, "miou")),
            Cell(f"{cell['miou_ci_low']}-{cell['miou_ci_high']}" if row.complete else ""),
            Cell("{}-{}".format(*row.rank_interval) if row.rank_interval else ""),
            marked["fb_iou"][i],
            Cell(cell["ms_per_episode"]),
        )
        for i, (row, cell) in enumerate(zip(group, cells, strict=True))
    ]
    numbers = (*folds, "mIoU", "95 % CI", "ranks", "FB-IoU", "ms")
    columns = ("#", "method", "backbone", "weights", *numbers)
    return Grid(*titles(group[0]), columns, tuple(rows), len(numbers))


def _published(group: Sequence[PublishedRow]) -> Grid:
    folds = FOLDS if any(row.folds_certainty for row in group) else ()
    cells = [named_cells(row) for row in group]
    rows = [
        (
            Cell(cell["rank"]),
            Cell(row.method),
            Cell(row.backbone),
            Cell(f"published, {row.certainties}"),
            Cell(row.where),
            *(Cell(cell[name]) for name in (*folds, "miou", "fb_iou")),
        )
        for row, cell in zip(group, cells, strict=True)
    ]
    numbers = (*folds, "mIoU", "FB-IoU")
    columns = ("#", "method", "backbone", "source", "read in", *numbers)
    return Grid(*titles(group[0]), columns, tuple(rows), len(numbers))


def _marked(texts: Sequence[str]) -> list[Cell]:
    """A column of scores: the highest is the best, the next lower one the second."""
    highest = sorted({float(text) for text in texts if text}, reverse=True)
    marks = dict(zip(highest, ("best", "second"), strict=False)) if len(texts) > 1 else {}
    return [Cell(text, marks.get(float(text), "") if text else "") for text in texts]
