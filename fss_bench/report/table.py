"""Rows as CSV and as terminal tables."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from fss_bench.leaderboard import COLUMNS, Row
from fss_bench.published import PublishedRow
from fss_bench.report.grid import FOLDS, groups, named_cells, place, titles
from fss_bench.seed_spread import seed_spreads


def to_csv(rows: Sequence[Row | PublishedRow]) -> str:
    """The leaderboard as CSV; the same runs give the same bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.cells() for row in rows)
    return buffer.getvalue()


def leaderboard_tables(rows: Sequence[Row]) -> list[Table]:
    """A table a comparable group: at most 80 columns wide."""
    return [_measured_table(group) for group in groups(rows)]


def _measured_table(group: Sequence[Row]) -> Table:
    table = _new_table(group[0])
    for row in group:
        cell = named_cells(row)
        low, high = cell["miou_ci_low"], cell["miou_ci_high"]
        table.add_row(
            place(row, group),
            Text(f"{cell['method']}\n{cell['backbone']}\n{cell['weights']}"),  # no markup
            *(cell[fold] for fold in _fold_columns(row)),
            _with_spread(row, f"{cell['miou']}\n{low}-{high}"),
            cell["fb_iou"],
            cell["ms_per_episode"],
        )
    table.caption, table.caption_justify = _caption(group), "left"
    return table


def _caption(group: Sequence[Row]) -> Text | None:
    """What shared ranks mean, and how far trainings with other seeds lie apart."""
    lines = []
    if any(place(row, group).endswith("=") for row in group):
        lines.append("= shared: these episodes do not tell the rows apart")
    lines += [
        f"{spread.method}: {len(spread.seeds)} training seeds, mIoU {100 * spread.mean:.2f}, "
        f"sd {100 * spread.sd:.2f}"
        for spread in seed_spreads(group)
    ]
    return Text("\n".join(lines)) if lines else None


def _with_spread(row: Row, text: str) -> str:
    """Mean and interval; of several repetitions their standard deviation as well."""
    if row.miou_std is None:
        return text if row.complete else ""
    return f"{text}\nsd {100 * row.miou_std:.2f}"


def _new_table(row: Row) -> Table:
    title = Text("\n".join(titles(row)), style="bold")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("method\nbackbone\nweights", overflow="fold", min_width=12)
    for name in (*_fold_columns(row), "mIoU\n95 % CI", "FB-IoU", "ms"):
        table.add_column(name, justify="right", no_wrap=True)  # a cut number is a wrong one
    return table


def _fold_columns(row: Row) -> tuple[str, ...]:
    return FOLDS[: row.dataset_folds]


def published_tables(rows: Sequence[PublishedRow]) -> list[Table]:
    """A table a setting and protocol: at most 80 columns wide, with unverified numbers dim."""
    return [_published_table(list(group)) for _, group in groupby(rows, lambda row: row.group)]


def _published_table(rows: Sequence[PublishedRow]) -> Table:
    """Folds and FB-IoU have columns where a row of the group reports them."""
    folds = range(4 if any(row.folds_certainty for row in rows) else 0)
    fb_iou = any(row.fb_certainty for row in rows)
    title = "\n".join(titles(rows[0]))
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        min_width=min(80, title.index("\n")),  # a title folds where the table ends
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("#", justify="right", min_width=2)
    table.add_column("method\nbackbone", overflow="fold", width=18)
    for name in (*(f"fold{fold}" for fold in folds), "mIoU", *["FB-IoU"] * fb_iou):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("certainty\nread in", overflow="fold", max_width=24)
    for row in rows:
        cell = named_cells(row)
        table.add_row(
            cell["rank"],
            Text(f"{row.method}\n{row.backbone}"),
            *(_sure(cell[f"fold{fold}"], row.folds_certainty) for fold in folds),
            _sure(cell["miou"], row.certainty),
            *[_sure(cell["fb_iou"], row.fb_certainty)] * fb_iou,
            Text(f"{row.certainties}\n{row.where}"),
            style="dim" if row.unverified else None,
        )
    return table


def _sure(value: str, certainty: str) -> Text:
    return Text(value, style="dim" if certainty == "unverified" else "")
