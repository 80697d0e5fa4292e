"""Rows as CSV and as terminal tables."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fss_bench.leaderboard import COLUMNS, Row, method_label


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
        record: dict[str, Any] = next(iter(row.folds.values())).record
        interval = f"{cell['miou_ci_low']} to {cell['miou_ci_high']}" if row.complete else ""
        tables[-1].add_row(
            cell["rank"],
            f"{method_label(record)}\n{cell['backbone']}\n{cell['weights']}",
            *(cell[f"fold{fold}"] for fold in _fold_columns(row)),
            cell["miou"],
            interval,
            cell["fb_iou"],
            cell["ms_per_episode"],
        )
    return tables


def _new_table(row: Row) -> Table:
    cell = dict(zip(COLUMNS, row.cells(), strict=True))
    title = (
        f"{cell['dataset']}, {cell['ways']}-way {cell['shots']}-shot, protocol {cell['protocol']}\n"
        f"{cell['episodes']} episodes, sha256 {cell['episodes_sha256'][:16]}"
    )
    table = Table(title=title, title_justify="left", title_style="")
    table.add_column("#", justify="right")
    table.add_column("method", overflow="fold")
    for fold in _fold_columns(row):
        table.add_column(f"fold{fold}", justify="right", no_wrap=True)
    for name in ("mIoU", "95 % interval", "FB-IoU", "ms"):
        table.add_column(name, justify="right")
    return table


def _fold_columns(row: Row) -> range:
    return range(min(4, next(iter(row.folds.values())).record["dataset"]["folds"]))
