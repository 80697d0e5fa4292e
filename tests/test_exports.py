"""The leaderboard as Markdown, LaTeX and JSON, and shared ranks in all formats."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fss_bench.leaderboard import Row, build_rows
from fss_bench.published import ranked
from fss_bench.report.grid import grids
from fss_bench.report.json_rows import to_json
from fss_bench.report.latex import to_latex
from fss_bench.report.markdown import to_markdown
from fss_bench.report.table import leaderboard_tables, to_csv
from fss_bench.results import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def folds(make_run: MakeRun) -> Callable[..., list[Run]]:
    """Runs on both folds, 40 episodes each, whose IoU scatters around a mean."""
    from fss_bench.metrics import compute_metrics

    def make(method: str, mean: float, noise: int = 0, **changes: Any) -> list[Run]:
        runs = []
        for fold in range(2):
            run = make_run(mean, method=method, fold=fold, run_id=f"{method}{fold}", **changes)
            table = run.episodes.loc[np.arange(40) % 4].reset_index(drop=True)
            rng = np.random.default_rng([fold, noise])
            inter = (1000 * (mean + 0.1 * rng.normal(size=40)).clip(0, 1)).astype(int)
            table = table.assign(
                index=range(40), inter_fg=inter, inter_ways=[[i] for i in inter.tolist()]
            )
            metrics = compute_metrics(table, {1: "cat", 2: "dog"}, [1, 2])
            runs.append(Run({**run.record, "episodes": 40}, metrics, table))
        return runs

    return make


@pytest.fixture
def rows(folds: Callable[..., list[Run]]) -> list[Row]:
    """Two that cannot be told apart and a worse one, and one at five shots."""
    runs = [*folds("good", 0.6), *folds("as_good", 0.595, 1), *folds("bad", 0.3, 2)]
    return build_rows([*runs, *folds("good", 0.7, 3, shots=5)])


def test_rows_that_cannot_be_told_apart_share_a_rank(rows: list[Row]) -> None:
    assert [(row.rank, row.rank_interval) for row in rows] == [
        (1, (1, 2)),
        (1, (1, 2)),
        (3, (3, 3)),
        (1, (1, 1)),
    ]
    assert [line.split(",")[0] for line in to_csv(rows).splitlines()] == ["rank", *"1131"]
    console = Console(file=io.StringIO(), width=80)
    for table in leaderboard_tables(rows):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.findall(r"^ *(\d=?) (?:as_)?(?:good|bad)", text, re.M) == ["1=", "1=", "3", "1"]
    assert text.count("= shared: these episodes") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_markdown_marks_the_best_and_the_second(rows: list[Row]) -> None:
    text = to_markdown(grids(rows))
    first, second = text.split("### ")[1:]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in first.splitlines()
        if line.startswith("|")
    ]
    head, best, tied, worst = lines[0], *lines[2:]
    assert head[:4] == ["#", "method", "backbone", "weights"]
    assert {len(line) for line in lines} == {len(head)}
    assert (best[0], tied[0], worst[0]) == ("1=", "1=", "3")
    mious = [line[head.index("mIoU")] for line in (best, tied, worst)]
    assert re.fullmatch(r"\*\*\d\d\.\d\d\*\*", mious[0])
    assert re.fullmatch(r"<u>\d\d\.\d\d</u>", mious[1])
    assert re.fullmatch(r"\d\d\.\d\d", mious[2])
    assert "own@3-abcdef, 1-way 5-shot" in second
    assert "**" not in second  # one row is no best


def test_names_are_text_in_every_format(folds: Callable[..., list[Run]]) -> None:
    name = "a_b|c*d<e>&%$#{f}\\g~^"
    rows = build_rows(folds(name, 0.5))
    assert r"a\_b\|c\*d\<e\>\&%$\#\{f\}\\g\~^" in to_markdown(grids(rows))
    latex = (
        r"a\_b\textbar{}c*d\textless{}e\textgreater{}\&\%\$\#\{f\}"
        r"\textbackslash{}g\textasciitilde{}\textasciicircum{}"
    )
    assert latex in to_latex(grids(rows))
    assert json.loads(to_json(rows))["groups"][0]["rows"][0]["method"] == name


def test_latex_has_a_table_a_group(rows: list[Row]) -> None:
    text = to_latex(grids(rows))
    assert text.count(r"\begin{tabular}{llllrrrrrrr}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    first = text.split(r"\end{table}")[0]
    lines = [line for line in first.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in lines} == {10}
    best, tied, worst = (line.removesuffix(r" \\").split(" & ") for line in lines[1:])
    assert (best[0], tied[0], worst[0]) == ("$1^=$", "$1^=$", "3")
    assert re.fullmatch(r"\\textbf\{\d\d\.\d\d\}", best[6])
    assert re.fullmatch(r"\\underline\{\d\d\.\d\d\}", tied[6])
    assert re.fullmatch(r"\d\d\.\d\d--\d\d\.\d\d", best[7])
    assert best[8] == "1--2"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(rows: list[Row], tmp_path: Path) -> None:
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "a.tex").write_text(head + to_latex(grids(rows)) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_json_holds_all_numbers_as_fractions(rows: list[Row]) -> None:
    content = json.loads(to_json(rows))
    assert [len(group["rows"]) for group in content["groups"]] == [3, 1]
    group = content["groups"][0]
    assert (group["ways"], group["shots"]) == (1, 1)
    assert group["protocol"] == json.loads(json.dumps(rows[0].any_run.record["protocol"]))
    for row, found in zip(rows, [*group["rows"], *content["groups"][1]["rows"]], strict=True):
        assert found["miou"] == row.miou
        assert found["miou_ci95"] == list(row.miou_ci95 or ())
        assert found["fb_iou_ci95"] == list(row.fb_iou_ci95 or ())
        assert found["rank_interval"] == list(row.rank_interval or ())
        assert found["folds"]["1"]["miou"] == row.folds[1].metrics.miou
        low, high = row.fb_iou_ci95 or (1.0, 0.0)
        assert low < (row.fb_iou or 0.0) < high


def test_published_rows_stand_below_those_of_their_setting(
    folds: Callable[..., list[Run]], tmp_path: Path
) -> None:
    from fss_bench.published import FILE_COLUMNS, load_published

    file = tmp_path / "published.csv"
    line = "PANet,VGG16,{},standard,1,{},,,,,48.1,,verified,,,PANet 2019,Table 1,"
    lines = [",".join(FILE_COLUMNS), line.format("own@3-abcdef", 1), line.format("coco20i", 1)]
    file.write_text("\n".join(lines) + "\n")
    rows = build_rows([*folds("good", 0.6), *folds("good", 0.7, shots=5)])
    tables = grids(rows, load_published(file))
    assert [table.columns[3] for table in tables] == ["weights", "source", "weights", "source"]
    assert [table.title.split(",")[0] for table in tables] == [*["own@3-abcdef"] * 3, "coco20i"]
    assert [cell.text for cell in tables[1].rows[0]] == [
        *("1", "PANet", "VGG16", "published, verified", "Table 1"),
        *("48.10", ""),
    ]
    content = json.loads(to_json(rows, ranked(load_published(file))))
    assert [row["miou"] for row in content["published"]] == [0.481, 0.481]


def trained(runs: list[Run], seed: int, steps: int = 100) -> list[Run]:
    """The same runs, of checkpoints trained here."""
    found = []
    for run in runs:
        fold = run.record["fold"]
        checkpoint = {
            "path": f"seed{seed}/fold{fold}.safetensors",
            "series": f"seed{seed}/fold{{fold}}.safetensors",
            "sha256": f"{seed}{fold}",
            "layout": "fss_bench",
            "trained_on": {"dataset": "own", "fold": fold, "base_classes": []},
            "training": {"stage": "main", "seed": seed, "steps": steps, "chosen_by": "last"},
        }
        run_id = f"{run.record['run_id']}-{seed}-{steps}"
        record = {**run.record, "checkpoint": checkpoint, "run_id": run_id}
        found.append(Run(record, run.metrics, run.episodes))
    return found


def test_the_spread_of_training_seeds_is_kept_apart(folds: Callable[..., list[Run]]) -> None:
    runs = [
        run for seed in range(3) for run in trained(folds("net", 0.5 + 0.02 * seed, seed), seed)
    ]
    runs += [*trained(folds("net", 0.9, 7), 9, steps=5), *folds("other", 0.4, 8)]
    rows = build_rows(runs)
    assert len(rows) == 5
    content = json.loads(to_json(rows))
    (spread,) = content["groups"][0]["training_seeds"]
    by_seed = {
        row.any_run.record["checkpoint"]["training"]["seed"]: row.miou
        for row in rows
        if row.any_run.record["checkpoint"]
    }
    mious = [by_seed[seed] for seed in range(3)]
    assert (spread["seeds"], spread["mious"]) == ([0, 1, 2], mious)
    assert spread["mean"] == pytest.approx(np.mean(mious))
    assert spread["sd"] == pytest.approx(np.std(mious, ddof=1))
    for row in rows:  # an interval over episodes knows nothing of it
        low, high = row.miou_ci95 or (0.0, 1.0)
        assert high - low < 0.09
    console = Console(file=io.StringIO(), width=80)
    console.print(leaderboard_tables(rows)[0])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"net: 3 training seeds, mIoU {100 * np.mean(mious):.2f}, sd" in " ".join(text.split())


def test_output_that_is_no_terminal_has_no_colours(
    folds: Callable[..., list[Run]], tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from fss_bench.cli import app
    from fss_bench.results import ResultStore

    runs = [*folds("good", 0.6), *folds("bad", 0.3, 2)]
    for run in runs:
        ResultStore(tmp_path).write(run)
    commands = (
        ["leaderboard", "--results", str(tmp_path)],
        ["compare", "good0", "bad0", "--results", str(tmp_path)],
        ["list", "methods"],
        ["list", "protocols"],
    )
    for words in commands:
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.exception
        assert found.output.strip()
        assert "\x1b" not in found.output
        if words[0] != "list":  # one line each, whatever the width, for other programs
            assert max(map(len, found.output.splitlines())) <= 80
