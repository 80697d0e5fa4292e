"""Runs to rows: what is ranked with what, what a cell says, and how it is printed."""

import csv
import io
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fss_bench.errors import ResultsError
from fss_bench.leaderboard import Row, build_rows
from fss_bench.metrics import compute_metrics
from fss_bench.protocols import PROTOCOLS
from fss_bench.report.table import leaderboard_tables, to_csv
from fss_bench.results import ResultStore, Run

MakeRun = Callable[..., Run]
HEADER = (
    "rank,method,backbone,weights,dataset,protocol,ways,shots,fold0,fold1,fold2,fold3,miou,"
    "miou_ci_low,miou_ci_high,fb_iou,episodes,params_m,gflops,ms_per_episode,peak_mb,source,"
    "episodes_sha256,runs"
)
SWIN = "swin_base_patch4_window12_384"


def cells(rows: Sequence[Row]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(rows))))


@pytest.fixture
def folds(make_run: MakeRun) -> Callable[..., list[Run]]:
    """Runs of one method on both folds of the dataset."""

    def make(*ious: float, **changes: Any) -> list[Run]:
        label = f"{changes.get('method', 'panet')}{sorted(changes.items(), key=str)}"
        return [
            make_run(iou, fold=fold, run_id=f"{label}{fold}", **changes)
            for fold, iou in enumerate(ious)
        ]

    return make


def test_the_header_is_the_format() -> None:
    assert to_csv([]) == HEADER + "\n"


def test_a_row_of_a_whole_method(folds: Callable[..., list[Run]]) -> None:
    (row,) = cells(build_rows(folds(0.25, 0.75)))
    digest = row.pop("episodes_sha256")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert row == {
        "rank": "1",
        "method": "panet",
        "backbone": "resnet50",
        "weights": "imagenet",
        "dataset": "own@3-abcdef",
        "protocol": "standard",
        "ways": "1",
        "shots": "1",
        "fold0": "25.00",
        "fold1": "75.00",
        "fold2": "",
        "fold3": "",
        "miou": "50.00",
        "miou_ci_low": "50.00",
        "miou_ci_high": "50.00",
        "fb_iou": "62.50",
        "episodes": "8",
        "params_m": "23.50",
        "gflops": "12.25",
        "ms_per_episode": "2.5",
        "peak_mb": "512",
        "source": "measured",
        "runs": "panet[]0 panet[]1",
    }


def test_scores_are_percent_with_two_decimals(folds: Callable[..., list[Run]]) -> None:
    first, second = folds(0.25, 1.0)
    first = replace(first, metrics=replace(first.metrics, miou=0.123456))
    (row,) = cells(build_rows([first, second]))
    assert (row["fold0"], row["fold1"]) == ("12.35", "100.00")
    assert row["miou"] == "56.17"


def test_the_same_runs_give_the_same_bytes_in_any_order(
    folds: Callable[..., list[Run]],
) -> None:
    runs = [
        *folds(0.5, 0.5),
        *folds(0.5, 0.5, method="other"),
        *folds(0.5, 0.5, backbone="vgg16"),
        *folds(0.2, 0.3, shots=5),
        *folds(0.2, method="half"),
        *folds(0.4, 0.6, finished="2026-02-01T00:00:00+00:00", backbone="late"),
        *folds(0.9, 0.9, method_options={"level": "c3", "scale": 10}),
    ]
    expected = to_csv(build_rows(runs))
    assert expected.count("\n") == 8
    for seed in range(10):
        shuffled = random.Random(seed).sample(runs, len(runs))
        assert to_csv(build_rows(shuffled)) == expected


def test_rows_are_ranked_by_miou(folds: Callable[..., list[Run]]) -> None:
    runs = [
        *folds(0.3, 0.3, method="low"),
        *folds(0.9, 0.1, method="middle"),
        *folds(0.6, 0.8, method="high"),
    ]
    ranked = [(row["rank"], row["method"]) for row in cells(build_rows(runs))]
    assert ranked == [("1", "high"), ("2", "middle"), ("3", "low")]


def test_equal_scores_are_ordered_by_name(folds: Callable[..., list[Run]]) -> None:
    late, early = "2026-03-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
    runs = [
        *folds(0.5, 0.5, method="a", finished=late),
        *folds(0.5, 0.5, method="b", finished=early),
    ]
    assert [row["method"] for row in cells(build_rows(runs))] == ["a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": PROTOCOLS["hsnet"]},
        {"protocol": PROTOCOLS["standard"].replace_rules({"min_pixels": 100})},
        {"shots": 5},
        {"ways": 2},
        {"dataset": {"name": "b"}},
        {"dataset": {"fingerprint": "g"}},
        {"dataset": {"classes_sha256": "other folds"}},
    ],
)
def test_what_does_not_compare_is_never_ranked_together(
    folds: Callable[..., list[Run]], other: dict[str, Any]
) -> None:
    runs = [
        *folds(0.3, 0.3, method="a"),
        *folds(0.4, 0.4, method="b"),
        *folds(0.9, 0.9, method="a", **other),
        *folds(0.8, 0.8, method="b", **other),
    ]
    rows = build_rows(runs)
    assert sorted(row["rank"] for row in cells(rows)) == ["1", "1", "2", "2"]
    groups = [row.group for row in rows]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    ranks = {(row["method"], row["miou"]): row["rank"] for row in cells(rows)}
    assert ranks == {
        ("b", "40.00"): "1",
        ("a", "30.00"): "2",
        ("a", "90.00"): "1",
        ("b", "80.00"): "2",
    }


def test_other_episode_lists_are_never_ranked_together(folds: Callable[..., list[Run]]) -> None:
    mine = [*folds(0.3, 0.3, method="a"), *folds(0.4, 0.4, method="b")]
    theirs = folds(0.9, 0.9, method="c", episodes_sha256="1" * 64)
    ranks = {row["method"]: row["rank"] for row in cells(build_rows([*mine, *theirs]))}
    assert ranks == {"a": "2", "b": "1", "c": "1"}


def test_rules_hidden_by_a_name_still_separate(folds: Callable[..., list[Run]]) -> None:
    # two protocols of one's own under one label
    strict = folds(0.3, 0.3, method="a")
    loose = folds(0.4, 0.4, method="b")
    for run in loose:
        run.record["protocol"] = {**run.record["protocol"], "query_ignore": "background"}
    assert [row["rank"] for row in cells(build_rows([*strict, *loose]))] == ["1", "1"]


def test_a_changed_rule_shows_in_the_protocol(folds: Callable[..., list[Run]]) -> None:
    changed = PROTOCOLS["standard"].replace_rules({"episodes": 200})
    (row,) = cells(build_rows(folds(0.3, 0.3, protocol=changed)))
    assert row["protocol"] == "standard+episodes=200"


def test_no_mean_until_all_folds_are_there(folds: Callable[..., list[Run]]) -> None:
    first, second = folds(0.2, 0.6)
    (row,) = cells(build_rows([second]))
    assert (row["rank"], row["fold0"], row["fold1"]) == ("", "", "60.00")
    assert {row[name] for name in ("miou", "miou_ci_low", "miou_ci_high", "fb_iou")} == {""}
    (row,) = cells(build_rows([second, first]))
    assert (row["rank"], row["miou"]) == ("1", "40.00")


def test_an_incomplete_row_has_no_rank_beside_a_complete_one(
    folds: Callable[..., list[Run]],
) -> None:
    single = {"folds": 1}
    runs = [*folds(0.2, method="a", dataset=single), *folds(0.3, method="b", dataset=single)]
    assert [r["rank"] for r in cells(build_rows(runs))] == ["1", "2"]
    mixed = [*folds(0.2, method="a"), *folds(0.9, method="b")]
    assert [r["rank"] for r in cells(build_rows(mixed))] == ["", ""]


def test_the_later_run_of_a_fold_counts(make_run: MakeRun) -> None:
    old = make_run(0.1, run_id="b", finished="2026-01-01T00:00:00+00:00")
    new = make_run(0.9, run_id="a", finished="2026-01-02T00:00:00+00:00")
    other = make_run(0.5, run_id="c", fold=1)
    for runs in ([old, new, other], [new, other, old]):
        (row,) = cells(build_rows(runs))
        assert (row["fold0"], row["runs"]) == ("90.00", "a c")


@pytest.mark.parametrize(
    "other",
    [
        {"method_options": {"level": "c3"}},
        {"seed": 1},
        {"precision": "bf16"},
        {"weights": {"source": "imagenet", "sha256": "cd" * 32}},
        {"backbone": "vgg16"},
        {"backbone_options": {"output_stride": 8}},
        {"checkpoint": {"path": "a.safetensors", "sha256": "ef" * 32}},
    ],
)
def test_folds_of_different_things_make_no_row_together(
    make_run: MakeRun, other: dict[str, Any]
) -> None:
    rows = build_rows([make_run(0.1, run_id="a"), make_run(0.2, fold=1, run_id="b", **other)])
    assert [(row.complete, row.miou) for row in rows] == [(False, None)] * 2


@pytest.mark.parametrize("other", [{"code_sha256": "e" * 64}, {"device_type": "cuda"}])
def test_folds_of_other_code_or_devices_are_not_joined(
    make_run: MakeRun, folds: Callable[..., list[Run]], other: dict[str, Any]
) -> None:
    late = make_run(0.9, run_id="late", finished="2026-03-01T00:00:00+00:00", **other)
    (row,) = build_rows([make_run(0.2, fold=1), late])
    assert (row.complete, list(row.folds)) == (False, [0])
    (row,) = build_rows([late, *folds(0.2, 0.4)])  # what is complete counts before what is late
    assert row.miou == pytest.approx(0.3)
    whole = folds(0.5, 0.7, finished="2026-02-01T00:00:00+00:00", **other)
    (row,) = build_rows([*whole, *folds(0.2, 0.4)])
    assert row.miou == pytest.approx(0.6)


def test_another_precision_shows_with_the_method(folds: Callable[..., list[Run]]) -> None:
    (row,) = cells(build_rows(folds(0.1, 0.2, precision="bf16")))
    assert row["method"] == "panet(precision=bf16)"


def test_options_show_with_the_method(folds: Callable[..., list[Run]]) -> None:
    (row,) = cells(build_rows(folds(0.1, 0.2, method_options={"scale": 10, "level": "c3,c4"})))
    assert row["method"] == "panet(level=c3,c4 scale=10)"
    (row,) = cells(build_rows(folds(0.1, 0.2, backbone_options={"output_stride": 8})))
    assert row["backbone"] == "resnet50(output_stride=8)"


def test_the_list_digest_is_over_the_folds_digests(folds: Callable[..., list[Run]]) -> None:
    a, b = folds(0.1, 0.2)
    b.record["episodes_sha256"] = "2" * 64
    (before,) = cells(build_rows([a, b]))
    a.record["episodes_sha256"], b.record["episodes_sha256"] = "2" * 64, "0" * 64
    (swapped,) = cells(build_rows([a, b]))
    assert before["episodes_sha256"] != swapped["episodes_sha256"]
    (again,) = cells(build_rows([b, a]))
    assert again["episodes_sha256"] == swapped["episodes_sha256"]


def with_episodes(run: Run, rows: list[tuple[int, int, int]], rule: str) -> Run:
    """The run with other episodes (class, intersection, union), and what they score."""
    table = pd.concat([run.episodes.iloc[[0]]] * len(rows), ignore_index=True)
    for twin in ("", "_255bg"):
        table["class_ids"] = [[c] for c, _, _ in rows]
        table[f"inter_ways{twin}"] = [[i] for _, i, _ in rows]
        table[f"union_ways{twin}"] = [[u] for _, _, u in rows]
    metrics = compute_metrics(table, {1: "cat", 2: "dog"}, [1, 2], rule)
    return replace(run, metrics=metrics, episodes=table)


@pytest.mark.parametrize(
    ("rule", "low", "high"), [("zero", "0.00", "50.00"), ("skip", "0.00", "100.00")]
)
def test_the_interval_follows_the_rule_for_empty_classes(
    make_run: MakeRun, rule: str, low: str, high: str
) -> None:
    protocol = PROTOCOLS["standard"].replace_rules({"empty_class": rule})
    run = make_run(protocol=protocol, dataset={"folds": 1})
    (row,) = cells(build_rows([with_episodes(run, [(1, 0, 10), (1, 10, 10)], rule)]))
    assert (row["miou_ci_low"], row["miou_ci_high"]) == (low, high)


def test_the_interval_of_a_row_is_narrower_than_of_its_folds(make_run: MakeRun) -> None:
    rows = [(1 + i % 2, 10 * (i % 7), 100) for i in range(60)]
    runs = [with_episodes(make_run(fold=f, run_id=str(f)), rows, "skip") for f in (0, 1)]
    (row,) = build_rows(runs)
    assert row.miou_ci95 is not None
    low, high = row.miou_ci95
    assert row.miou is not None
    assert low < row.miou < high
    one_low, one_high = runs[0].metrics.miou_ci95
    assert high - low < 0.85 * (one_high - one_low)


def printed(runs: Sequence[Run]) -> str:
    console = Console(file=io.StringIO(), width=80)
    for table in leaderboard_tables(build_rows(runs)):
        console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def four_folds(make_run: MakeRun) -> Callable[..., list[Run]]:
    """Runs on four folds, as wide as they get."""

    def make(iou: float, **changes: Any) -> list[Run]:
        dataset = {"name": "pascal5i@1449-1a2b3c", "folds": 4}
        return [
            make_run(iou, dataset=dataset, fold=f, run_id=f"{changes}{f}", **changes)
            for f in range(4)
        ]

    return make


@pytest.mark.parametrize("iou", [0.0, 0.6543, 1.0])
@pytest.mark.parametrize("milliseconds", [2.5, 12345.6])
def test_tables_fit_80_columns_and_cut_nothing(
    four_folds: Callable[..., list[Run]], iou: float, milliseconds: float
) -> None:
    runs = four_folds(iou, backbone=SWIN, weights={"source": "imagenet", "sha256": "0"})
    for run in runs:
        run.record["cost"] = {**run.record["cost"], "ms_per_episode": milliseconds}
    (row,) = cells(build_rows(runs))
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = text.split()
    assert words.count(row["miou"]) == 5  # four folds and their mean
    assert f"{row['miou_ci_low']}-{row['miou_ci_high']}" in words
    assert row["fb_iou"] in words
    assert row["ms_per_episode"] in words
    folded = "".join(line[2:32].split(" ")[0] for line in text.splitlines()[2:])
    assert SWIN in folded


def test_a_comparable_group_has_a_table(folds: Callable[..., list[Run]]) -> None:
    runs = [
        *folds(0.3, 0.3, method="a"),
        *folds(0.4, 0.4, method="b"),
        *folds(0.4, 0.4, shots=5),
    ]
    tables = leaderboard_tables(build_rows(runs))
    assert [table.row_count for table in tables] == [2, 1]
    text = printed(runs)
    assert "own@3-abcdef, 1-way 1-shot, protocol standard" in text
    assert "own@3-abcdef, 1-way 5-shot, protocol standard" in text


def test_brackets_are_text_not_markup(folds: Callable[..., list[Run]]) -> None:
    weights = {"source": "my[v2].pth", "sha256": "0"}
    text = printed(folds(0.3, 0.3, method="m[/x]", method_options={"a": "[b]"}, weights=weights))
    assert "my[v2].pth" in text
    assert "m[/x](a=[b])" in text


def test_an_incomplete_row_prints_its_folds_alone(folds: Callable[..., list[Run]]) -> None:
    text = printed(folds(0.3))
    assert "30.00" in text
    assert "None" not in text


def test_csv_quotes_what_needs_it(folds: Callable[..., list[Run]]) -> None:
    (row,) = cells(build_rows(folds(0.1, 0.2, backbone='a,"b"\nc')))
    assert row["backbone"] == 'a,"b"\nc'


@pytest.fixture
def of_files(make_run: MakeRun) -> Callable[..., list[Run]]:
    """Runs of four folds, a file each, as `evaluate --checkpoint` records them."""
    from fss_bench.checkpoint import Checkpoint
    from fss_bench.layout import Variant

    def make(name: str, pattern: str | None = None, iou: float = 0.5, **changes: Any) -> list[Run]:
        runs = []
        for fold in range(4):
            file = name.replace("*", str(fold))
            read = Checkpoint(file, f"{file}", "panet", "panet", Variant("r"), "s", series=pattern)
            runs.append(
                make_run(
                    iou,
                    fold=fold,
                    run_id=f"{file} {fold}",
                    dataset={"folds": 4},
                    weights={"source": "fine-tuned", "sha256": f"backbone of {file}"},
                    checkpoint=read.record(fold),
                    **changes,
                )
            )
        return runs

    return make


@pytest.mark.parametrize(
    ("name", "pattern", "series"),
    [
        ("run/fold*.pth", "run/fold{fold}.pth", "run/fold{fold}.pth"),
        ("run/best_*.pth", "run/best_{fold}.pth", "run/best_{fold}.pth"),
        ("run/fold*.pth", None, "run/fold{fold}.pth"),
        ("split*/best.pth", None, "split{fold}/best.pth"),
        ("Split-*/fold_*.pth", None, "Split-{fold}/fold_{fold}.pth"),
        ("run/all.pth", None, "run/all.pth"),
    ],
)
def test_a_file_a_fold_makes_one_row(
    of_files: Callable[..., list[Run]], name: str, pattern: str | None, series: str
) -> None:
    (row,) = cells(build_rows(of_files(name, pattern)))
    assert row["weights"] == f"fine-tuned ({series})"
    assert (row["rank"], row["miou"]) == ("1", "50.00")
    assert len(row["runs"].split(" ")) == 8


@pytest.mark.parametrize("name", ["run/best_*.pth", "run/epoch*_0.6.pth"])
def test_files_without_a_common_name_make_no_row_together(
    of_files: Callable[..., list[Run]], name: str
) -> None:
    rows = build_rows(of_files(name))
    assert [row.complete for row in rows] == [False] * 4


def test_two_series_are_two_rows(of_files: Callable[..., list[Run]]) -> None:
    runs = [*of_files("a/fold*.pth", iou=0.4), *of_files("b/fold*.pth", iou=0.6)]
    rows = cells(build_rows(runs))
    assert [(row["rank"], row["weights"]) for row in rows] == [
        ("1", "fine-tuned (b/fold{fold}.pth)"),
        ("2", "fine-tuned (a/fold{fold}.pth)"),
    ]
    mixed = [*of_files("a/fold*.pth")[:2], *of_files("b/fold*.pth")[2:]]
    assert [row.complete for row in build_rows(mixed)] == [False, False]


def test_a_checkpoint_and_weights_are_two_rows(
    of_files: Callable[..., list[Run]], four_folds: Callable[..., list[Run]]
) -> None:
    trained = of_files("a/fold*.pth")
    plain = four_folds(0.3, weights={"source": "fine-tuned", "sha256": "0"})
    for run in plain:
        run.record["dataset"] = trained[0].record["dataset"]
    rows = cells(build_rows([*trained, *plain]))
    assert {row["weights"] for row in rows} == {"fine-tuned", "fine-tuned (a/fold{fold}.pth)"}
    assert [row["rank"] for row in rows] == ["1", "2"]
    mixed = [*trained[:2], *plain[2:]]
    assert [row.complete for row in build_rows(mixed)] == [False, False]


@pytest.mark.parametrize("change", [{"method_options": {"scale": 3}}, {"shots": 5}, {"seed": 2}])
def test_one_series_with_other_options_is_another_row(
    of_files: Callable[..., list[Run]], change: dict[str, Any]
) -> None:
    runs = [*of_files("a/fold*.pth"), *of_files("a/fold*.pth", **change)]
    assert [row.complete for row in build_rows(runs)] == [True, True]


def test_a_checkpoint_without_a_series_goes_by_its_path(
    four_folds: Callable[..., list[Run]],
) -> None:
    file = {"path": "a/best.pth", "sha256": "0"}
    runs = four_folds(0.5, checkpoint=file)
    (row,) = cells(build_rows(runs))
    assert row["weights"] == "imagenet (a/best.pth)"


def test_without_any_one_field_a_run_is_refused_or_the_leaderboard_is_the_same(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    store = ResultStore(tmp_path)
    whole = store.write(make_run()).path
    assert whole is not None
    data = json.loads((whole / "run.json").read_text())
    expected = to_csv(build_rows([store.load(whole)]))

    def without(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, value in content.items():
            yield name, {k: v for k, v in content.items() if k != name}
            if isinstance(value, dict) and name != "method_options":
                yield from ((n, {**content, name: left}) for n, left in without(value))

    for name, left in without(data):
        (whole / "run.json").write_text(json.dumps(left))
        try:
            found = to_csv(build_rows([store.load(whole)]))
        except ResultsError as error:
            named = {"cat": "class 1", "dog": "class 2"}.get(name, name)  # who knows their names?
            found = expected if named in str(error) else str(error)
        assert found == expected, name
