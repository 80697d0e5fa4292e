"""Ranks: shared by rows that cannot be told apart, and how often that errs."""

from math import erfc, sqrt

import numpy as np
import pandas as pd
import pytest

from fss_bench.standing import Standing, difference_p, standings
from fss_bench.statistics import bootstrap_means, pooled_mean_iou


def resampled(mious: list[float], errors: list[float], n: int = 4000) -> np.ndarray:
    """Independent normal scatter, so that the error of a difference is known."""
    rng = np.random.default_rng(0)
    return np.stack([m + e * rng.normal(size=n) for m, e in zip(mious, errors, strict=True)], 1)


def ranks(found: list[Standing]) -> list[int]:
    return [one.rank for one in found]


def test_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    mious = [0.60, 0.595, 0.50, 0.499, 0.40]
    assert ranks(standings(mious, resampled(mious, [0.01] * 5))) == [1, 1, 3, 3, 5]


def test_a_rank_counts_the_rows_that_are_better() -> None:
    # each is near the next one and far from the others
    mious = [0.60, 0.57, 0.54, 0.51]
    found = standings(mious, resampled(mious, [0.01] * 4))
    assert ranks(found) == [1, 1, 2, 3]
    assert [one.rank_interval for one in found] == [(1, 2), (1, 3), (2, 4), (3, 4)]


def test_no_row_has_a_higher_rank_than_one_above_it() -> None:
    # the second and the first go together so closely that these are told apart; the third,
    # lower still, scatters so much that it is told apart from none
    mious = [0.60, 0.59, 0.58]
    draws = resampled(mious, [0.0001, 0.0001, 0.05])
    found = standings(mious, draws)
    assert [one.rank_interval for one in found] == [(1, 2), (2, 3), (1, 3)]
    assert ranks(found) == [1, 2, 2]


def test_what_rows_have_in_common_does_not_blur_them() -> None:
    mious = [0.60, 0.59]
    shared = 0.05 * np.random.default_rng(1).normal(size=(4000, 1))
    paired = resampled(mious, [0.001] * 2) + shared
    assert ranks(standings(mious, paired)) == [1, 2]
    assert ranks(standings(mious, resampled(mious, [0.05] * 2))) == [1, 1]


def test_more_comparisons_ask_for_more() -> None:
    # z = 2.2: p = 0.028, enough for one pair and not for three
    two, three = [0.6, 0.6 - 2.2 * 0.01 * sqrt(2)], [0.6, 0.6 - 2.2 * 0.01 * sqrt(2), 0.1]
    assert ranks(standings(two, resampled(two, [0.01] * 2, 100_000))) == [1, 2]
    assert ranks(standings(three, resampled(three, [0.01] * 3, 100_000))) == [1, 1, 3]


def test_intervals_of_rank_and_score() -> None:
    mious = [0.60, 0.595, 0.30]
    draws = resampled(mious, [0.01] * 3)
    found = standings(mious, draws)
    assert [one.rank_interval for one in found] == [(1, 2), (1, 2), (3, 3)]
    for i, one in enumerate(found):
        assert one.miou_ci95 == pytest.approx(np.quantile(draws[:, i], [0.025, 0.975]))


def test_without_rows_there_is_nothing_to_rank() -> None:
    assert standings([], np.zeros((100, 0))) == []


def test_rows_without_scatter() -> None:
    draws = np.tile([0.5, 0.5, 0.4], (50, 1))
    assert ranks(standings([0.5, 0.5, 0.4], draws)) == [1, 1, 3]
    assert standings([0.5, 0.5, 0.4], draws)[0].rank_interval == (1, 2)


def test_p_of_a_difference() -> None:
    assert difference_p(1.959964, 1.0) == pytest.approx(0.05, abs=1e-6)
    assert difference_p(-3.0, 2.0) == pytest.approx(erfc(1.5 / sqrt(2)))
    assert difference_p(0.0, 0.0) == 1.0
    assert difference_p(0.1, 0.0) == 0.0


def methods(seed: int, gains: list[float]) -> list[pd.DataFrame]:
    """Methods on the same 200 episodes of 4 classes: each has a gain, and noise of its own."""
    rng = np.random.default_rng(seed)
    n = 200
    union = np.exp(rng.normal(8, 0.7, n)).astype(np.int64) + 1
    quality = 0.6 + 0.2 * rng.normal(size=n)
    tables = []
    for gain in gains:
        inter = (quality + gain + 0.1 * rng.normal(size=n)).clip(0, 1) * union
        ids = 1 + np.arange(n) % 4
        tables.append(pd.DataFrame({"class_id": ids, "inter": inter.astype(int), "union": union}))
    return tables


def ranked(tables: list[pd.DataFrame]) -> list[int]:
    mious = [pooled_mean_iou([table]) for table in tables]
    order = sorted(range(len(tables)), key=lambda i: -mious[i])
    means = bootstrap_means([[tables[i]] for i in order], [None] * len(tables), resamples=300)
    places = dict(zip(order, ranks(standings([mious[i] for i in order], means)), strict=True))
    return [places[i] for i in range(len(tables))]


def test_equal_methods_are_seldom_told_apart() -> None:
    for rows in (2, 4):
        apart = sum(set(ranked(methods(seed, [0] * rows))) != {1} for seed in range(200))
        assert 0.01 <= apart / 200 <= 0.09  # 5 in 100, and the scatter of 200 trials


def test_a_better_method_is_told_apart() -> None:
    found = [ranked(methods(seed, [0.0, 0.06])) for seed in range(50)]
    assert found.count([2, 1]) >= 48
