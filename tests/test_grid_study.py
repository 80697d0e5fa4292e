"""The committed grid: its leaderboard is that of its runs, and it holds what is ours to ship."""

import csv
import io
from collections import defaultdict
from pathlib import Path

import pytest

from fss_bench.leaderboard import Row, build_rows
from fss_bench.report.table import to_csv
from fss_bench.results import ResultStore

GRID = Path(__file__).parents[1] / "results" / "grid"
METHODS = {"panet", "sgone", "cofcn", "dcama", "msanet"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return build_rows(ResultStore(GRID).runs())


def test_the_leaderboard_is_made_of_the_runs_byte_for_byte(rows: list[Row]) -> None:
    assert (GRID / "leaderboard.csv").read_bytes() == to_csv(rows).encode()


def test_every_method_has_all_folds_of_every_dataset_at_both_shots(rows: list[Row]) -> None:
    found = defaultdict(set)
    for row in rows:
        record = row.any_run.record
        assert sorted(row.folds) == [0, 1, 2, 3]
        found[record["dataset"]["name"].partition("@")[0], record["shots"]].add(record["method"])
    assert dict(found) == {
        (dataset, shots): METHODS
        for dataset in ("shapes", "pascal5i", "coco20i")
        for shots in (1, 5)
    }


def test_numbers_are_those_of_the_episodes(rows: list[Row]) -> None:
    from fss_bench.metrics import class_counts

    lines = list(csv.DictReader(io.StringIO((GRID / "leaderboard.csv").read_text())))
    for row, line in zip(rows, lines, strict=True):
        means = []
        for fold, run in row.folds.items():
            sums = class_counts(run.episodes).groupby("class_id")[["inter", "union"]].sum()
            means.append(100 * float((sums["inter"] / sums["union"]).mean()))
            assert float(line[f"fold{fold}"]) == pytest.approx(means[-1], abs=0.0051)
        assert float(line["miou"]) == pytest.approx(sum(means) / 4, abs=0.0051)


def test_it_is_small_and_holds_tables_alone() -> None:
    files = [file for file in GRID.rglob("*") if file.is_file()]
    runs = [file for file in files if "runs" in file.relative_to(GRID).parts]
    assert {file.name for file in runs} == {"run.json", "episodes.parquet"}
    assert {file.name for file in files} - {file.name for file in runs} == {
        "leaderboard.csv",
        "report.html",
    }
    assert sum(file.stat().st_size for file in files) < 8e6
