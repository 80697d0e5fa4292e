"""Bootstrap intervals over episodes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    loop. NumPy's legacy generator is used because its stream never changes.

    Args:
        folds: a table a fold, one row an (episode, way), with `class_id`, `inter` and `union`.
        classes: a number a fold: how many classes its mean is over, those without a pixel as 0; by
            default those with a pixel.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper bound, fractions in [0, 1], of the mean over folds of the mean over classes.
    """
    rng = np.random.RandomState(seed)
    means = np.zeros(resamples)
    for i, rows in enumerate(folds):
        ious = [
            _resampled_iou(group["inter"].to_numpy(), group["union"].to_numpy(), rng, resamples)
            for _, group in rows.groupby("class_id")
            if group["union"].sum() > 0
        ]
        if ious:
            means += np.sum(ious, axis=0) / (classes[i] if classes else len(ious)) / len(folds)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _resampled_iou(
    inter: NDArray[np.int64], union: NDArray[np.int64], rng: np.random.RandomState, resamples: int
) -> NDArray[np.float64]:
    n = len(inter)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.asarray(weights @ inter / np.maximum(weights @ union, 1), dtype=np.float64)
