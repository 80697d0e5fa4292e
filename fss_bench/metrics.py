"""Pooled integer counts to mIoU and FB-IoU. Every metric comes from the episode table alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fss_bench.results import ClassScore, Metrics
from fss_bench.statistics import bootstrap_mean_iou

IGNORE = 255
COUNTS = ("inter_fg", "union_fg", "inter_bg", "union_bg")
TWIN = "_255bg"


@dataclass(frozen=True)
class EpisodeCounts:
    """Pixel counts of one episode, ignored pixels excluded.

    Attributes:
        inter_fg, union_fg: any way against any way (for one way: the way itself).
        inter_bg, union_bg: background.
        inter_ways, union_ways: a count a way, each way against all else.
    """

    inter_fg: int
    union_fg: int
    inter_bg: int
    union_bg: int
    inter_ways: tuple[int, ...]
    union_ways: tuple[int, ...]

    def columns(self, suffix: str = "") -> dict[str, Any]:
        """The counts as columns of the episode table."""
        values = {name: getattr(self, name) for name in COUNTS}
        values |= {"inter_ways": list(self.inter_ways), "union_ways": list(self.union_ways)}
        return {name + suffix: value for name, value in values.items()}


def confusion(prediction: NDArray[Any], target: NDArray[Any], ways: int) -> NDArray[np.int64]:
    """Joint histogram of one episode.

    Args:
        prediction: [H, W], 0 background, 1 … N the way.
        target: [H, W], the same, and 255 to ignore.
        ways: N.

    Returns:
        [N + 2, N + 1]: target (its last row is 255) by prediction.
    """
    rows = np.where(target == IGNORE, ways + 1, target).astype(np.int64)
    cells = np.bincount((rows * (ways + 1) + prediction).ravel(), minlength=(ways + 2) * (ways + 1))
    return cells.reshape(ways + 2, ways + 1).astype(np.int64)


def episode_counts(matrix: NDArray[np.int64], ignore_as_background: bool = False) -> EpisodeCounts:
    """Counts from a `confusion` matrix; pixels labelled 255 are excluded, or background."""
    valid = matrix[:-1].copy()
    if ignore_as_background:
        valid[0] += matrix[-1]
    inter = np.diagonal(valid)
    union = valid.sum(axis=0) + valid.sum(axis=1) - inter
    total = int(valid.sum())
    return EpisodeCounts(
        inter_fg=int(valid[1:, 1:].sum()),
        union_fg=total - int(valid[0, 0]),
        inter_bg=int(inter[0]),
        union_bg=int(union[0]),
        inter_ways=tuple(int(v) for v in inter[1:]),
        union_ways=tuple(int(v) for v in union[1:]),
    )


def class_counts(episodes: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """One row an (episode, way): `class_id`, `inter`, `union`."""
    columns = ["class_ids", f"inter_ways{suffix}", f"union_ways{suffix}"]
    rows = episodes[columns].explode(columns, ignore_index=True)
    return rows.set_axis(["class_id", "inter", "union"], axis=1).astype("int64")


def compute_metrics(
    episodes: pd.DataFrame,
    names: Mapping[int, str],
    classes: Sequence[int],
    empty_class: str = "skip",
) -> Metrics:
    """mIoU, its interval, FB-IoU and the per-class table from one run's episode table.

    mIoU is the mean over classes of summed intersection / summed union over all episodes; FB-IoU is
    the mean of foreground and background IoU, class ignored. Fractions in [0, 1].

    Args:
        episodes: the episode table of one run.
        names: class id -> name.
        classes: the classes that the protocol averages over.
        empty_class: `"skip"` or `"zero"`: what a class without a pixel contributes.
    """
    rows = class_counts(episodes)
    scores = _class_scores(rows, names, classes)
    low, high = bootstrap_mean_iou([rows], [averaged_classes(scores, empty_class)])
    return Metrics(
        miou=_mean(scores, empty_class),
        miou_ci95=(low, high),
        fb_iou=_fb_iou(episodes),
        miou_255_as_background=_mean(
            _class_scores(class_counts(episodes, TWIN), names, classes), empty_class
        ),
        per_class=scores,
    )


def averaged_classes(scores: Mapping[str, ClassScore], empty_class: str) -> int:
    """Number of classes that mIoU is a mean over."""
    return sum(empty_class == "zero" or score.iou is not None for score in scores.values())


def _class_scores(
    rows: pd.DataFrame, names: Mapping[int, str], classes: Sequence[int]
) -> dict[str, ClassScore]:
    sums = rows.groupby("class_id")[["inter", "union"]].sum()
    sizes = rows.groupby("class_id").size()
    scores = {}
    for class_id in classes:
        inter = int(sums["inter"].get(class_id, 0))
        union = int(sums["union"].get(class_id, 0))
        iou = inter / union if union else None
        scores[names[class_id]] = ClassScore(
            class_id, iou, inter, union, episodes=int(sizes.get(class_id, 0))
        )
    return scores


def _mean(scores: Mapping[str, ClassScore], empty_class: str) -> float:
    values = [0.0 if s.iou is None else s.iou for s in scores.values()]
    if empty_class == "skip":
        values = [s.iou for s in scores.values() if s.iou is not None]
    return float(np.mean(values)) if values else 0.0


def _fb_iou(episodes: pd.DataFrame) -> float:
    total = episodes[list(COUNTS)].sum()
    foreground = total["inter_fg"] / max(total["union_fg"], 1)
    background = total["inter_bg"] / max(total["union_bg"], 1)
    return float((foreground + background) / 2)
