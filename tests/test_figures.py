"""Figures for papers: what they show, and that the same runs give the same bytes."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from fss_bench.cli import app
from fss_bench.errors import FssBenchError
from fss_bench.leaderboard import build_rows
from fss_bench.report.figures import (
    check_figure,
    class_figure,
    cost_figure,
    entrant_name,
    write_figure,
)
from fss_bench.report.sensitivity_figure import sensitivity_figure
from fss_bench.results import ResultStore, Run

MakeRun = Callable[..., Run]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """Two methods on both folds at two shots, of different cost."""
    found = []
    for method, iou, ms in (("a", 0.5, 10.0), ("b", 0.7, 200.0)):
        for shots in (1, 5):
            for fold in range(2):
                run_id = f"{method}{shots}{fold}"
                run = make_run(iou, method=method, shots=shots, fold=fold, run_id=run_id)
                run.record["cost"] = {**run.record["cost"], "ms_per_episode": ms + fold}
                found.append(run)
    return found


def test_a_panel_a_group_and_a_point_a_row(runs: list[Run]) -> None:
    rows = build_rows(runs)
    figure = cost_figure(rows)
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == 2
    for axis in panels:
        points = {
            bar.get_label(): tuple(float(v) for v in bar.lines[0].get_xydata()[0])
            for bar in axis.containers
        }
        assert points == {
            "a, resnet50, imagenet": (10.5, pytest.approx(50)),
            "b, resnet50, imagenet": (200.5, pytest.approx(70)),
        }
        assert axis.get_xlabel() == "ms an episode"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == sorted(entrant_name(row) for row in rows)[::2]
    params = cost_figure(rows, "params_m").axes[0]
    assert params.containers[0].lines[0].get_xydata()[0][0] == 23.5


def test_incomplete_rows_are_left_out(runs: list[Run]) -> None:
    with pytest.raises(FssBenchError, match="no result with all its folds"):
        cost_figure(build_rows(runs[:1]))


def test_gains_class_by_class(make_run: MakeRun) -> None:
    first, second = make_run(0.5), make_run(0.5, method="other", run_id="b")
    scores = second.metrics.per_class
    scores["cat"] = type(scores["cat"])(1, 0.75, 1500, 2000, 2)
    scores["dog"] = type(scores["dog"])(2, 0.4, 800, 2000, 2)
    (axis,) = class_figure([first, second]).axes
    widths = [bar.get_width() for bar in axis.patches]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert dict(zip(names, widths, strict=True)) == {
        "dog": pytest.approx(-10),
        "cat": pytest.approx(25),
    }
    assert axis.get_title(loc="left") == "other, resnet50, imagenet\nless panet, resnet50, imagenet"


def test_classes_of_other_than_two_comparable_runs_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(FssBenchError, match="give --run twice"):
        class_figure([make_run()])
    with pytest.raises(FssBenchError, match="do not compare: the shots differ"):
        class_figure([make_run(), make_run(shots=5)])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_files_are_the_same_every_time(runs: list[Run], tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        write_figure(cost_figure(build_rows(runs)), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    if suffix == ".svg":
        assert ET.parse(files[0]).getroot().tag.endswith("svg")
    else:
        with Image.open(files[0]) as picture:
            assert picture.size[0] > 1000


@pytest.mark.parametrize(
    ("name", "problem"),
    [("a.pdf", "its suffix must be one of .svg, .png"), ("none/a.svg", "does not exist")],
)
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(FssBenchError, match=problem):
        check_figure(tmp_path / name)


def stored(runs: list[Run], root: Path) -> Path:
    for run in runs:
        ResultStore(root).write(run)
    return root


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])


def test_the_command_draws(runs: list[Run], tmp_path: Path) -> None:
    results = stored(runs, tmp_path / "r")
    for plot in (["cost", "--cost", "gflops"], ["classes", "--run", "a10", "--run", "b10"]):
        file = tmp_path / f"{plot[0]}.svg"
        found = call("--results", results, "--figure", file, "--plot", *plot)
        assert found.exit_code == 0, found.exception
        assert found.stdout.strip() == str(file)
        assert file.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--plot", "costs"], "did you mean 'cost'"),
        (["--cost", "gflop"], "did you mean 'gflops'"),
        (["--run", "a10"], "is for --plot classes"),
        (["--plot", "classes", "--run", "a10"], "give --run twice"),
    ],
)
def test_a_mistake_is_one_line(
    runs: list[Run], tmp_path: Path, arguments: list[str], problem: str
) -> None:
    results = stored(runs, tmp_path / "r")
    found = call("--results", results, "--figure", tmp_path / "a.svg", *arguments)
    assert isinstance(found.exception, FssBenchError)
    assert problem in str(found.exception)
    assert not (tmp_path / "a.svg").exists()


def test_rules_have_a_dot_each(make_run: MakeRun) -> None:
    from fss_bench.protocols import PROTOCOLS
    from fss_bench.sensitivity import find_effects

    changed = PROTOCOLS["standard"].replace_rules({"query_ignore": "background"})
    runs = [
        make_run(iou, protocol, fold=fold, run_id=f"{iou}{fold}")
        for iou, protocol in ((0.5, PROTOCOLS["standard"]), (0.6, changed))
        for fold in range(2)
    ]
    (axis,) = sensitivity_figure(find_effects(runs)).axes
    (label,) = [text.get_text() for text in axis.get_yticklabels()]
    assert label == "query_ignore: excluded to background"
    dots = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx(10)]
