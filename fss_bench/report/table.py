"""Rows as CSV and as terminal tables."""

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fss_bench.leaderboard import COLUMNS, Row


def to_csv(rows: Sequence[Row]) -> str:
    """The leaderboard as CSV; the same runs give the same bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.cells() for row in rows)
    return buffer.getvalue()


def leaderboard_tables(rows: Sequence[Row]) -> list[Table]:
    """A table a comparable group: at most 80 columns wide."""
    tables: list[Table] = []
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            tables.append(_new_table(row))
        cell = dict(zip(COLUMNS, row.cells(), strict=True))
        low, high = cell["miou_ci_low"], cell["miou_ci_high"]
        tables[-1].add_row(
            cell["rank"],
            Text(f"{cell['method']}\n{cell['backbone']}\n{cell['weights']}"),  # no markup
            *(cell[f"fold{fold}"] for fold in _fold_columns(row)),
            f"{cell['miou']}\n{low}-{high}" if row.complete else "",
            cell["fb_iou"],
            cell["ms_per_episode"],
        )
    return tables


def _new_table(row: Row) -> Table:
    cell = dict(zip(COLUMNS, row.cells(), strict=True))
    title = Text(
        f"{cell['dataset']}, {cell['ways']}-way {cell['shots']}-shot, protocol {cell['protocol']}\n"
        f"{cell['episodes']} episodes of {row.classes} classes, sha256 "
        f"{cell['episodes_sha256'][:12]}",
        style="bold",
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("method\nbackbone\nweights", overflow="fold", min_width=12)
    folds = [f"fold{fold}" for fold in _fold_columns(row)]
    for name in (*folds, "mIoU\n95 % CI", "FB-IoU", "ms"):
        table.add_column(name, justify="right", no_wrap=True)  # a cut number is a wrong one
    return table


def _fold_columns(row: Row) -> range:
    return range(min(4, row.dataset_folds))
