"""The HTML page without a browser: what it holds, and that nothing is loaded or run by a name."""

import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bad_pictures import EPS
from report_pages import HOSTILE, store_grid
from typer.testing import CliRunner

from fss_bench import create_dataset
from fss_bench.cli import app
from fss_bench.leaderboard import Row
from fss_bench.published import load_published
from fss_bench.report.page import to_html
from fss_bench.report.page.command import reproduce
from fss_bench.report.page.drawing import Scale
from fss_bench.report.page.pictures import EpisodePictures
from fss_bench.results import Run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


@pytest.fixture
def rows(root: Path, make_run: Callable[..., Run]) -> list[Row]:
    from fss_bench.leaderboard import build_rows
    from fss_bench.results import ResultStore

    if not (root / "runs").exists():
        return store_grid(root, make_run)
    return build_rows(ResultStore(root).runs())


def pictures() -> EpisodePictures:
    return EpisodePictures({"shapes": create_dataset("shapes")}, print)


class Elements(HTMLParser):
    """All elements with their attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_table_a_comparable_group_and_a_page_a_row(rows: list[Row]) -> None:
    page = Elements(to_html(rows))
    tables = [one for one in page.all("table") if one.get("class") == "ranked"]
    assert len(tables) == len({row.group for row in rows}) == 3
    ids = [one["id"] for one in page.all("article")]
    assert len(ids) == len(set(ids)) == len(rows) == 7
    links = {one.get("href") for one in page.all("a")}
    assert {f"#{name}" for name in ids} <= links


def test_numbers_are_those_of_the_rows(rows: list[Row]) -> None:
    text = to_html(rows)
    for row in rows:
        for run in row.folds.values():
            assert f"{100 * run.metrics.miou:.2f}" in text
            assert run.record["episodes_sha256"] in text
            assert run.record["run_id"] in text
            assert run.record["code_sha256"] in text
        low, high = row.miou_ci95 or (0.0, 0.0)
        assert f"{100 * low:.2f} to {100 * high:.2f}" in text
    for name, value in rows[0].any_run.record["protocol"].items():
        assert f"<dt>{name}</dt>" in text, name
        assert str(value) in text or isinstance(value, list)


def test_nothing_is_loaded_from_elsewhere(rows: list[Row]) -> None:
    text = to_html(rows, pictures=pictures())
    page = Elements(text)
    addresses = [
        value
        for _, attributes in page.found
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert addresses
    assert all(value and value.startswith(("#", "data:image/jpeg;base64,")) for value in addresses)
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.found}
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    (policy,) = [one for one in page.all("meta") if "http-equiv" in one]
    assert "default-src 'none'" in (policy["content"] or "")


def test_names_are_text(rows: list[Row]) -> None:
    page = Elements(to_html(rows))
    assert len(page.all("script")) == 1
    assert any(HOSTILE in text for text in page.text)
    assert not [name for _, a in page.found for name in a if name.startswith("on")]


def test_the_same_rows_give_the_same_bytes(rows: list[Row]) -> None:
    assert to_html(rows, pictures=pictures()) == to_html(rows, pictures=pictures())


def test_pictures_are_of_runs_with_predictions_and_data(rows: list[Row]) -> None:
    found = Elements(to_html(rows, pictures=pictures())).all("img")
    assert len(found) == 2 * 6  # panet at two shots, three hardest and three easiest episodes
    assert all((one["alt"] or "").startswith("Support, query with prediction") for one in found)
    assert Elements(to_html(rows)).all("img") == []


def run_with_predictions(rows: list[Row]) -> Run:
    (row,) = (
        r
        for r in rows
        if r.any_run.record["method"] == "panet"
        and r.folds[0].path
        and r.any_run.record["dataset"]["name"] == "shapes"
        and r.any_run.record["shots"] == 1
    )
    return row.folds[0]


@pytest.mark.parametrize("content", [EPS, b"", b"DDS " + bytes(300)], ids=["EPS", "empty", "DDS"])
def test_a_prediction_that_is_no_picture_is_noted(
    rows: list[Row], tmp_path: Path, content: bytes
) -> None:
    told: list[str] = []
    maker = EpisodePictures({"shapes": create_dataset("shapes")}, told.append)
    run = run_with_predictions(rows)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "0.png").write_bytes(content)
    assert maker(Run(run.record, run.metrics, run.episodes, tmp_path), 0) is None
    assert "a prediction cannot be read" in told[0]
    assert "it is none of JPEG" in told[0]


def test_data_of_another_tree_give_no_pictures(rows: list[Row]) -> None:
    told: list[str] = []
    maker = EpisodePictures({"shapes": create_dataset("shapes")}, told.append)
    run = run_with_predictions(rows)
    other = Run(
        {**run.record, "dataset": {**run.record["dataset"], "fingerprint": "x"}},
        run.metrics,
        run.episodes,
        run.path,
    )
    assert maker(run, 0) is not None
    assert maker(other, 0) is None
    assert "it is of other data" in told[0]


def test_a_row_without_pictures_says_how_to_get_them(rows: list[Row]) -> None:
    text = to_html(rows)
    assert text.count("add --save-predictions to the commands below") == 5  # two methods, one set
    assert text.count("this report was made without those of shapes") == 2
    assert to_html(rows, pictures=pictures()).count("No pictures: ") == 5


def test_so_many_rows_have_pictures(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fss_bench.report.page.extremes.ILLUSTRATED", 1)
    text = to_html(rows, pictures=pictures())
    assert len(Elements(text).all("img")) == 6
    assert text.count("No pictures: 1 rows have them") == 1


def test_a_lost_prediction_is_told_once(rows: list[Row], tmp_path: Path) -> None:
    told: list[str] = []
    maker = EpisodePictures({"shapes": create_dataset("shapes")}, told.append)
    run = next(r for row in rows for r in row.folds.values() if r.has_predictions)
    (tmp_path / "predictions").mkdir()
    broken = Run(run.record, run.metrics, run.episodes, tmp_path)
    (tmp_path / "predictions" / "1.png").write_bytes(b"no picture")
    assert [maker(broken, 0), maker(broken, 0), maker(broken, 1)] == [None] * 3
    assert len(told) == 2
    assert all("a prediction cannot be read" in text for text in told)


def test_certainties_of_one_published_row_are_told_apart(rows: list[Row], tmp_path: Path) -> None:
    from fss_bench.published import FILE_COLUMNS

    file = tmp_path / "published.csv"
    line = "PANet,VGG16,coco20i,standard,1,1,1.0,,,,40.0,,verified,unverified,,P 2019,Table 1,"
    file.write_text("\n".join([",".join(FILE_COLUMNS), line]) + "\n")
    assert "<td>mean verified; folds unverified</td>" in to_html(rows, load_published(file))


def test_extremes_are_the_lowest_and_highest(rows: list[Row]) -> None:
    from fss_bench.report.page.payload import page_data

    for group in page_data(rows, (), lambda run, index: None)["groups"]:
        for shown in group["rows"]:
            (row,) = (r for r in rows if r.run_ids == shown["runs"])
            ious = sorted(v for run in row.folds.values() for v in run.episodes["iou_fg"])
            found = [float(one["iou"]) for one in shown["extremes"]]
            expected = [*ious[:3], *reversed(ious[-3:])]
            assert found == pytest.approx([100 * v for v in expected], abs=0.0051)


def test_published_rows_stand_apart_with_what_was_measured(rows: list[Row], tmp_path: Path) -> None:
    from fss_bench.published import FILE_COLUMNS

    file = tmp_path / "published.csv"
    label = "standard+episodes=10"
    lines = [
        f"PANet,VGG16,shapes,{label},1,1,,,,,40.0,,verified,,,P 2019,Table 1,",
        f"PANet,VGG16,coco20i,{label},1,1,,,,,20.0,,unverified,,,P 2019,memory,",
    ]
    file.write_text("\n".join([",".join(FILE_COLUMNS), *lines]) + "\n")
    text = to_html(rows, load_published(file))
    page = Elements(text)
    assert len([one for one in page.all("table") if one.get("class") == "published"]) == 2
    (row,) = (
        r
        for r in rows
        if r.names[0] == "panet"
        and r.any_run.record["shots"] == 1
        and r.any_run.record["dataset"]["name"] == "shapes"
    )
    difference = f"{100 * (row.miou or 0) - 40:+.2f}"
    assert f"a difference of {difference}" in " ".join(text.split())
    assert text.count(difference) == 2
    assert "verified" in text
    assert "20.00" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["--weights", "imagenet"]),
        ({"seed": 3, "precision": "bf16"}, ["--seed", "3", "--precision", "bf16"]),
        (
            {"method_options": {"level": "c3", "a": "x y"}},
            ["--option", "a=x y", "--option", "level=c3"],
        ),
        ({"checkpoint": {"path": "a b.pt"}}, ["--checkpoint", "a b.pt"]),
        ({"ways": 2, "shots": 5}, ["--shots", "5", "--ways", "2"]),
        ({"dataset": {"name": "pascal5i@3-a"}}, ["--dataset", "pascal5i", "--data-root", "DATA"]),
    ],
)
def test_the_command_that_makes_a_run_again(
    make_run: Callable[..., Run], changes: dict[str, Any], words: list[str]
) -> None:
    found = shlex.split(reproduce(make_run(**changes).record))
    assert found[:3] == ["fss-bench", "evaluate", "panet"]
    flags = dict(zip(found[3::2], found[4::2], strict=True))
    given = [flags[word] for word in words if word.startswith("--") and word != "--option"]
    assert given == [
        value for flag, value in zip(words[::2], words[1::2], strict=True) if flag != "--option"
    ]
    assert all(word in found for word in words)
    assert ("--weights" in found) != ("--checkpoint" in found)


def test_scales_hold_their_values_and_round_ticks() -> None:
    scale = Scale.of([17.3, 24.1], 200, 0)
    assert 0 < scale(24.1) < scale(17.3) < 200
    assert [tick.text for tick in scale.ticks()] == ["18", "20", "22", "24"]
    assert Scale.of([5.0], 0, 100)(5.0) == pytest.approx(50, abs=0.1)
    assert [t.text for t in Scale.of([0.001, 0.004], 0, 1).ticks()][:2] == ["0.001", "0.002"]


def call(*words: object) -> Any:
    return CliRunner().invoke(app, ["leaderboard", "--format", "html", *map(str, words)])


def test_the_command_writes_it(rows: list[Row], root: Path, tmp_path: Path) -> None:
    for extra, pictures_made in (([], 12), (["--no-pictures", "shapes"], 0)):
        found = call("--results", root, "-o", tmp_path / "r.html", *extra)
        assert found.exit_code == 0, found.exception
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert len(Elements(text).all("img")) == pictures_made


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--pictures", "shapes"], "write NAME=DIR"),
        (["--pictures", "pascl5i=x"], "did you mean 'pascal5i'"),
        (["--no-pictures", "shape"], "did you mean 'shapes'"),
    ],
)
def test_a_mistake_is_one_line(
    rows: list[Row], root: Path, tmp_path: Path, words: list[str], problem: str
) -> None:
    found = call("--results", root, "-o", tmp_path / "r.html", *words)
    assert problem in str(found.exception)
    assert not (tmp_path / "r.html").exists()
