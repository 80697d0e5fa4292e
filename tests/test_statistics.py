"""Bootstrap intervals against a slow loop, degenerate cases, and their coverage."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss_bench.statistics import (
    bootstrap_difference,
    bootstrap_mean_iou,
    bootstrap_means,
    bootstrap_sums,
    holm,
    percentiles,
    permutation_p,
    pooled_mean_iou,
)

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


def pair(
    seed: int, gain: float = 0.0, classes: int = 3, each: int = 30, noise: float = 0.0
) -> tuple[Fold, Fold]:
    """Two methods on the same episodes; the second's quality is higher by `gain` and some noise."""
    first = episodes(seed, classes, each).assign(episode=range(classes * each))
    rng = np.random.default_rng([seed, 1])
    quality = first["inter"] / first["union"] + gain + noise * rng.normal(size=len(first))
    inter = (quality.clip(0, 1) * first["union"]).round().astype(int)
    return first, first.assign(inter=inter)


def slow_differences(first: Fold, second: Fold, paired: bool, resamples: int) -> list[float]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(resamples):
        means: list[list[float]] = [[], []]
        for class_id in first["class_id"].unique():
            places = np.flatnonzero(first["class_id"] == class_id)
            picked = rng.choice(places, len(places))
            for side, table in enumerate((first, second)):
                if side and not paired:
                    picked = rng.choice(places, len(places))
                rows = table.to_dict("records")
                inter = sum(rows[i]["inter"] for i in picked)
                means[side].append(inter / sum(rows[i]["union"] for i in picked))
        found.append(float(np.mean(means[1]) - np.mean(means[0])))
    return found


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_a_difference_equals_a_loop(paired: bool) -> None:
    first, second = pair(5, gain=0.03, noise=0.1)
    low, high = bootstrap_difference([first], [second], paired=paired, resamples=4000)
    slow_low, slow_high = np.percentile(slow_differences(first, second, paired, 800), [2.5, 97.5])
    width = slow_high - slow_low
    assert 0.01 < width < 0.4
    assert low == pytest.approx(slow_low, abs=0.25 * width)
    assert high == pytest.approx(slow_high, abs=0.25 * width)


def test_pairing_makes_the_interval_narrower() -> None:
    first, second = pair(5, gain=0.03, noise=0.02)
    low, high = bootstrap_difference([first], [second], paired=True)
    wide_low, wide_high = bootstrap_difference([first], [second], paired=False)
    assert 0 < low < 0.03 < high
    assert high - low < 0.25 * (wide_high - wide_low)
    assert wide_low < 0 < wide_high


def test_a_run_differs_by_nothing_from_itself() -> None:
    first, second = pair(1)
    assert second.equals(first)
    assert bootstrap_difference([first], [first], paired=True) == (0.0, 0.0)
    assert permutation_p([first], [first]) == 1.0
    low, high = bootstrap_difference([first], [first], paired=False)
    assert low < 0 < high


def test_a_constant_gain_has_no_width() -> None:
    first = pd.DataFrame(
        {"class_id": [1, 2] * 20, "inter": range(40), "union": [100] * 40, "episode": range(40)}
    )
    second = first.assign(inter=first["inter"] + 10)
    low, high = bootstrap_difference([first], [second], paired=True)
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert permutation_p([first], [second], permutations=999) == 0.001
    assert bootstrap_difference([second], [first], paired=True)[0] == pytest.approx(-0.1)
    assert permutation_p([second], [first], permutations=999) == 0.001


def test_one_episode_can_be_swapped_in_two_ways_alone() -> None:
    first = pd.DataFrame({"class_id": [1], "inter": [1], "union": [10], "episode": [0]})
    assert permutation_p([first], [first.assign(inter=9)]) == 1.0


def test_two_episodes_have_four_assignments() -> None:
    # the four differences: 0.5, -0.5 and twice 0.1, so that half are as far as the observed
    first = pd.DataFrame(
        {"class_id": [1, 1], "inter": [1, 2], "union": [10] * 2, "episode": [0, 1]}
    )
    second = first.assign(inter=[7, 6])
    assert permutation_p([first], [second], permutations=4000) == pytest.approx(0.5, abs=0.03)


def test_the_ways_of_an_episode_are_swapped_together() -> None:
    rows = {"class_id": [1, 2], "inter": [1, 2], "union": [10, 10]}
    first = pd.DataFrame({**rows, "episode": [0, 0]})
    second = first.assign(inter=[7, 6])
    assert permutation_p([first], [second], permutations=400) == 1.0
    apart = permutation_p([first.assign(episode=[0, 1])], [second], permutations=4000)
    assert apart == pytest.approx(0.5, abs=0.03)


def exact_p(first: Fold, second: Fold) -> float:
    """Over all assignments of the episodes to the two."""
    numbers = first["episode"].unique().tolist()
    observed, far = abs(point(second) - point(first)), []
    for swaps in product([False, True], repeat=len(numbers)):
        swapped = first["episode"].map(dict(zip(numbers, swaps, strict=True)))
        one, other = first.where(~swapped, second), second.where(~swapped, first)
        far.append(abs(point(other) - point(one)) >= observed - 1e-12)
    return float(np.mean(far))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ways", [1, 2])
def test_the_p_value_is_that_of_all_assignments(seed: int, ways: int) -> None:
    first, second = pair(seed, gain=0.04, noise=0.1, classes=2, each=4)
    order = np.arange(8).reshape(2, 4).T.ravel()  # classes in turn
    tables = [t.iloc[order].assign(episode=np.arange(8) // ways) for t in (first, second)]
    if seed == 0:  # one of the two has no pixel of class 2 in any episode
        tables[0].loc[tables[0]["class_id"] == 2, ["inter", "union"]] = 0
    found = permutation_p([tables[0]], [tables[1]], permutations=6000)
    assert found == pytest.approx(exact_p(*tables), abs=0.02)


def test_folds_are_swapped_apart() -> None:
    first = pd.DataFrame({"class_id": [1], "inter": [1], "union": [10], "episode": [0]})
    folds = ([first, first], [first.assign(inter=9)] * 2)
    assert permutation_p(*folds, permutations=4000) == pytest.approx(0.5, abs=0.03)


def test_resampling_a_difference_is_the_same_every_time() -> None:
    # NumPy promises that RandomState's stream stays; a change here changes published intervals
    first, second = pair(5, gain=0.03, noise=0.1)
    again = (first.copy(), second.copy())
    for paired in (True, False):
        found = bootstrap_difference([first], [second], paired=paired)
        assert found == bootstrap_difference([again[0]], [again[1]], paired=paired)
        assert found != bootstrap_difference([first], [second], paired=paired, seed=1)
    assert permutation_p([first], [second]) == permutation_p([again[0]], [again[1]])


def test_classes_without_a_pixel_count_by_each_ones_rule() -> None:
    first = pd.DataFrame({"class_id": [1, 2], "inter": [6, 0], "union": [10, 0], "episode": [0, 1]})
    assert pooled_mean_iou([first]) == pytest.approx(0.6)
    assert pooled_mean_iou([first], [2]) == pytest.approx(0.3)
    assert pooled_mean_iou([first, first.assign(inter=[8, 0])], [2, None]) == pytest.approx(0.55)
    low, high = bootstrap_difference([first], [first], ([None], [3]), paired=True)
    assert (low, high) == (pytest.approx(0.2 - 0.6), pytest.approx(0.2 - 0.6))
    assert permutation_p([first], [first], ([2], [2])) == 1.0


def test_a_class_that_only_one_has_pixels_of() -> None:
    # the first: 0.6 and 0.2; the second predicts and is asked nothing of class 2
    first = pd.DataFrame(
        {"class_id": [1, 2], "inter": [6, 2], "union": [10] * 2, "episode": [0, 1]}
    )
    second = first.assign(inter=[6, 0], union=[10, 0])
    low, high = bootstrap_difference([first], [second], paired=True)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert permutation_p([first], [second], permutations=400) == 1.0


def test_classes_with_a_pixel_are_counted_in_each_resample() -> None:
    # half of the second's episodes of class 2 have false positives, so a quarter of the resamples
    # of two has none: 0.6 like the first's; with any it is the mean of 0.6 and 0
    first = pd.DataFrame(
        {"class_id": [1, 2, 2], "inter": [6, 0, 0], "union": [10, 0, 0], "episode": range(3)}
    )
    second = first.assign(union=[10, 0, 10])
    for paired in (True, False):
        low, high = bootstrap_difference([first], [second], paired=paired)
        assert (low, high) == (pytest.approx(-0.3), pytest.approx(0))
    low, high = bootstrap_difference([first], [second], ([2], [2]), paired=True)
    assert (low, high) == (0, 0)


def test_no_row_at_all_is_a_mean_of_zero() -> None:
    rows = pd.DataFrame({"class_id": [1], "inter": [6], "union": [10], "episode": [0]})
    assert pooled_mean_iou([rows[:0]]) == 0.0
    assert permutation_p([rows[:0]], [rows[:0]]) == 1.0
    low, high = bootstrap_difference([rows[:0]], [rows], paired=False)
    assert (low, high) == (pytest.approx(0.6), pytest.approx(0.6))


def test_the_mean_is_the_point_estimate() -> None:
    tables = [episodes(seed) for seed in range(3)]
    assert pooled_mean_iou(tables) == pytest.approx(np.mean([point(table) for table in tables]))
    assert pooled_mean_iou([]) == 0.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_equals_its_definition(p_values: list[float]) -> None:
    for i, adjusted in enumerate(holm(p_values)):
        smaller = [p for j, p in enumerate(p_values) if (p, j) <= (p_values[i], i)]
        factors = range(len(p_values), len(p_values) - len(smaller), -1)
        expected = max(f * p for f, p in zip(factors, sorted(smaller), strict=True))
        assert adjusted == pytest.approx(min(1.0, expected))


@pytest.mark.parametrize("paired", [True, False])
def test_about_95_in_100_intervals_of_a_difference_cover_the_truth(paired: bool) -> None:
    wholes = pair(10**6, 0.05, classes=1, each=200_000, noise=0.1)
    truth = point(wholes[1]) - point(wholes[0])
    hits = 0
    for seed in range(200):
        first, second = pair(seed, 0.05, classes=4, each=50, noise=0.1)
        if not paired:
            first = pair(seed + 1000, classes=4, each=50)[0]
        low, high = bootstrap_difference([first], [second], paired=paired, resamples=400)
        hits += low <= truth <= high
    assert 0.9 <= hits / 200 <= 0.995


def test_p_values_of_equal_methods_are_spread_evenly() -> None:
    found = []
    for seed in range(200):
        first, second = pair(seed, classes=2, each=30, noise=0.1)
        found.append(permutation_p([first], [second], permutations=199))
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(found) <= 0.5) <= 0.6


def two_ways(seed: int, each: int = 40) -> Fold:
    """Episodes of two ways that are easy or hard together."""
    rng = np.random.default_rng(seed)
    n = 4 * each
    first, shift = 1 + np.arange(n) % 4, 1 + rng.integers(0, 3, n)
    ids = np.stack([first, 1 + (first - 1 + shift) % 4], axis=1)
    ease = 1 / (1 + np.exp(-rng.normal(0.4, 1, (n, 1))))
    union = np.exp(rng.normal(8, 0.5, (n, 2))).astype(np.int64) + 1
    episode = np.repeat(np.arange(n), 2)
    inter = (union * ease).astype(int)
    columns = {"class_id": ids, "inter": inter, "union": union, "episode": episode}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def test_the_ways_of_an_episode_are_resampled_together() -> None:
    truth = point(two_ways(10**6, each=40_000))
    hits = {"together": 0, "apart": 0}
    for seed in range(200):
        fold = two_ways(seed)
        for name, rows in (("together", fold), ("apart", fold.drop(columns="episode"))):
            low, high = bootstrap_mean_iou([rows], resamples=400)
            hits[name] += low <= truth <= high
    assert 0.9 <= hits["together"] / 200 <= 0.985
    assert hits["apart"] < hits["together"]


def test_resampling_episodes_of_two_ways_equals_a_loop() -> None:
    fold = two_ways(3, each=10)
    episodes_of = fold.to_numpy().reshape(-1, 2, 4)  # ways, then class, inter, union, number
    rng = np.random.default_rng(0)
    means = []
    for _ in range(1500):
        picked = []
        for class_id in range(1, 5):
            mine = episodes_of[episodes_of[:, 0, 0] == class_id]
            picked.append(mine[rng.integers(0, len(mine), len(mine))])
        rows = np.concatenate(picked).reshape(-1, 4)
        classes = [rows[rows[:, 0] == class_id] for class_id in range(1, 5)]
        means.append(np.mean([each[:, 1].sum() / each[:, 2].sum() for each in classes]))
    low, high = np.quantile(means, [0.025, 0.975])
    found = bootstrap_mean_iou([fold], resamples=4000)
    assert found == pytest.approx((low, high), abs=0.15 * (high - low))


def test_entrants_weigh_the_same_episodes_alike() -> None:
    first, second = pair(2, gain=0.05, noise=0.05)
    folds = [[first, second], [second, first]]
    means = bootstrap_means(folds, [[3, 3], [3, 3]])
    assert means.shape == (2000, 2)
    alone = [bootstrap_means([tables], [[3, 3]])[:, 0] for tables in folds]
    assert np.array_equal(means, np.stack(alone, axis=1))
    assert percentiles(means[:, 0]) == bootstrap_mean_iou([first, second])


def test_sums_are_of_the_same_draws_as_means() -> None:
    fold = episodes(4, classes=2, each=15)
    ids = fold["class_id"].map(lambda class_id: [class_id])
    table = fold.assign(class_ids=ids, one=1, first=(fold["class_id"] == 1) * fold["inter"])
    table["second"] = fold["inter"] - table["first"]
    for class_id, name in ((1, "union1"), (2, "union2")):
        table[name] = (fold["class_id"] == class_id) * fold["union"]
    sums = bootstrap_sums([table], ["one", "first", "second", "union1", "union2"])[0]
    assert set(sums[:, 0]) == {30}
    mious = (sums[:, 1] / sums[:, 3] + sums[:, 2] / sums[:, 4]) / 2
    assert mious == pytest.approx(bootstrap_means([[fold]], [[2]])[:, 0])
