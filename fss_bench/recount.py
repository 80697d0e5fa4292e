"""The metrics of a run computed a second time, from its table alone.

In whole numbers of Python, which know no overflow, and on purpose without the code of metrics.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fss_bench.errors import shorten

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-12
"""Means of floats that were added up in another order differ by less."""
Counts = Mapping[int, tuple[int, int]]
"""Class id -> intersection and union in pixels."""


def check_metrics(content: Mapping[str, Any], episodes: "pd.DataFrame") -> None:
    """Check all but the interval, which must hold fractions in order.

    Args:
        content: what run.json says, with the protocol and the metrics.
        episodes: the episode table of the run.

    Raises:
        ValueError: a score is not that of the table.
    """
    metrics, protocol = content["metrics"], content["protocol"]
    classes = _check_classes(metrics["per_class"], episodes)
    tables = _repetitions(episodes, protocol.get("runs", 1))
    rule, empty = protocol.get("fb_iou", "fold"), protocol["empty_class"]
    mious = [_miou(_class_counts([table]), classes, empty) for table in tables]
    twins = [_miou(_class_counts([table], "_255bg"), classes, empty) for table in tables]
    fbs = [_fb_iou(table, miou, rule) for table, miou in zip(tables, mious, strict=True)]
    for name, found in (("miou", mious), ("miou_255_as_background", twins), ("fb_iou", fbs)):
        _check(name, metrics[name], _mean(found))
    said = metrics.get("miou_runs") or mious
    if len(said) != len(mious):
        raise ValueError(f"its miou_runs are {len(said)}, its protocol has {len(mious)}")
    for one, miou in zip(said, mious, strict=True):
        _check("miou_runs", one, miou)
    low, high = metrics["miou_ci95"]
    if not 0 <= low <= high <= 1:
        raise ValueError(f"its miou_ci95 {[low, high]} is no interval of fractions")


def _check_classes(
    per_class: Mapping[str, Mapping[str, Any]], episodes: "pd.DataFrame"
) -> list[int]:
    """The classes that scores are means over: those named, among them all of the table."""
    counts = _class_counts([episodes])
    times = Counter(int(class_id) for ids in episodes["class_ids"].tolist() for class_id in ids)
    classes = [score["class_id"] for score in per_class.values()]
    if lost := sorted(counts.keys() - set(classes)):
        raise ValueError(f"it has no score of class {shorten(lost)} of its table")
    for name, score in per_class.items():
        inter, union = counts.get(score["class_id"], (0, 0))
        found = {"inter": inter, "union": union, "iou": inter / union if union else None}
        found["episodes"] = times[score["class_id"]]
        if any(score[key] != value for key, value in found.items()):
            raise ValueError(f"its scores of {name} are not those of its table")
    return classes


def _check(name: str, said: float, found: Fraction) -> None:
    if not abs(said - found) <= TOLERANCE:
        raise ValueError(f"its {name} {said} is not {float(found)}, that of its table")


def _repetitions(episodes: "pd.DataFrame", runs: int) -> "list[pd.DataFrame]":
    if type(runs) is not int or not 0 < runs <= len(episodes) or len(episodes) % runs:
        raise ValueError(f"its {len(episodes)} episodes are not those of {runs} runs")
    size = len(episodes) // runs
    ordered = episodes.sort_values("index") if runs > 1 else episodes
    return [ordered.iloc[r * size : (r + 1) * size] for r in range(runs)]


def _class_counts(tables: "Iterable[pd.DataFrame]", suffix: str = "") -> Counts:
    counts: dict[int, tuple[int, int]] = {}
    for table in tables:
        columns = (
            table[n].tolist() for n in ("class_ids", f"inter_ways{suffix}", f"union_ways{suffix}")
        )
        for ids, inters, unions in zip(*columns, strict=True):
            for class_id, inter, union in zip(ids, inters, unions, strict=True):
                before = counts.get(class_id, (0, 0))
                counts[int(class_id)] = before[0] + int(inter), before[1] + int(union)
    return counts


def _miou(counts: Counts, classes: Sequence[int], empty_class: str) -> Fraction:
    found = [counts.get(class_id, (0, 0)) for class_id in classes]
    if empty_class == "skip":
        found = [pair for pair in found if pair[1]]
    return _mean([Fraction(inter, union or 1) for inter, union in found])


def _fb_iou(table: "pd.DataFrame", miou: Fraction, rule: str) -> Fraction:
    foreground, background = (
        Fraction(sum(table[f"inter_{part}"].tolist()), sum(table[f"union_{part}"].tolist()) or 1)
        for part in ("fg", "bg")
    )
    if rule == "foreground":
        return foreground
    return ((miou if rule == "class-mean" else foreground) + background) / 2


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / max(len(values), 1)
