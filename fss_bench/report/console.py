"""The leaderboard on a terminal or as plain text."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console

from fss_bench.comparability import check_comparable, joined
from fss_bench.leaderboard import Row, build_rows
from fss_bench.published import PublishedRow
from fss_bench.report.table import leaderboard_tables, published_tables
from fss_bench.results import ResultStore


def board_rows(results: Path, note: Callable[[str], None]) -> list[Row]:
    """Rows of a results folder; runs that cannot be read are left out with a note."""
    return build_rows(ResultStore(results).runs(skipped=lambda text: note(f"left out: {text}")))


def check_together(rows: Sequence[Row]) -> None:
    """Refuse rows that cannot be ranked in one table.

    Raises:
        FssBenchError: they do not compare; names what differs.
    """
    check_comparable([joined(run.record for run in row.folds.values()) for row in rows])


def print_tables(
    rows: Sequence[Row],
    console: Console | None = None,
    published: Sequence[PublishedRow] = (),
) -> None:
    """Print a table a comparable group, then those of published rows."""
    console = console or Console()
    for table in leaderboard_tables(rows):
        console.print(table)
    for table in published_tables(published):
        console.print("", table)


def tables_as_text(rows: Sequence[Row], published: Sequence[PublishedRow] = ()) -> str:
    """The tables as plain text, 80 columns wide."""
    buffer = StringIO()
    print_tables(rows, Console(file=buffer, width=80), published)
    return buffer.getvalue()
