"""Ranks that say no more than the episodes do: rows that cannot be told apart share one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fss_bench.statistics import percentiles

LEVEL = 0.05
"""Chance, over all comparisons of a table, to tell two equal rows apart."""


@dataclass(frozen=True)
class Standing:
    """The place of one row among those it is ranked with.

    Attributes:
        rank: from 1; rows that cannot be told apart from the best of them share it.
        rank_interval: the ranks that it has in 95 % of the resamples of the episodes.
        miou_ci95: 95 % bootstrap interval of its mIoU, fractions.
    """

    rank: int
    rank_interval: tuple[int, int]
    miou_ci95: tuple[float, float]


def standings(mious: Sequence[float], resampled: NDArray[np.float64]) -> list[Standing]:
    """Rank rows on the same episodes.

    Down the table every row is compared with the best one of the rank above it: it shares that
    rank, or its own place is a new one. Two are told apart where their difference over its
    bootstrap standard error is too large for chance, Bonferroni-corrected for all pairs of the
    table: which of them are compared is only known from the scores.

    Args:
        mious: best first.
        resampled: their mIoUs [resamples, rows], every resample of the same episodes for all rows.
    """
    if not mious:
        return []
    ranks, first, pairs = [], 0, math.comb(len(mious), 2)
    for i in range(len(mious)):
        error = float(np.std(resampled[:, first] - resampled[:, i], ddof=1))
        p = difference_p(mious[first] - mious[i], error)
        if p * pairs < LEVEL:
            first = i
        ranks.append(first + 1)
    places = 1 + (resampled[:, None, :] > resampled[:, :, None] + 1e-12).sum(axis=2)
    lows, highs = np.percentile(places, [2.5, 97.5], axis=0, method="nearest").astype(int)
    return [
        Standing(rank, (int(low), int(high)), percentiles(column))
        for rank, low, high, column in zip(ranks, lows, highs, resampled.T, strict=True)
    ]


def difference_p(difference: float, error: float) -> float:
    """Two-sided p of a difference with this standard error; 1 of none at all."""
    if abs(difference) < 1e-12:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error > 1e-12 else 0.0
