"""Bootstrap intervals over episodes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000


def bootstrap_mean_iou(
    folds: "Sequence[pd.DataFrame]",
    classes: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of mIoU, episodes resampled within each class (stratified).

    Resampling is a matrix of multinomial weights times the counts, so no metric is recomputed in a
    loop. NumPy's legacy generator is used because its stream never changes. The ways of an episode
    are drawn together; it belongs to the class of its first.

    Args:
        folds: a table a fold, one row an (episode, way), with `class_id`, `inter` and `union`, and
            the number of the `episode` where there are several ways.
        classes: a number a fold: how many classes its mean is over, those without a pixel as 0; by
            default those with a pixel.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper bound, fractions in [0, 1], of the mean over folds of the mean over classes.
    """
    counted = classes or [_with_pixels(rows) for rows in folds]
    return percentiles(bootstrap_means([folds], [counted], resamples, seed)[:, 0])


def percentiles(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


Classes = Sequence[int | None]
"""A number a fold: how many classes its mean is over; None for those with a pixel."""


def bootstrap_means(
    entrants: "Sequence[Sequence[pd.DataFrame]]",
    classes: Sequence[Classes | None],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """MIoUs [resamples, entrants] of entrants on the same episodes, which weigh alike in all.

    Args:
        entrants: for each its folds, as for `bootstrap_mean_iou`, with the same rows.
        classes: for each, how many classes a fold's mean is over; None for those with a pixel in
            the resample.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    folds = list(zip(*entrants, strict=True))
    return _resampled_means(folds, classes, resamples, np.random.RandomState(seed))


def bootstrap_sums(
    folds: "Sequence[pd.DataFrame]",
    columns: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Sums [folds, resamples, columns] over resampled episodes.

    The draws are those of `bootstrap_means` with the same seed, so that what is made of both goes
    together.

    Args:
        folds: an episode table each: a row an episode, with `class_ids`.
        columns: which counts to add up.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    rng = np.random.RandomState(seed)
    sums = np.zeros((len(folds), resamples, len(columns)))
    for fold, table in zip(sums, folds, strict=True):
        counts = table[list(columns)].to_numpy(np.int64)
        stratum_of = table["class_ids"].map(lambda ids: ids[0]).to_numpy()
        for stratum in np.unique(stratum_of):
            fold += _resampled_sums(counts[stratum_of == stratum], resamples, rng)
    return sums


def pooled_mean_iou(folds: "Sequence[pd.DataFrame]", classes: Classes | None = None) -> float:
    """Mean over folds of the mean over classes of summed intersection / summed union.

    Args:
        folds: as for `bootstrap_mean_iou`.
        classes: how many classes a fold's mean is over; by default those with a pixel.
    """
    if not folds:
        return 0.0
    means = []
    for i, rows in enumerate(folds):
        pooled = np.array([counts.sum(axis=0) for counts in _by_class([rows])])
        pooled = pooled.reshape(-1, 1, 1, 2)  # no class at all is a mean of 0
        means.append(_mean_ious(pooled, _counted(pooled, [classes], i))[0, 0])
    return float(np.mean(means))


def bootstrap_difference(
    first: "Sequence[pd.DataFrame]",
    second: "Sequence[pd.DataFrame]",
    classes: tuple[Classes | None, Classes | None] = (None, None),
    *,
    paired: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of the second mIoU less the first, resampled as for one.

    Args:
        first, second: folds as for `bootstrap_mean_iou`; paired ones have the same rows.
        classes: for each, how many classes a fold's mean is over; by default those with a pixel
            in the resample.
        paired: every resample weighs the episodes of both alike; else each draws its own.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper bound, fractions in [-1, 1].
    """
    rng = np.random.RandomState(seed)
    if paired:
        pairs = list(zip(first, second, strict=True))
        before, after = _resampled_means(pairs, classes, resamples, rng).T
    else:
        before, after = (
            _resampled_means([[rows] for rows in folds], [counted], resamples, rng)[:, 0]
            for folds, counted in zip((first, second), classes, strict=True)
        )
    return percentiles(after - before)


def permutation_p(
    first: "Sequence[pd.DataFrame]",
    second: "Sequence[pd.DataFrame]",
    classes: tuple[Classes | None, Classes | None] = (None, None),
    *,
    permutations: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p-value of a paired permutation test of two mIoUs on the same episodes.

    If neither is better, each episode's counts could as well be the other's: they are swapped with
    probability 1/2. The observed assignment counts as one of the permutations, so p is never 0.

    Args:
        first, second: folds as for `bootstrap_difference`, with a column `episode`: the rows (ways)
            of one episode are swapped together.
        classes: for each, how many classes a fold's mean is over; by default those with a pixel
            after the swaps.
        permutations: number of random swaps.
        seed: seed of the swaps.
    """
    rng = np.random.RandomState(seed)
    means = np.zeros((permutations + 1, 2))
    for i, tables in enumerate(zip(first, second, strict=True)):
        episodes, rows = np.unique(tables[0]["episode"].to_numpy(), return_inverse=True)
        swaps = rng.randint(0, 2, size=(permutations + 1, len(episodes)), dtype=np.int8)
        swaps[0] = 0  # as observed
        pooled = np.array(
            [
                _swapped(counts, swaps[:, rows[places]])
                for counts, places in zip(_by_class(tables), _places(tables[0]), strict=True)
            ]
        ).reshape(-1, permutations + 1, 2, 2)
        means += _mean_ious(pooled, _counted(pooled, classes, i))
    differences = np.abs(means[:, 1] - means[:, 0])
    as_far = int((differences[1:] >= differences[0] - 1e-12).sum())
    return (1 + as_far) / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the chance of any false finding among all the tests stays below p."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _places(rows: "pd.DataFrame") -> list[NDArray[np.int64]]:
    """Row numbers of each class, classes in order."""
    ids = rows["class_id"].to_numpy()
    return [np.flatnonzero(ids == class_id) for class_id in np.unique(ids)]


def _by_class(tables: "Sequence[pd.DataFrame]") -> list[NDArray[np.int64]]:
    """A class an array [rows, tables, 2]: intersection and union of the same rows of each table."""
    counts = np.stack([rows[["inter", "union"]].to_numpy(np.int64) for rows in tables], axis=1)
    return [counts[places] for places in _places(tables[0])]


def _resampled_means(
    folds: "Sequence[Sequence[pd.DataFrame]]",
    classes: Sequence[Classes | None],
    resamples: int,
    rng: np.random.RandomState,
) -> NDArray[np.float64]:
    """MIoUs [resamples, tables] of tables that share episodes; a fold is one table each."""
    means = np.zeros((resamples, len(classes)))
    for i, tables in enumerate(folds):
        number = tables[0]["class_id"].nunique()
        pooled = np.zeros((number, resamples, len(tables), 2))
        for seen, counts in _strata(tables):
            sums = _resampled_sums(counts.reshape(len(counts), -1), resamples, rng)
            pooled[seen] += sums.reshape(resamples, len(seen), -1, 2).swapaxes(0, 1)
        means += _mean_ious(pooled, _counted(pooled, classes, i)) / len(folds)
    return means


def _resampled_sums(
    counts: NDArray[np.int64], resamples: int, rng: np.random.RandomState
) -> NDArray[np.float64]:
    """Sums [resamples, columns] of counts [n, columns] over n rows drawn with replacement."""
    n = len(counts)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.asarray(weights.astype(np.float64) @ counts)  # exact below 2**53


def _strata(
    tables: "Sequence[pd.DataFrame]",
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The episodes of each class, classes in order.

    Yields:
        Numbers of the classes that these episodes have, and their counts
        [episodes, classes, tables, 2]: intersection and union.
    """
    counts = np.stack([rows[["inter", "union"]].to_numpy(np.int64) for rows in tables], axis=1)
    _, class_of = np.unique(tables[0]["class_id"].to_numpy(), return_inverse=True)
    _, first, episode_of = np.unique(_episodes(tables[0]), return_index=True, return_inverse=True)
    stratum_of = class_of[first][episode_of]
    for stratum in np.unique(stratum_of):
        places = np.flatnonzero(stratum_of == stratum)
        seen, columns = np.unique(class_of[places], return_inverse=True)
        episodes, rows = np.unique(episode_of[places], return_inverse=True)
        each = np.zeros((len(episodes), len(seen), len(tables), 2), dtype=np.int64)
        np.add.at(each, (rows, columns), counts[places])
        yield seen, each


def _episodes(rows: "pd.DataFrame") -> NDArray[np.int64]:
    """The number of each row's episode; without one, a row is an episode."""
    return rows["episode"].to_numpy() if "episode" in rows else np.arange(len(rows))


def _with_pixels(rows: "pd.DataFrame") -> int:
    """How many classes have a pixel."""
    return int((rows.groupby("class_id")["union"].sum() > 0).sum())


def _swapped(counts: NDArray[np.int64], swaps: NDArray[np.int8]) -> NDArray[np.int64]:
    """Sums [permutations, 2, 2] of counts [rows, 2, 2] whose two tables are swapped where 1."""
    moved = swaps.astype(np.float64) @ (counts[:, 1] - counts[:, 0])  # exact below 2**53
    gains: NDArray[np.int64] = np.stack([moved, -moved], axis=1).astype(np.int64)
    return np.asarray(counts.sum(axis=0) + gains)


def _counted(
    pooled: NDArray[Any], classes: Sequence[Classes | None], fold: int
) -> NDArray[np.int64]:
    """Classes that each mean is over, [n, tables], from sums [classes, n, tables, 2].

    Where no number is given, those with a pixel: each of the n sums has its own, since a class may
    have pixels in one table, or in one episode, alone.
    """
    counted = (pooled[..., 1] > 0).sum(axis=0)
    for k, given in enumerate(classes):
        number = None if given is None else given[fold]
        if number is not None:
            counted[:, k] = number
    return np.asarray(counted, dtype=np.int64)


def _mean_ious(pooled: NDArray[Any], counted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean IoU over classes: sums [classes, …, tables, 2] -> [..., tables]."""
    ious = pooled[..., 0] / np.maximum(pooled[..., 1], 1)
    return np.asarray(ious.sum(axis=0) / np.maximum(counted, 1), dtype=np.float64)
