"""Runs in the making: what an evaluation adds episodes to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fss_bench.partial_run import PartialRun
from fss_bench.results import Run
from fss_bench.scoring import Row
from fss_bench.setting import Setting


@dataclass
class Member:
    """One of the runs that share a pass, in the making.

    Attributes:
        setting: what it is a run of.
        record: what is known of it before the first episode.
        rows: its episodes so far, in the order in which they were segmented.
        partial: where they are kept meanwhile; None keeps them in memory alone.
        predictions: where masks go, or None.
        finished: the run, once it is whole.
    """

    setting: Setting
    record: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    partial: PartialRun | None = None
    predictions: Path | None = None
    finished: Run | None = None

    @cached_property
    def done(self) -> set[int]:
        """Episodes that were there before."""
        return {row["index"] for row in self.rows}

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows; no killed process loses them once this returns."""
        fresh = [row for row in rows if row["index"] not in self.done]
        if self.partial is not None:
            self.partial.append(fresh)
        self.rows += fresh


class RunningMean:
    """mIoU so far, for the progress display."""

    def __init__(self) -> None:
        self._inter: Counter[int] = Counter()
        self._union: Counter[int] = Counter()

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._inter.update(dict(zip(row["class_ids"], row["inter_ways"], strict=True)))
            self._union.update(dict(zip(row["class_ids"], row["union_ways"], strict=True)))

    @property
    def miou(self) -> float:
        ious = [self._inter[c] / union for c, union in self._union.items() if union]
        return sum(ious) / len(ious) if ious else 0.0
