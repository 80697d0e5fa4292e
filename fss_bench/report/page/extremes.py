"""Hardest and easiest episodes of each row, with pictures where they can be made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import pandas as pd

from fss_bench.leaderboard import Row
from fss_bench.results import Run

SHOWN = 3
"""Hardest, and easiest, episodes of a row."""
ILLUSTRATED = 24
"""Rows with pictures, so that the file stays at a few megabytes."""
Pictures = Callable[[Run, int], str | None]
"""A run and the index of an episode to the address of its picture, if there is one."""


@dataclass(frozen=True)
class Extremes:
    """Hardest and easiest episodes of a row, and why it has no pictures, if it has none."""

    episodes: list[dict[str, Any]]
    no_pictures: str


def all_extremes(tables: Sequence[Sequence[Row]], pictures: Pictures) -> dict[int, Extremes]:
    """Those of every row; of more rows than ILLUSTRATED the first of each table have pictures."""
    found: dict[int, Extremes] = {}
    left = ILLUSTRATED
    for row in filter(None, chain.from_iterable(zip_longest(*tables))):
        episodes = _extremes(row, pictures if left else no_picture)
        made = any(one["picture"] for one in episodes)
        found[id(row)] = Extremes(episodes, "" if made else _why_none(row, left))
        left -= made
    return found


def no_picture(run: Run, index: int) -> None:
    """Of no episode."""
    return


def _why_none(row: Row, left: int) -> str:
    dataset = row.any_run.record["dataset"]["name"].partition("@")[0]
    if not any(run.has_predictions for run in row.folds.values()):
        return "its predictions were not kept; add --save-predictions to the commands below"
    if not left:
        return f"{ILLUSTRATED} rows have them, the first of each table, to keep this file small"
    if dataset == "shapes":
        return "this report was made without those of shapes (--no-pictures)"
    return f"this report was made without the data; add --pictures {dataset}=DIR to its command"


def _extremes(row: Row, pictures: Pictures) -> list[dict[str, Any]]:
    """The episodes with the lowest and the highest IoU of the foreground."""
    tables = [run.episodes.assign(fold=fold) for fold, run in row.folds.items()]
    table = pd.concat(tables).dropna(subset="iou_fg")
    ordered = table.sort_values(["iou_fg", "fold", "index"], kind="stable")
    ends = {"hardest": ordered.head(SHOWN), "easiest": ordered.tail(SHOWN).iloc[::-1]}
    found = []
    for kind, episodes in ends.items():
        for one in episodes.to_dict("records"):
            run = row.folds[int(one["fold"])]
            names = {s.class_id: name for name, s in run.metrics.per_class.items()}
            classes = ", ".join(names.get(c, str(c)) for c in one["class_ids"])
            found.append(
                {
                    "kind": kind,
                    "fold": one["fold"],
                    "index": one["index"],
                    "classes": classes,
                    "query": one["query"],
                    "iou": percent(one["iou_fg"]),
                    "picture": pictures(run, int(one["index"])),
                }
            )
    return found


def percent(value: float | None) -> str:
    """A fraction in percent with two decimals."""
    return "" if value is None else f"{100 * value:.2f}"
