"""Ranks that say no more than the episodes do: rows that cannot be told apart share one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

import numpy as np
from numpy.typing import NDArray

from fss_bench.statistics import percentiles

LEVEL = 0.05
"""Chance, over all comparisons of a table, to tell two equal rows apart."""


@dataclass(frozen=True)
class Standing:
    """The place of one row among those it is ranked with.

    Attributes:
        rank: one more than the number of rows that are told to be better.
        rank_interval: the places it may have by what is told: rows that are not told apart from it
            may be better or worse.
        miou_ci95: 95 % bootstrap interval of its mIoU, fractions.
    """

    rank: int
    rank_interval: tuple[int, int]
    miou_ci95: tuple[float, float]


def standings(mious: Sequence[float], resampled: NDArray[np.float64]) -> list[Standing]:
    """Rank rows on the same episodes.

    Two rows are told apart where their difference over its bootstrap standard error is too large
    for chance, Bonferroni-corrected for all pairs of the table, so that all intervals of rank hold
    at once. No row has a higher rank than one above it.

    Args:
        mious: best first.
        resampled: their mIoUs [resamples, rows], every resample of the same episodes for all rows.
    """
    number = len(mious)
    if not number:
        return []
    covariance = np.atleast_2d(np.cov(resampled, rowvar=False))
    spread = np.diagonal(covariance)
    errors = np.sqrt(np.maximum(spread[:, None] + spread - 2 * covariance, 0))
    pairs = math.comb(number, 2)
    better, worse = [0] * number, [0] * number
    for i, j in combinations(range(number), 2):
        if pairs * difference_p(mious[i] - mious[j], float(errors[i, j])) < LEVEL:
            worse[i] += 1
            better[j] += 1
    ranks = accumulate((1 + count for count in better), max)
    return [
        Standing(rank, (1 + above, number - below), percentiles(column))
        for rank, above, below, column in zip(ranks, better, worse, resampled.T, strict=True)
    ]


def difference_p(difference: float, error: float) -> float:
    """Two-sided p of a difference with this standard error; 1 of none at all."""
    if abs(difference) < 1e-12:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error > 1e-12 else 0.0
