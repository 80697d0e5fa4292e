"""Made runs that processes write beside one another."""

from pathlib import Path

from conftest import made_run

from fss_bench.files import write_text
from fss_bench.report.console import board_rows
from fss_bench.report.table import to_csv
from fss_bench.results import ResultStore


def write_runs(root: Path, first: int, number: int, boards: int = 0) -> None:
    """Write runs of these numbers; two of them are the folds of one method.

    Args:
        root: the results folder.
        first: number of the first.
        number: how many.
        boards: how often the leaderboard is written; 0 for after every run.
    """
    store = ResultStore(root)
    for n in range(first, first + number):
        iou = 0.1 + 0.002 * n
        store.write(made_run(iou, method=f"m{n // 2}", fold=n % 2, run_id=f"r{n:03d}"))
        if not boards or n == first + number - 1:
            with store.updating("leaderboard.csv") as board:
                write_text(board, to_csv(board_rows(root, print)))
