"""Pooled integer counts to mIoU and FB-IoU. Every metric comes from the episode table alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fss_bench.results import ClassScore, Metrics, Run
from fss_bench.statistics import (
    RESAMPLES,
    bootstrap_mean_iou,
    bootstrap_means,
    bootstrap_sums,
    percentiles,
)

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


def episode_counts(
    matrix: NDArray[np.int64], ignore_as_background: bool = False, drop_vanished: bool = False
) -> EpisodeCounts:
    """Counts from a `confusion` matrix.

    Args:
        matrix: see `confusion`.
        ignore_as_background: pixels labelled 255 are background, else excluded.
        drop_vanished: what has no pixel in the target counts nothing, not even false positives: a
            way, the background, the foreground.
    """
    valid = matrix[:-1].copy()
    if ignore_as_background:
        valid[0] += matrix[-1]
    inter = np.diagonal(valid)
    present = valid.sum(axis=1)
    union = valid.sum(axis=0) + present - inter
    union_fg = int(valid.sum()) - int(valid[0, 0])
    if drop_vanished:
        union[present == 0] = 0
        union_fg *= bool(present[1:].any())
    return EpisodeCounts(
        inter_fg=int(valid[1:, 1:].sum()),
        union_fg=union_fg,
        inter_bg=int(inter[0]),
        union_bg=int(union[0]),
        inter_ways=tuple(int(v) for v in inter[1:]),
        union_ways=tuple(int(v) for v in union[1:]),
    )


def class_counts(episodes: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """One row an (episode, way): `class_id`, `inter`, `union`, number of the `episode`."""
    ids, inter, union = (
        episodes[name].to_list()
        for name in ("class_ids", f"inter_ways{suffix}", f"union_ways{suffix}")
    )
    columns = {
        "class_id": _joined(ids),
        "inter": _joined(inter),
        "union": _joined(union),
        "episode": np.repeat(np.arange(len(ids)), [len(ways) for ways in ids]),
    }
    return pd.DataFrame(columns)


def _joined(lists: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(lists), np.int64)


def run_tables(episodes: pd.DataFrame, runs: int) -> list[pd.DataFrame]:
    """The episode table of each repetition: `runs` blocks of equal length, in order of index."""
    if runs == 1:
        return [episodes]
    ordered = episodes.sort_values("index")
    size = len(ordered) // runs
    return [ordered.iloc[r * size : (r + 1) * size] for r in range(runs)]


def compute_metrics(
    episodes: pd.DataFrame,
    names: Mapping[int, str],
    classes: Sequence[int],
    empty_class: str = "skip",
    fb_rule: str = "fold",
    runs: int = 1,
) -> Metrics:
    """mIoU, its interval, FB-IoU and the per-class table from one run's episode table.

    mIoU is the mean over classes of summed intersection / summed union over all episodes; FB-IoU is
    by default the mean of foreground and background IoU, class ignored. Fractions in [0, 1]. Of
    several repetitions each is scored on its own, and the mean of their scores is the score; counts
    a class are their sums.

    Args:
        episodes: the episode table of one run.
        names: class id -> name.
        classes: the classes that the protocol averages over.
        empty_class, fb_rule, runs: rules `empty_class`, `fb_iou` and `runs` of the protocol.
    """
    tables = run_tables(episodes, runs)
    rows = [class_counts(table) for table in tables]
    scores = [_class_scores(each, names, classes) for each in rows]
    mious = [_mean(each, empty_class) for each in scores]
    twins = [_class_scores(class_counts(table, TWIN), names, classes) for table in tables]
    fbs = [fb_iou([table], m, fb_rule) for table, m in zip(tables, mious, strict=True)]
    low, high = bootstrap_mean_iou(rows, [averaged_classes(each, empty_class) for each in scores])
    return Metrics(
        miou=float(np.mean(mious)),
        miou_ci95=(low, high),
        fb_iou=float(np.mean(fbs)),
        miou_255_as_background=float(np.mean([_mean(each, empty_class) for each in twins])),
        per_class=_class_scores(class_counts(episodes), names, classes),
        miou_runs=tuple(mious),
    )


def averaged_classes(scores: Mapping[str, ClassScore], empty_class: str) -> int:
    """Number of classes that mIoU is a mean over."""
    return sum(empty_class != "skip" or score.iou is not None for score in scores.values())


def averaged_a_run(run: Run, counts: Iterable[pd.DataFrame]) -> list[int]:
    """Number of classes that mIoU is a mean over, for each repetition of a run.

    Args:
        run: the run.
        counts: `class_counts` of each of its `run_tables`.
    """
    names = {score.class_id: name for name, score in run.metrics.per_class.items()}
    empty_class = run.record["protocol"]["empty_class"]
    return [averaged_classes(_class_scores(c, names, list(names)), empty_class) for c in counts]


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


def fb_iou(tables: Sequence[pd.DataFrame], miou: float, rule: str) -> float:
    """Foreground-background IoU under the rule `fb_iou` of a protocol.

    Args:
        tables: episode tables whose counts are pooled.
        miou: of the same episodes.
        rule: `fold` and `all-folds` (which differ in the tables given): the mean of foreground and
            background IoU; `class-mean`: the mean of mIoU and background IoU; `foreground`: the
            foreground's alone.
    """
    total = pd.concat(tables)[list(COUNTS)].sum()
    foreground = float(total["inter_fg"] / max(total["union_fg"], 1))
    background = float(total["inter_bg"] / max(total["union_bg"], 1))
    if rule == "foreground":
        return foreground
    return ((miou if rule == "class-mean" else foreground) + background) / 2


def fb_iou_ci95(
    folds: Sequence[Sequence[pd.DataFrame]], rule: str, classes: Sequence[int]
) -> tuple[float, float]:
    """95 % bootstrap interval of FB-IoU, episodes resampled within each class.

    Args:
        folds: episode tables of each fold, one a repetition.
        rule: see `fb_iou`; the mean over folds, under `all-folds` counts pooled over them.
        classes: how many classes mIoU is a mean over, a number a table; read by `class-mean`.
    """
    tables = [table for fold in folds for table in fold]
    sums = bootstrap_sums(tables, COUNTS).reshape(len(folds), len(folds[0]), RESAMPLES, len(COUNTS))
    if rule == "all-folds":
        sums = sums.sum(axis=0, keepdims=True)
    foreground, background = (
        (sums[..., i] / np.maximum(sums[..., i + 1], 1)).mean(axis=(0, 1)) for i in (0, 2)
    )
    if rule == "foreground":
        return percentiles(foreground)
    if rule == "class-mean":
        foreground = bootstrap_means([[class_counts(table) for table in tables]], [classes])[:, 0]
    return percentiles((foreground + background) / 2)
