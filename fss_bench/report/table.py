"""Rows as CSV and as terminal tables."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from fss_bench.leaderboard import COLUMNS, Row
from fss_bench.published import PublishedRow


def to_csv(rows: Sequence[Row | PublishedRow]) -> str:
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
            _with_spread(row, f"{cell['miou']}\n{low}-{high}"),
            cell["fb_iou"],
            cell["ms_per_episode"],
        )
    return tables


def _with_spread(row: Row, text: str) -> str:
    """Mean and interval; of several repetitions their standard deviation as well."""
    if row.miou_std is None:
        return text if row.complete else ""
    return f"{text}\nsd {100 * row.miou_std:.2f}"


def _new_table(row: Row) -> Table:
    cell = dict(zip(COLUMNS, row.cells(), strict=True))
    runs = f", {row.repetitions} runs" if row.repetitions > 1 else ""
    title = Text(
        f"{cell['dataset']}, {cell['ways']}-way {cell['shots']}-shot, protocol {cell['protocol']}\n"
        f"{cell['episodes']} episodes{runs} of {row.classes} classes, sha256 "
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


def published_tables(rows: Sequence[PublishedRow]) -> list[Table]:
    """A table a setting and protocol: at most 80 columns wide, with unverified numbers dim."""
    return [_published_table(list(group)) for _, group in groupby(rows, lambda row: row.group)]


def _published_table(rows: Sequence[PublishedRow]) -> Table:
    """Folds and FB-IoU have columns where a row of the group reports them."""
    folds = range(4 if any(row.folds_certainty for row in rows) else 0)
    fb_iou = any(row.fb_certainty for row in rows)
    dataset, protocol, ways, shots = rows[0].group
    title = (
        f"{dataset}, {ways}-way {shots}-shot, protocol {protocol}\npublished, episode lists unknown"
    )
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
        cell = dict(zip(COLUMNS, row.cells(), strict=True))
        table.add_row(
            cell["rank"],
            Text(f"{row.method}\n{row.backbone}"),
            *(_sure(cell[f"fold{fold}"], row.folds_certainty) for fold in folds),
            _sure(cell["miou"], row.certainty),
            *[_sure(cell["fb_iou"], row.fb_certainty)] * fb_iou,
            Text(f"{_certainties(row)}\n{row.where}"),
            style="dim" if row.unverified else None,
        )
    return table


def _sure(value: str, certainty: str) -> Text:
    return Text(value, style="dim" if certainty == "unverified" else "")


def _certainties(row: PublishedRow) -> str:
    """One word where all values of the row have the same certainty: plain text shows no dim."""
    values = {"mean": row.certainty, "folds": row.folds_certainty, "FB-IoU": row.fb_certainty}
    names: dict[str, list[str]] = {}
    for name, certainty in values.items():
        names.setdefault(certainty, []).append(name)
    names.pop("", None)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(which)} {certainty}" for certainty, which in names.items())
