"""Counts by hand and against a loop over pixels; mIoU and FB-IoU pool, they do not average."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fss_bench.metrics import (
    COUNTS,
    EpisodeCounts,
    averaged_a_run,
    class_counts,
    compute_metrics,
    confusion,
    episode_counts,
    fb_iou,
    fb_iou_ci95,
    run_tables,
)
from fss_bench.results import ClassScore, Run

NAMES = {1: "cat", 2: "dog", 3: "cow"}


def pixels(*values: int) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8).reshape(2, -1)


def counts(
    prediction: NDArray[np.uint8], target: NDArray[np.uint8], ways: int = 1, **kwargs: bool
) -> EpisodeCounts:
    return episode_counts(confusion(prediction, target, ways), **kwargs)


def test_four_pixels_one_of_each_kind() -> None:
    # hit, false alarm, miss, correct background
    found = counts(pixels(1, 1, 0, 0), pixels(1, 0, 1, 0))
    assert found == EpisodeCounts(1, 3, 1, 3, (1,), (3,))


def test_an_ignored_pixel_is_excluded_whatever_was_predicted() -> None:
    # the third pixel is 255: it counts nowhere
    for guess in (0, 1):
        found = counts(pixels(1, 1, guess, 0), pixels(1, 0, 255, 0))
        assert found == EpisodeCounts(1, 2, 1, 2, (1,), (2,))


def test_an_ignored_pixel_as_background_is_an_error_when_predicted() -> None:
    wrong = counts(pixels(1, 1, 1, 0), pixels(1, 0, 255, 0), ignore_as_background=True)
    assert wrong == EpisodeCounts(1, 3, 1, 3, (1,), (3,))
    right = counts(pixels(1, 1, 0, 0), pixels(1, 0, 255, 0), ignore_as_background=True)
    assert right == EpisodeCounts(1, 2, 2, 3, (1,), (2,))


def test_nothing_but_ignored_pixels() -> None:
    target = pixels(255, 255, 255, 255)
    assert counts(pixels(1, 1, 0, 0), target) == EpisodeCounts(0, 0, 0, 0, (0,), (0,))
    as_background = counts(pixels(1, 1, 0, 0), target, ignore_as_background=True)
    assert as_background == EpisodeCounts(0, 2, 2, 4, (0,), (2,))


def test_a_perfect_and_an_empty_prediction() -> None:
    target = pixels(1, 1, 1, 0)
    assert counts(target, target) == EpisodeCounts(3, 3, 1, 1, (3,), (3,))
    assert counts(pixels(0, 0, 0, 0), target) == EpisodeCounts(0, 3, 1, 4, (0,), (3,))


def test_confusion_of_two_ways_is_target_by_prediction() -> None:
    prediction = pixels(1, 2, 2, 0, 1, 0)
    target = pixels(1, 1, 2, 0, 255, 2)
    assert confusion(prediction, target, ways=2).tolist() == [
        [1, 0, 0],  # background
        [0, 1, 1],  # way 1: one right, one taken for way 2
        [1, 0, 1],  # way 2: one missed, one right
        [0, 1, 0],  # ignored
    ]


def test_counts_of_two_ways() -> None:
    # way 1 taken for way 2: wrong for both ways, right for foreground against background
    found = counts(pixels(1, 2, 2, 0, 1, 0), pixels(1, 1, 2, 0, 255, 2), ways=2)
    assert (found.inter_ways, found.union_ways) == ((1, 1), (2, 3))
    assert (found.inter_fg, found.union_fg) == (3, 4)
    assert (found.inter_bg, found.union_bg) == (1, 2)


def slow_counts(
    prediction: NDArray[Any], target: NDArray[Any], ways: int, ignore_as_background: bool
) -> EpisodeCounts:
    tally: dict[str, int] = dict.fromkeys(COUNTS, 0)
    inter, union = [0] * ways, [0] * ways
    for guess, truth in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if truth == 255:
            if not ignore_as_background:
                continue
            truth = 0
        tally["inter_fg"] += guess > 0 and truth > 0
        tally["union_fg"] += guess > 0 or truth > 0
        tally["inter_bg"] += guess == 0 and truth == 0
        tally["union_bg"] += guess == 0 or truth == 0
        for way in range(1, ways + 1):
            inter[way - 1] += guess == way and truth == way
            union[way - 1] += guess == way or truth == way
    return EpisodeCounts(**tally, inter_ways=tuple(inter), union_ways=tuple(union))


@st.composite
def predictions(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    ways = draw(st.integers(1, 5))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    label = st.integers(0, ways)
    prediction = draw(arrays(np.uint8, shape, elements=label))
    return prediction, draw(arrays(np.uint8, shape, elements=label | st.just(255))), ways


@given(predictions(), st.booleans())
def test_counts_equal_a_loop_over_pixels(
    case: tuple[NDArray[np.uint8], NDArray[np.uint8], int], ignore_as_background: bool
) -> None:
    prediction, target, ways = case
    before = prediction.copy(), target.copy()
    found = episode_counts(confusion(prediction, target, ways), ignore_as_background)
    assert found == slow_counts(prediction, target, ways, ignore_as_background)
    assert np.array_equal(prediction, before[0])
    assert np.array_equal(target, before[1])


def test_counting_both_ways_from_one_matrix_leaves_it_alone() -> None:
    matrix = confusion(pixels(1, 0, 0, 0), pixels(1, 0, 255, 0), 1)
    first = episode_counts(matrix)
    episode_counts(matrix, ignore_as_background=True)
    assert episode_counts(matrix) == first


def test_counts_are_plain_integers_under_their_column_names() -> None:
    columns = counts(pixels(1, 1, 0, 0), pixels(1, 0, 255, 0)).columns("_255bg")
    assert columns == {
        "inter_fg_255bg": 1,
        "union_fg_255bg": 2,
        "inter_bg_255bg": 1,
        "union_bg_255bg": 2,
        "inter_ways_255bg": [1],
        "union_ways_255bg": [2],
    }
    assert {type(v) for v in columns.values()} == {int, list}
    plain = counts(pixels(1, 1, 0, 0), pixels(1, 0, 255, 0)).columns()
    assert list(plain) == [*COUNTS, "inter_ways", "union_ways"]


Episode = tuple[int, int, int]
"""Class id, intersection, union."""


def table(
    episodes: Sequence[Episode],
    as_background: Sequence[Episode] | None = None,
    background: tuple[int, int] = (60, 80),
) -> pd.DataFrame:
    """An episode table of 1-way episodes."""
    rows = []
    for (class_id, inter, union), twin in zip(episodes, as_background or episodes, strict=True):
        row: dict[str, Any] = {"class_ids": [class_id]}
        for suffix, (_, i, u) in (("", (class_id, inter, union)), ("_255bg", twin)):
            row[f"inter_fg{suffix}"], row[f"union_fg{suffix}"] = i, u
            row[f"inter_bg{suffix}"], row[f"union_bg{suffix}"] = background
            row[f"inter_ways{suffix}"], row[f"union_ways{suffix}"] = [i], [u]
        rows.append(row)
    return pd.DataFrame(rows)


def test_miou_pools_over_episodes_before_it_averages_over_classes() -> None:
    # cat: (90 + 0) / (100 + 10), not the mean of 0.9 and 0; dog: 10 / 40
    metrics = compute_metrics(table([(1, 90, 100), (2, 10, 40), (1, 0, 10)]), NAMES, [1, 2])
    assert metrics.miou == pytest.approx((90 / 110 + 10 / 40) / 2, abs=1e-12)
    assert metrics.miou != pytest.approx((0.9 + 0.25 + 0) / 3, abs=0.05)
    assert metrics.miou != pytest.approx((0.45 + 0.25) / 2, abs=0.05)
    cat = metrics.per_class["cat"]
    assert (cat.class_id, cat.inter, cat.union, cat.episodes) == (1, 90, 110, 2)
    assert cat.iou == pytest.approx(90 / 110)
    assert metrics.per_class["dog"].episodes == 1


def test_fb_iou_pools_over_classes_and_episodes() -> None:
    # foreground 100 / 150, background 180 / 240
    metrics = compute_metrics(table([(1, 90, 100), (2, 10, 40), (1, 0, 10)]), NAMES, [1, 2])
    assert metrics.fb_iou == pytest.approx((100 / 150 + 180 / 240) / 2, abs=1e-12)


def test_the_255_twin_gives_its_own_miou_and_no_other_score() -> None:
    twin = [(1, 90, 150), (2, 10, 50)]
    metrics = compute_metrics(table([(1, 90, 100), (2, 10, 40)], twin), NAMES, [1, 2])
    assert metrics.miou_255_as_background == pytest.approx((90 / 150 + 10 / 50) / 2)
    assert metrics.miou == pytest.approx((0.9 + 0.25) / 2)
    assert metrics.per_class["cat"].union == 100


@pytest.mark.parametrize(
    "episodes", [[(1, 50, 100), (2, 20, 100)], [(1, 50, 100), (2, 20, 100), (3, 0, 0)]]
)
def test_a_class_without_an_episode_or_a_pixel(episodes: list[Episode]) -> None:
    skipped = compute_metrics(table(episodes), NAMES, [1, 2, 3], "skip")
    assert skipped.miou == pytest.approx((0.5 + 0.2) / 2)
    assert skipped.miou_255_as_background == pytest.approx((0.5 + 0.2) / 2)
    zero = compute_metrics(table(episodes), NAMES, [1, 2, 3], "zero")
    assert zero.miou == pytest.approx((0.5 + 0.2 + 0) / 3)
    assert zero.miou_255_as_background == pytest.approx((0.5 + 0.2 + 0) / 3)
    for metrics in (skipped, zero):
        cow = metrics.per_class["cow"]
        assert (cow.iou, cow.inter, cow.union) == (None, 0, 0)
        assert cow.episodes == len(episodes) - 2
        low, high = metrics.miou_ci95
        assert low == pytest.approx(metrics.miou)
        assert high == pytest.approx(metrics.miou)


def test_a_class_that_was_never_found_counts_as_zero_under_both_rules() -> None:
    for rule in ("skip", "zero"):
        metrics = compute_metrics(table([(1, 50, 100), (2, 0, 70)]), NAMES, [1, 2], rule)
        assert metrics.miou == pytest.approx(0.25)
        assert metrics.per_class["dog"].iou == 0.0


def test_no_pixel_at_all_gives_zeros_not_nan() -> None:
    empty = table([(1, 0, 0), (2, 0, 0)], background=(0, 0))
    for rule in ("skip", "zero"):
        metrics = compute_metrics(empty, NAMES, [1, 2], rule)
        assert (metrics.miou, metrics.miou_ci95, metrics.fb_iou) == (0.0, (0.0, 0.0), 0.0)


def test_metrics_do_not_depend_on_how_the_table_was_stored(tmp_path: Any) -> None:
    episodes = table([(1, 90, 100), (2, 10, 40), (1, 0, 10), (3, 7, 9)])
    episodes.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert compute_metrics(again, NAMES, [1, 2, 3]) == compute_metrics(episodes, NAMES, [1, 2, 3])


def test_class_counts_have_a_row_an_episode_and_way() -> None:
    episodes = pd.DataFrame(
        {
            "class_ids": [[4, 9], [9, 2]],
            "inter_ways": [[1, 2], [3, 4]],
            "union_ways": [[5, 6], [7, 8]],
        }
    )
    rows = class_counts(episodes)
    assert rows.to_dict("list") == {
        "class_id": [4, 9, 9, 2],
        "inter": [1, 2, 3, 4],
        "union": [5, 6, 7, 8],
        "episode": [0, 0, 1, 1],
    }
    assert rows.index.tolist() == [0, 1, 2, 3]
    assert set(rows.dtypes) == {np.dtype("int64")}


def scattered(seed: int, n: int = 120) -> pd.DataFrame:
    """Episodes of 3 classes whose foreground and background counts scatter."""
    rng = np.random.default_rng(seed)
    union = np.exp(rng.normal(7, 0.6, n)).astype(np.int64) + 1
    inter = (union / (1 + np.exp(-rng.normal(0.4, 1, n)))).astype(np.int64)
    other = 9000 - (union - inter)
    return pd.DataFrame(
        {
            "index": range(n),
            "class_ids": [[1 + i % 3] for i in range(n)],
            "inter_fg": inter,
            "union_fg": union,
            "inter_bg": other - union // 3,
            "union_bg": other,
            "inter_ways": [[i] for i in inter],
            "union_ways": [[u] for u in union],
        }
    )


def arrays_of(table: pd.DataFrame) -> NDArray[np.int64]:
    """Class, and the four counts, of each episode."""
    ids = [one for (one,) in table["class_ids"]]
    return np.column_stack([ids, table[list(COUNTS)].to_numpy()])


def point_fb(folds: Sequence[Sequence[NDArray[np.int64]]], rule: str) -> float:
    """FB-IoU of episodes of one way, from their arrays."""
    if rule == "all-folds":
        folds = [[np.concatenate(tables) for tables in zip(*folds, strict=True)]]
    found = []
    for table in (table for fold in folds for table in fold):
        foreground, background = (table[:, i].sum() / table[:, i + 1].sum() for i in (1, 3))
        if rule == "class-mean":
            classes = [table[table[:, 0] == c] for c in (1, 2, 3)]
            foreground = np.mean([rows[:, 1].sum() / rows[:, 2].sum() for rows in classes])
        found.append(foreground if rule == "foreground" else (foreground + background) / 2)
    return float(np.mean(found))


@pytest.mark.parametrize("rule", ["fold", "all-folds", "class-mean", "foreground"])
def test_the_interval_of_fb_iou_equals_a_loop(rule: str) -> None:
    folds = [[scattered(1), scattered(2)], [scattered(3), scattered(4)]]
    whole = [[arrays_of(table) for table in fold] for fold in folds]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        drawn = []
        for fold in whole:
            picks = [rng.integers(0, 40, (3, 40)) * 3 + np.arange(3)[:, None] for _ in fold]
            drawn.append([table[pick.ravel()] for table, pick in zip(fold, picks, strict=True)])
        found.append(point_fb(drawn, rule))
    low, high = np.quantile(found, [0.025, 0.975])
    assert high - low > 0.003
    ends = fb_iou_ci95(folds, rule, [3] * 4)
    assert ends == pytest.approx((low, high), abs=0.15 * (high - low))
    assert ends[0] < point_fb(whole, rule) < ends[1]


@pytest.mark.slow
def test_about_95_in_100_intervals_of_fb_iou_cover_the_truth() -> None:
    truth = point_fb([[arrays_of(scattered(10**6, 300_000))]], "fold")
    ends = [fb_iou_ci95([[scattered(seed)]], "fold", [3]) for seed in range(200)]
    assert 0.9 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.985


episode_lists = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 500), st.integers(0, 500)).map(
        lambda e: (e[0], min(e[1:]), max(e[1:]))
    ),
    min_size=1,
    max_size=15,
)


@given(episode_lists, st.sampled_from(["skip", "zero"]))
def test_scores_equal_sums_written_out(episodes: list[Episode], rule: str) -> None:
    metrics = compute_metrics(table(episodes), NAMES, [1, 2, 3], rule)
    ious = []
    for class_id in (1, 2, 3):
        inter = sum(i for c, i, _ in episodes if c == class_id)
        union = sum(u for c, _, u in episodes if c == class_id)
        if union:
            ious.append(inter / union)
        elif rule == "zero":
            ious.append(0.0)
    assert metrics.miou == pytest.approx(sum(ious) / len(ious) if ious else 0.0, abs=1e-12)
    total = sum(i for _, i, _ in episodes) / max(1, sum(u for _, _, u in episodes))
    assert metrics.fb_iou == pytest.approx((total + 60 / 80) / 2, abs=1e-12)
    low, high = metrics.miou_ci95
    assert 0 <= low <= high <= 1


def test_what_vanished_counts_nothing_where_a_protocol_says_so() -> None:
    vanished = counts(pixels(1, 1, 0, 0), pixels(0, 0, 0, 0), drop_vanished=True)
    assert vanished == EpisodeCounts(0, 0, 2, 4, (0,), (0,))
    assert counts(pixels(1, 1, 0, 0), pixels(0, 0, 0, 0)) == EpisodeCounts(0, 2, 2, 4, (0,), (2,))
    # way 1 vanished, its false alarms count for the foreground, which has not
    found = counts(pixels(1, 2, 0, 1), pixels(2, 2, 0, 0), ways=2, drop_vanished=True)
    assert found == EpisodeCounts(2, 3, 1, 2, (0, 1), (0, 2))
    background = counts(pixels(0, 1, 1, 1), pixels(1, 1, 1, 1), drop_vanished=True)
    assert background == EpisodeCounts(3, 4, 0, 0, (3,), (4,))


def test_one_pixel_has_not_vanished() -> None:
    found = counts(pixels(1, 1, 0, 0), pixels(1, 0, 0, 0), drop_vanished=True)
    assert found == EpisodeCounts(1, 2, 2, 3, (1,), (2,))


def test_a_matrix_is_of_whole_numbers() -> None:
    assert confusion(pixels(1, 0, 0, 0), pixels(1, 0, 255, 0), 1).dtype == np.int64


def two_runs() -> pd.DataFrame:
    """Cat 40 / 100 and dog 10 / 50 in the first run; cat 80 / 100 alone in the second."""
    episodes = table([(1, 80, 100), (2, 10, 50), (1, 40, 100), (1, 0, 0)])
    return episodes.assign(index=[2, 1, 0, 3])


def test_runs_are_blocks_in_order_of_index() -> None:
    tables = run_tables(two_runs(), 2)
    assert [one["index"].tolist() for one in tables] == [[0, 1], [2, 3]]
    (whole,) = run_tables(two_runs(), 1)
    assert whole["index"].tolist() == [2, 1, 0, 3]


def test_each_run_has_its_score_and_the_mean_of_them_is_the_score() -> None:
    metrics = compute_metrics(two_runs(), NAMES, [1, 2], fb_rule="class-mean", runs=2)
    assert metrics.miou_runs == pytest.approx(((0.4 + 0.2) / 2, 0.8))
    assert metrics.miou == pytest.approx((0.3 + 0.8) / 2)
    assert metrics.fb_iou == pytest.approx(((0.3 + 0.75) / 2 + (0.8 + 0.75) / 2) / 2)
    assert metrics.per_class["cat"].iou == pytest.approx(120 / 200)  # the table of classes pools


def test_classes_averaged_over_are_counted_a_run(make_run: Callable[..., Run]) -> None:
    run = make_run()
    names = {name: ClassScore(c, 0.5, 1, 2, 1) for c, name in NAMES.items()}
    run = replace(run, episodes=two_runs(), metrics=replace(run.metrics, per_class=names))
    for rule, expected in (("skip", [2, 1]), ("zero", [3, 3])):
        run.record["protocol"]["empty_class"] = rule
        counts = [class_counts(each) for each in run_tables(two_runs(), 2)]
        assert averaged_a_run(run, counts) == expected
    assert averaged_a_run(run, [class_counts(two_runs())]) == [3]


def test_by_default_a_class_without_a_pixel_is_left_out() -> None:
    episodes = table([(1, 50, 100), (2, 20, 100)])
    assert compute_metrics(episodes, NAMES, [1, 2, 3]).miou == pytest.approx(0.35)


FB_RULES = {
    "fold": ((0.5 + 0.9) / 2 + (0.75 + 0.25) / 2) / 2,
    "all-folds": (100 / 120 + 40 / 80) / 2,
    "class-mean": ((0.5 + 0.9) / 2 / 2 + (0.75 + 0.25) / 2) / 2,  # a mean over two classes
    "foreground": (0.5 + 0.9) / 2,
}


@pytest.mark.parametrize("rule", FB_RULES)
def test_fb_iou_and_its_interval_follow_the_rule(rule: str) -> None:
    # all episodes of a fold are alike, so that each resample has the score of the whole
    folds = [
        [table([(1, 10, 20)] * 4, background=(30, 40))],
        [table([(1, 90, 100)] * 4, background=(10, 40))],
    ]
    expected = FB_RULES[rule]
    assert fb_iou_ci95(folds, rule, [2, 2]) == pytest.approx((expected, expected))
    groups = [[one for (one,) in folds]] if rule == "all-folds" else folds
    mious = [0.25, 0.45] if rule == "class-mean" else [0.0, 0.0]
    points = [fb_iou(tables, miou, rule) for tables, miou in zip(groups, mious, strict=False)]
    assert np.mean(points) == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["fold", "foreground"])
def test_one_pixel_that_is_right_is_an_iou_of_1(rule: str) -> None:
    one = table([(1, 1, 1)], background=(1, 1))
    assert fb_iou([one], 0.0, rule) == 1.0
    assert fb_iou_ci95([[one]], rule, [1]) == (1.0, 1.0)
