"""Bootstrap intervals against a slow loop, degenerate cases, and their coverage."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss_bench.statistics import bootstrap_mean_iou

Fold = pd.DataFrame


def episodes(seed: int, classes: int = 3, each: int = 40, spread: float = 1.0) -> Fold:
    """Episodes of objects of all sizes, whose IoU scatters around 0.6."""
    rng = np.random.default_rng(seed)
    n = classes * each
    union = np.exp(rng.normal(8, 0.7, n)).astype(np.int64) + 1
    quality = 1 / (1 + np.exp(-rng.normal(0.4, spread, n)))
    ids = np.repeat(np.arange(1, classes + 1), each)
    return pd.DataFrame({"class_id": ids, "inter": (union * quality).astype(int), "union": union})


def point(fold: Fold) -> float:
    sums = fold.groupby("class_id").sum()
    return float((sums["inter"] / sums["union"]).mean())


def slow_interval(folds: list[Fold], resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        fold_means = []
        for fold in folds:
            ious = []
            for class_id in fold["class_id"].unique():
                rows = fold[fold["class_id"] == class_id].to_numpy()
                picked = rows[rng.integers(0, len(rows), len(rows))]
                ious.append(picked[:, 1].sum() / picked[:, 2].sum())
            fold_means.append(sum(ious) / len(ious))
        means.append(sum(fold_means) / len(fold_means))
    means.sort()
    return means[round(0.025 * resamples)], means[round(0.975 * resamples)]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 30))
@settings(max_examples=30)
def test_the_interval_holds_the_point_estimate(seed: int, classes: int, each: int) -> None:
    fold = episodes(seed, classes, each)
    low, high = bootstrap_mean_iou([fold], resamples=500)
    assert low - 1e-12 <= point(fold) <= high + 1e-12
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize("folds", [1, 2])
def test_it_equals_a_loop_that_resamples_episodes(folds: int) -> None:
    tables = [episodes(seed, classes=3, each=25) for seed in range(folds)]
    low, high = bootstrap_mean_iou(tables, resamples=4000)
    slow_low, slow_high = slow_interval(tables, 600, seed=1)
    # the ends of 600 resamples scatter by about 0.08 of the width; this allows for 0.3
    width = slow_high - slow_low
    assert 0.02 < width < 0.3
    assert low == pytest.approx(slow_low, abs=0.3 * width)
    assert high == pytest.approx(slow_high, abs=0.3 * width)


def test_it_is_deterministic_and_the_seed_matters() -> None:
    fold = episodes(0)
    assert bootstrap_mean_iou([fold]) == bootstrap_mean_iou([fold.copy()])
    assert bootstrap_mean_iou([fold], seed=1) != bootstrap_mean_iou([fold])


def test_the_published_interval_never_changes() -> None:
    # NumPy promises that RandomState's stream stays; a change here changes every published interval
    fold = pd.DataFrame(
        {
            "class_id": [1, 1, 1, 1, 2, 2, 2],
            "inter": [10, 0, 55, 80, 9, 30, 7],
            "union": [20, 40, 60, 100, 90, 31, 70],
        }
    )
    assert bootstrap_mean_iou([fold]) == pytest.approx((0.1970774092, 0.8107940447), abs=1e-9)


def test_it_touches_no_global_stream() -> None:
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    bootstrap_mean_iou([episodes(0)], resamples=10)
    assert np.random.get_state()[1].tolist() == before


def test_one_episode_a_class_has_no_width() -> None:
    fold = pd.DataFrame({"class_id": [1, 2], "inter": [30, 50], "union": [100, 100]})
    assert bootstrap_mean_iou([fold]) == pytest.approx((0.4, 0.4), abs=1e-12)


def test_identical_episodes_have_no_width() -> None:
    fold = pd.DataFrame({"class_id": [1] * 9, "inter": [30] * 9, "union": [90] * 9})
    assert bootstrap_mean_iou([fold]) == pytest.approx((1 / 3, 1 / 3), abs=1e-12)


def test_two_episodes_of_one_class_give_the_three_possible_values() -> None:
    # resamples are AA, AB or BA, BB: IoU 0, 0.5, 1; the ends are AA and BB, a quarter each
    fold = pd.DataFrame({"class_id": [1, 1], "inter": [0, 10], "union": [10, 10]})
    assert bootstrap_mean_iou([fold]) == (0.0, 1.0)


def test_episodes_are_resampled_within_their_class() -> None:
    # were episodes of both classes mixed, a class could be missing or counted by its share
    fold = pd.DataFrame(
        {"class_id": [1] * 50 + [2] * 2, "inter": [10] * 50 + [0] * 2, "union": [10] * 52}
    )
    assert bootstrap_mean_iou([fold]) == pytest.approx((0.5, 0.5), abs=1e-12)


def test_the_mean_over_folds_weights_folds_equally() -> None:
    small = pd.DataFrame({"class_id": [1], "inter": [0], "union": [10]})
    large = pd.DataFrame({"class_id": [2, 3, 4], "inter": [10] * 3, "union": [10] * 3})
    assert bootstrap_mean_iou([small, large]) == pytest.approx((0.5, 0.5), abs=1e-12)


def test_classes_without_a_pixel_are_left_out_or_count_as_zero() -> None:
    fold = pd.DataFrame({"class_id": [1, 2], "inter": [6, 0], "union": [10, 0]})
    assert bootstrap_mean_iou([fold]) == pytest.approx((0.6, 0.6), abs=1e-12)
    assert bootstrap_mean_iou([fold], [2]) == pytest.approx((0.3, 0.3), abs=1e-12)
    assert bootstrap_mean_iou([fold], [3]) == pytest.approx((0.2, 0.2), abs=1e-12)


def test_nothing_to_resample_gives_zeros() -> None:
    empty = pd.DataFrame({"class_id": [1], "inter": [0], "union": [0]})
    assert bootstrap_mean_iou([empty]) == (0.0, 0.0)
    full = pd.DataFrame({"class_id": [1], "inter": [1], "union": [1]})
    assert bootstrap_mean_iou([empty, full]) == pytest.approx((0.5, 0.5))


def test_more_episodes_make_it_narrower() -> None:
    widths = []
    for each in (10, 40, 160):
        low, high = bootstrap_mean_iou([episodes(3, each=each)])
        widths.append(high - low)
    # four times the episodes: about half the width
    assert 0.3 * widths[0] < widths[1] < 0.8 * widths[0]
    assert 0.3 * widths[1] < widths[2] < 0.8 * widths[1]


def test_more_folds_make_it_narrower() -> None:
    one = bootstrap_mean_iou([episodes(0)])
    four = bootstrap_mean_iou([episodes(seed) for seed in range(4)])
    assert four[1] - four[0] < 0.75 * (one[1] - one[0])


def test_about_95_in_100_intervals_cover_the_truth() -> None:
    truth = point(episodes(10**6, classes=1, each=400_000))
    hits = 0
    for seed in range(200):
        low, high = bootstrap_mean_iou([episodes(seed, classes=4, each=60)], resamples=400)
        hits += low <= truth <= high
    assert 0.9 <= hits / 200 <= 0.995
