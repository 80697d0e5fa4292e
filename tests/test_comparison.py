"""Comparing runs: what is paired, what is refused, and what the table says."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fss_bench.cli import main
from fss_bench.comparison import check_runs, compare_folds, compare_runs, find_run
from fss_bench.errors import FssBenchError
from fss_bench.metrics import compute_metrics
from fss_bench.protocols import PROTOCOLS, get_protocol
from fss_bench.report.comparison import print_comparison
from fss_bench.results import ResultStore, Run

MakeRun = Callable[..., Run]
SWIN = "swin_base_patch4_window12_384"


def scored(run: Run, inter: Sequence[int], union: Sequence[int] | int = 100) -> Run:
    """The run with these counts, classes cat and dog in turn, and what they score."""
    n = len(inter)
    table = pd.concat([run.episodes.iloc[[0]]] * n, ignore_index=True)
    table["index"] = range(n)
    table["query"] = [f"q{i}" for i in range(n)]
    table["class_ids"] = [[1 + i % 2] for i in range(n)]
    unions = [union] * n if isinstance(union, int) else list(union)
    for twin in ("", "_255bg"):
        table[f"inter_ways{twin}"] = [[i] for i in inter]
        table[f"union_ways{twin}"] = [[u] for u in unions]
    rules = get_protocol("standard").replace_rules(
        {k: v for k, v in run.record["protocol"].items() if k not in ("name", "label")}
    )
    metrics = compute_metrics(
        table, {1: "cat", 2: "dog"}, [1, 2], rules.empty_class, rules.fb_iou, rules.runs
    )
    return replace(run, metrics=metrics, episodes=table, record={**run.record, "episodes": n})


def random_counts(seed: int, n: int = 40) -> list[int]:
    return np.random.default_rng(seed).integers(0, 80, n).tolist()


@pytest.fixture
def two(make_run: MakeRun) -> tuple[Run, Run]:
    """Two methods, of which the second is better by ten points in every episode."""
    counts = random_counts(0)
    return (
        scored(make_run(run_id="aaaaaaaaaaaa"), counts),
        scored(make_run(run_id="bbbbbbbbbbbb", method="hsnet"), [c + 10 for c in counts]),
    )


def test_a_constant_gain(two: tuple[Run, Run]) -> None:
    (found,) = compare_runs(two)
    d = found.difference
    assert d.paired
    assert d.value == pytest.approx(0.1)
    assert d.ci95 == (pytest.approx(0.1), pytest.approx(0.1))
    assert d.p == found.p == pytest.approx(1 / 2001)
    assert found.notes == ()


def test_a_run_beside_itself(two: tuple[Run, Run]) -> None:
    again = replace(two[0], record={**two[0].record, "run_id": "again"})
    (found,) = compare_runs([two[0], again])
    assert (found.difference.value, found.difference.ci95, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_scores_are_those_of_the_runs(two: tuple[Run, Run]) -> None:
    d = compare_folds([two[0]], [two[1]])
    assert (d.first, d.second) == pytest.approx([run.metrics.miou for run in two])
    assert d.p is None  # nobody asked


def test_repetitions_are_scored_on_their_own(make_run: MakeRun) -> None:
    protocol = PROTOCOLS["standard"].replace_rules({"runs": 2})
    runs = [scored(make_run(protocol=protocol), random_counts(i), random_union(i)) for i in (0, 1)]
    d = compare_folds([runs[0]], [runs[1]])
    assert (d.first, d.second) == pytest.approx([run.metrics.miou for run in runs])
    halves = [
        scored(make_run(), random_counts(0)[half], random_union(0)[half]).metrics.miou
        for half in (slice(20), slice(20, 40))
    ]
    assert d.first == pytest.approx(np.mean(halves))


def test_counts_at_other_input_sizes_are_swapped_at_one_scale(make_run: MakeRun) -> None:
    hsnet = PROTOCOLS["hsnet"]
    counts = random_counts(0)
    small = scored(make_run(protocol=hsnet, input_size=10), counts, 100)
    large = scored(make_run(protocol=hsnet, input_size=40), [16 * c for c in counts], 1600)
    better = scored(make_run(protocol=hsnet, input_size=40), [16 * c + 160 for c in counts], 1600)
    assert compare_folds([small], [large], p_value=True).p == 1.0
    assert compare_folds([small], [better], p_value=True).p == pytest.approx(1 / 2001)


def random_union(seed: int, n: int = 40) -> list[int]:
    return np.random.default_rng(seed + 50).integers(80, 300, n).tolist()


def test_folds_weigh_the_same(make_run: MakeRun) -> None:
    first = [scored(make_run(fold=f), random_counts(f)) for f in (0, 1)]
    second = [scored(make_run(fold=f), [c + 4 * f for c in random_counts(f)], 100) for f in (0, 1)]
    assert compare_folds(first, second).value == pytest.approx(0.02)


def test_other_episodes_are_not_paired(make_run: MakeRun) -> None:
    first = scored(make_run(), random_counts(0))
    second = scored(make_run(episodes_sha256="1" * 64), random_counts(0))
    d = compare_folds([first], [second], p_value=True)
    assert (d.paired, d.p, d.value) == (False, None, 0.0)
    assert d.ci95[0] < -0.02 < 0.02 < d.ci95[1]


def test_one_digest_and_other_classes_are_not_paired(make_run: MakeRun) -> None:
    first = scored(make_run(), random_counts(0))
    second = scored(make_run(), random_counts(0))
    second.episodes["class_ids"] = second.episodes["class_ids"][::-1].to_list()
    assert not compare_folds([first], [second]).paired


@pytest.mark.parametrize("change", ["class_ids", "query", "index", "rows"])
def test_tables_that_do_not_match_are_refused(two: tuple[Run, Run], change: str) -> None:
    first, second = two
    if change == "rows":
        second = replace(second, episodes=second.episodes[:-1])
    else:
        column = second.episodes[change].to_list()
        second.episodes[change] = [column[0], *column[:-1]]
    with pytest.raises(FssBenchError) as caught:
        compare_runs([first, second])
    text = str(caught.value)
    assert text.startswith("runs aaaaaaaaaaaa and bbbbbbbbbbbb do not compare: their episode lists")
    assert f"(40 rows, {len(second.episodes)} rows)" in text
    assert "\n" not in text


def test_the_order_of_rows_does_not_matter(two: tuple[Run, Run]) -> None:
    shuffled = replace(two[1], episodes=two[1].episodes[::-1])
    assert compare_runs([two[0], shuffled])[0].difference == compare_runs(two)[0].difference


def slow_miou(rows: Sequence[tuple[int, int, int]]) -> float:
    """Of rows (class, intersection, union), over the classes with a pixel."""
    ious = []
    for class_id in {row[0] for row in rows}:
        union = sum(row[2] for row in rows if row[0] == class_id)
        if union:
            ious.append(sum(row[1] for row in rows if row[0] == class_id) / union)
    return sum(ious) / len(ious)


def test_p_where_a_class_has_pixels_in_one_run_alone(make_run: MakeRun) -> None:
    # nothing of class 2 is there, and the second run alone has false positives, in two episodes
    inter = ([60, 0, 50, 0, 40, 0, 20, 0], [60, 0, 50, 0, 70, 0, 70, 0])
    union = ([100, 0] * 4, [100, 10, 100, 0, 100, 0, 100, 10])
    rows = [list(zip([1, 2] * 4, i, u, strict=True)) for i, u in zip(inter, union, strict=True)]
    observed = abs(slow_miou(rows[1]) - slow_miou(rows[0]))
    far = []
    for swaps in product([0, 1], repeat=8):
        first = [rows[swap][i] for i, swap in enumerate(swaps)]
        second = [rows[1 - swap][i] for i, swap in enumerate(swaps)]
        far.append(abs(slow_miou(second) - slow_miou(first)) >= observed - 1e-12)
    expected = sum(far) / len(far)
    assert expected == 0.5
    runs = [scored(make_run(run_id=str(i)), inter[i], union[i]) for i in (0, 1)]
    (found,) = compare_runs(runs)
    assert found.p == pytest.approx(expected, abs=0.04)
    assert (found.difference.first, found.difference.second) == pytest.approx(
        [slow_miou(one) for one in rows]
    )


def test_classes_that_one_does_not_average_are_left_out(make_run: MakeRun) -> None:
    runs = [scored(make_run(run_id=c), random_counts(i)) for i, c in enumerate("ab")]
    both = compare_runs(runs)[0]
    assert both.notes == ()
    runs[1].metrics.per_class.pop("dog")
    (found,) = compare_runs(runs)
    assert found.notes == ("averaged over the classes of both alone (1)",)
    cats = [run.metrics.per_class["cat"].iou for run in runs]
    assert [found.difference.first, found.difference.second] == pytest.approx(cats)
    assert found.difference.paired


def test_classes_are_averaged_by_each_runs_own_rule(make_run: MakeRun) -> None:
    zero = PROTOCOLS["standard"].replace_rules({"empty_class": "zero"})
    counts, union = [10, 0, 20, 0], [40, 0, 40, 0]
    first = scored(make_run(), counts, union)
    second = scored(make_run(protocol=zero), counts, union)
    d = compare_folds([first], [second], p_value=True)
    assert (d.first, d.second) == pytest.approx((30 / 80, 15 / 80))
    assert d.paired


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": {"name": "b"}}, "the dataset differs (own@3-abcdef, b)"),
        ({"dataset": {"fingerprint": "g"}}, "index differs (f, g)"),
        ({"dataset": {"classes_sha256": "d"}}, "class lists of the folds differ (c, d)"),
        ({"fold": 1}, "the fold differs (0, 1)"),
        ({"ways": 2}, "the ways differ (1, 2)"),
        ({"shots": 5}, "the shots differ (1, 5)"),
        ({"episodes_sha256": "12" * 32}, "the episodes differ (000000000000, 121212121212)"),
    ],
)
def test_what_does_not_compare_is_refused(
    make_run: MakeRun, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(FssBenchError) as caught:
        compare_runs([make_run(run_id="a"), make_run(run_id="b", **change)])
    text = str(caught.value)
    assert text.startswith("runs a and b do not compare: ")
    assert words in text
    assert text.count("differ") == 1
    assert "\n" not in text


def test_all_that_differs_is_named(make_run: MakeRun) -> None:
    other = make_run(shots=5, fold=1, episodes_sha256="1" * 64)
    with pytest.raises(FssBenchError, match=r"shots differ.*fold differs.*episodes differ"):
        check_runs(make_run(), other)


def test_one_method_under_two_protocols_measures_the_rule(make_run: MakeRun) -> None:
    loose = PROTOCOLS["standard"].replace_rules({"query_ignore": "background"})
    first = scored(make_run(), random_counts(0))
    second = scored(make_run(protocol=loose), random_counts(1))
    (found,) = compare_runs([first, second])
    text = printed([first, second])
    assert "over episodes.\n" in text
    assert "permutation" not in text
    (note,) = found.notes
    assert "query_ignore (excluded, background)" in note
    assert found.p is None  # counts of other pixels cannot be swapped


@pytest.mark.parametrize(
    "change",
    [
        {"method": "hsnet"},
        {"method_options": {"level": "c3"}},
        {"backbone": "vgg16"},
        {"weights": {"source": "imagenet", "sha256": "cd" * 32}},
        {"checkpoint": {"path": "a", "sha256": "0"}},
    ],
)
def test_two_things_at_once_are_refused(make_run: MakeRun, change: dict[str, Any]) -> None:
    loose = PROTOCOLS["standard"].replace_rules({"query_ignore": "background"})
    with pytest.raises(FssBenchError) as caught:
        check_runs(make_run(), make_run(protocol=loose, **change))
    assert "query_ignore (excluded, background)" in str(caught.value)
    assert next(iter(change)) in str(caught.value)
    assert check_runs(make_run(), make_run(**change)) == []


def test_a_rule_that_a_record_is_older_than_has_its_default(make_run: MakeRun) -> None:
    old = make_run()
    for rule in ("image_filter", "seeds", "runs", "vanished"):
        old.record["protocol"].pop(rule)
    assert check_runs(old, make_run()) == []
    assert compare_folds([old], [make_run()], p_value=True).p == 1.0
    changed = PROTOCOLS["standard"].replace_rules({"vanished": "dropped"})
    (note,) = check_runs(old, make_run(protocol=changed))
    assert "vanished (counted, dropped)" in note


def test_the_name_of_a_protocol_is_no_rule(make_run: MakeRun) -> None:
    named = replace(PROTOCOLS["standard"], name="mine")
    assert check_runs(make_run(), make_run(protocol=named, method="hsnet")) == []


def test_another_device_is_noted(make_run: MakeRun) -> None:
    (note,) = check_runs(make_run(), make_run(device_type="cuda"))
    assert "(cpu, cuda)" in note


def test_other_code_is_noted(make_run: MakeRun) -> None:
    (note,) = check_runs(make_run(), make_run(code_sha256="e" * 64))
    assert "other code (dddddddddddd, eeeeeeeeeeee)" in note


@pytest.mark.parametrize("places", [(0, 0), (0, 1, 1), (0, 1, 0)])
def test_a_run_given_twice_is_refused(two: tuple[Run, Run], places: tuple[int, ...]) -> None:
    runs = [replace(two[i], record=dict(two[i].record)) for i in places]
    twice = "bbbbbbbbbbbb" if places[1:] == (1, 1) else "aaaaaaaaaaaa"
    with pytest.raises(FssBenchError) as caught:
        compare_runs(runs)
    assert str(caught.value) == f"run {twice} is given twice: leave one out"


def test_several_runs_are_corrected(make_run: MakeRun) -> None:
    first = scored(make_run(run_id="a"), random_counts(0))
    noisy = [c + d for c, d in zip(random_counts(0), random_counts(3), strict=True)]
    others = [
        scored(make_run(run_id="b"), [c + 10 for c in random_counts(0)]),
        scored(make_run(run_id="c"), [c - 20 for c in noisy]),
    ]
    found = compare_runs([first, *others])
    single = [compare_runs([first, run])[0].p for run in others]
    assert [one.difference.p for one in found] == single
    assert found[0].p == pytest.approx(2 * (single[0] or 0))
    assert single[1] is not None
    assert found[1].p == pytest.approx(max(single[1], 2 * (single[0] or 0)))


def test_one_run_is_not_enough(make_run: MakeRun) -> None:
    with pytest.raises(FssBenchError, match="give two or more"):
        compare_runs([make_run()])


def printed(runs: Sequence[Run]) -> str:
    console = Console(file=StringIO(), width=80)
    print_comparison(runs[0], compare_runs(runs), console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_table_fits_80_columns_and_cuts_nothing(make_run: MakeRun) -> None:
    wide: dict[str, Any] = {
        "backbone": SWIN,
        "method_options": {"levels": "c3,c4,c5", "scale": 10},
        "dataset": {"name": "pascal5i@1449-1a2b3c"},
    }
    runs = [
        scored(make_run(run_id=f"{c}" * 12, **wide), [v + i for v in random_counts(i)])
        for i, c in enumerate("abc")
    ]
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for run in runs:
        assert run.record["run_id"] in text
        assert f"{100 * run.metrics.miou:.2f}" in text
    assert "Holm-corrected for 2 comparisons" in text
    assert "Holm" not in printed(runs[:2])
    loose = PROTOCOLS["standard"].replace_rules({"query_ignore": "background"})
    rule = scored(make_run(run_id="d" * 12, protocol=loose, **wide), random_counts(4))
    assert "Holm-corrected for 2 comparisons" in printed([*runs, rule])  # that has no p
    text = printed([*runs[:2], rule])
    assert "by a paired permutation test." in text
    assert "Holm" not in text


def test_brackets_are_text_not_markup(make_run: MakeRun) -> None:
    runs = [make_run(run_id="a", method="m[/x]"), make_run(run_id="b", method="m[red]")]
    text = printed(runs)
    assert "m[/x]" in text
    assert "m[red]" in text


@pytest.fixture
def stored(two: tuple[Run, Run], tmp_path: Path) -> Path:
    store = ResultStore(tmp_path / "results")
    for run in two:
        store.write(run)
    return store.root


def call(*arguments: object, status: int = 0) -> tuple[str, str]:
    out, errors = StringIO(), StringIO()
    with (
        patch.object(sys, "argv", ["fss-bench", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    assert stopped.value.code == status, errors.getvalue()
    return out.getvalue(), errors.getvalue()


def test_the_command_takes_ids_and_folders(two: tuple[Run, Run], stored: Path) -> None:
    folder = ResultStore(stored).folder(two[1].record)
    text, _ = call("compare", "aaaaaaaaaaaa", folder, "--results", stored)
    assert "+10.00" in text
    assert "0.0005" in text


def test_the_command_as_json(stored: Path) -> None:
    names = ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    text, _ = call("compare", *names, "--results", stored, "--json")
    found = json.loads(text)
    assert found["first"]["run_id"] == names[0]
    (run,) = found["runs"]
    assert (run["run_id"], run["method"], run["notes"]) == (names[1], "hsnet", [])
    assert run["difference"] == pytest.approx(0.1)
    assert run["p"] == run["p_holm"] == pytest.approx(1 / 2001)


def test_the_command_refuses_in_one_line(make_run: MakeRun, stored: Path) -> None:
    ResultStore(stored).write(make_run(run_id="cccccccccccc", episodes_sha256="12" * 32))
    text, errors = call("compare", "aaaaaaaaaaaa", "cccccccccccc", "--results", stored, status=2)
    assert text == ""
    (line,) = errors.splitlines()
    assert "000000000000" in line
    assert "121212121212" in line


@pytest.mark.parametrize("name", ["nothing", "", "aaaa", "*"])
def test_an_unknown_run_is_an_error(stored: Path, name: str) -> None:
    with pytest.raises(FssBenchError, match="neither the folder of a run nor an id"):
        find_run(name, stored)


def test_one_run_on_the_command_line(stored: Path) -> None:
    _, errors = call("compare", "aaaaaaaaaaaa", "--results", stored, status=2)
    assert "give two or more" in errors
