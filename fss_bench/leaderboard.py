"""Runs to ranked rows. Rows are ranked together only when they are comparable."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.metrics import averaged_a_run, class_counts, fb_iou, fb_iou_ci95, run_tables
from fss_bench.results import Run, fingerprint
from fss_bench.standing import Standing, standings
from fss_bench.statistics import RESAMPLES, bootstrap_mean_iou, bootstrap_means

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "rank,method,backbone,weights,dataset,protocol,ways,shots,fold0,fold1,fold2,fold3,miou,"
    "miou_ci_low,miou_ci_high,fb_iou,episodes,params_m,gflops,ms_per_episode,peak_mb,source,"
    "episodes_sha256,runs"
).split(",")


@dataclass(frozen=True)
class Row:
    """One method on one setting over the folds; `folds` maps a fold to its run.

    A mean over folds is given only when all folds of the dataset are there; `standing` is the place
    among the rows it was ranked with.
    """

    folds: dict[int, Run]
    standing: Standing | None = field(default=None, compare=False)

    @property
    def rank(self) -> int | None:
        """Shared by rows that cannot be told apart; None while folds are missing."""
        return None if self.standing is None else self.standing.rank

    @property
    def rank_interval(self) -> tuple[int, int] | None:
        """The places that it may have by what the episodes tell; None while folds are missing."""
        return None if self.standing is None else self.standing.rank_interval

    @cached_property
    def any_run(self) -> Run:
        """The first fold's: what all folds share can be read from it."""
        return next(iter(self.folds.values()))

    @property
    def dataset_folds(self) -> int:
        """Number of folds that the dataset has."""
        return int(self.any_run.record["dataset"]["folds"])

    @property
    def complete(self) -> bool:
        """Whether all folds of the dataset are there."""
        return len(self.folds) == self.dataset_folds

    @property
    def miou(self) -> float | None:
        """Mean over folds, or None while folds are missing."""
        if not self.complete:
            return None
        return float(np.mean([run.metrics.miou for run in self.folds.values()]))

    @cached_property
    def miou_ci95(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of `miou`."""
        if not self.complete:
            return None
        if self.standing is not None:
            return self.standing.miou_ci95
        return bootstrap_mean_iou(self.counts, self.averaged)

    @cached_property
    def counts(self) -> "list[pd.DataFrame]":
        """Counts of each (episode, way), a table a fold and repetition."""
        return [table for tables in self._counts for table in tables]

    @cached_property
    def averaged(self) -> list[int]:
        """How many classes the mean of each of these tables is over."""
        runs = zip(self.folds.values(), self._counts, strict=True)
        return [classes for run, counts in runs for classes in averaged_a_run(run, counts)]

    @cached_property
    def _counts(self) -> "list[list[pd.DataFrame]]":
        return [[class_counts(table) for table in self._tables(r)] for r in self.folds.values()]

    @property
    def repetitions(self) -> int:
        """How often the protocol repeats the evaluation with other seeds."""
        return int(self.any_run.record["protocol"].get("runs", 1))

    @property
    def miou_std(self) -> float | None:
        """Standard deviation of the repetitions' means over folds; None of a single one."""
        if not self.complete or self.repetitions == 1:
            return None
        means = np.mean([run.metrics.miou_runs for run in self.folds.values()], axis=0)
        return float(np.std(means, ddof=1))

    @cached_property
    def fb_iou(self) -> float | None:
        """FB-IoU by the protocol's rule, or None while folds are missing.

        The mean over folds; under `all-folds` counts are pooled over them.
        """
        if not self.complete:
            return None
        runs = list(self.folds.values())
        if self.any_run.record["protocol"].get("fb_iou") != "all-folds":
            return float(np.mean([run.metrics.fb_iou for run in runs]))
        repetitions = zip(*(self._tables(run) for run in runs), strict=True)
        return float(np.mean([fb_iou(tables, 0.0, "all-folds") for tables in repetitions]))

    @cached_property
    def fb_iou_ci95(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of `fb_iou`."""
        if not self.complete:
            return None
        tables = [self._tables(run) for run in self.folds.values()]
        rule = self.any_run.record["protocol"].get("fb_iou", "fold")
        return fb_iou_ci95(tables, rule, self.averaged)

    def _tables(self, run: Run) -> "list[pd.DataFrame]":
        return run_tables(run.episodes.sort_values("index", kind="stable"), self.repetitions)

    @cached_property
    def group(self) -> tuple[str, ...]:
        """What must be equal for two rows to be ranked together."""
        record = self.any_run.record
        protocol = {k: v for k, v in record["protocol"].items() if k not in ("name", "label")}
        return (
            record["dataset"]["name"],
            record["dataset"]["fingerprint"],
            record["dataset"]["classes_sha256"],
            record["protocol"]["label"],
            json.dumps(protocol, sort_keys=True),
            f"{record['ways']:03d}",
            f"{record['shots']:03d}",
            self.episodes_sha256,
        )

    @cached_property
    def episodes_sha256(self) -> str:
        """Digest over the folds' digests, in fold order."""
        return fingerprint({fold: r.record["episodes_sha256"] for fold, r in self.folds.items()})

    @property
    def names(self) -> tuple[str, str, str]:
        """Method, backbone and weights, with the options that were given."""
        record = self.any_run.record
        backbone = _with_options(record["backbone"], record["backbone_options"])
        weights = record["weights"]["source"]
        if record["checkpoint"] is not None:
            series = "/".join(_series(record["checkpoint"]).split("/")[-3:])
            weights = f"{weights} ({series.lstrip('/')})"
        return method_label(record), backbone, weights

    @property
    def run_ids(self) -> str:
        """Ids of the runs, in fold order."""
        return " ".join(run.record["run_id"] for run in self.folds.values())

    @property
    def classes(self) -> int:
        """Number of classes that `miou` is a mean over."""
        return sum(len(run.metrics.per_class) for run in self.folds.values())

    def cells(self) -> list[str]:
        """Values in the order of `COLUMNS`; scores are percent with two decimals."""
        record = self.any_run.record
        low, high = self.miou_ci95 or (None, None)
        costs = [run.record["cost"] for run in self.folds.values()]
        return [
            "" if self.rank is None else str(self.rank),
            *self.names,
            record["dataset"]["name"],
            record["protocol"]["label"],
            str(record["ways"]),
            str(record["shots"]),
            *(_percent(self.folds[f].metrics.miou if f in self.folds else None) for f in range(4)),
            _percent(self.miou),
            _percent(low),
            _percent(high),
            _percent(self.fb_iou),
            str(sum(run.record["episodes"] for run in self.folds.values())),
            f"{costs[0]['params_m']:.2f}",
            f"{costs[0]['gflops_per_episode']:.2f}",
            f"{np.mean([c['ms_per_episode'] for c in costs]):.1f}",
            f"{max(c['peak_mb'] for c in costs):.0f}",
            "measured",
            self.episodes_sha256,
            self.run_ids,
        ]


def build_rows(runs: Iterable[Run]) -> list[Row]:
    """Rows sorted by setting, then by rank; a pure function of the runs.

    Of several runs of the same fold the one finished last counts. Folds made by different code or
    on different kinds of device are never joined: of such rows of one entrant, a complete one
    counts before an incomplete one, then the one finished last.
    """
    entrants: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in sorted(runs, key=_age):
        made_by = f"{run.record['code_sha256']} {run.record['device_type']}"
        entrants[_entrant(run)][made_by][run.record["fold"]] = run
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for candidates in entrants.values():
        rows = [Row(dict(sorted(folds.items()))) for folds in candidates.values()]
        row = max(rows, key=lambda r: (r.complete, max(map(_age, r.folds.values()))))
        groups[row.group].append(row)
    return [row for _, rows in sorted(groups.items()) for row in _ranked(rows)]


WAYS_TO_RUN = {"precision": "fp32", "cache_dtype": "fp32", "failed_episodes": "stop"}
"""Fields of a run that change its numbers, with what they are by default."""


def method_label(record: Mapping[str, Any]) -> str:
    """The method with the options that were given: `panet(level=c3)`."""
    changed = {k: record[k] for k, usual in WAYS_TO_RUN.items() if record.get(k, usual) != usual}
    return _with_options(record["method"], {**record["method_options"], **changed})


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    inside = " ".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}({inside})" if inside else name


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first; equal scores by name."""
    ordered = sorted(
        rows, key=lambda row: (row.miou is None, -(row.miou or 0.0), row.names, row.run_ids)
    )
    complete = [row for row in ordered if row.complete]
    places = standings([row.miou or 0.0 for row in complete], _resampled(complete))
    return [
        replace(row, standing=standing)
        for row, standing in zip_longest(ordered, places)  # those without a mean are last
    ]


def _resampled(rows: Sequence[Row]) -> NDArray[np.float64]:
    """MIoUs [resamples, rows]: rows of the same episodes weigh them alike."""
    alike: dict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        keys = [table[["class_id", "episode"]].to_numpy().tobytes() for table in row.counts]
        alike[tuple(keys)].append(i)
    means = np.zeros((RESAMPLES, len(rows)))
    for places in alike.values():
        means[:, places] = bootstrap_means(
            [rows[i].counts for i in places], [rows[i].averaged for i in places]
        )
    return means


def _age(run: Run) -> tuple[str, str]:
    return run.record["finished"], run.record["run_id"]


def _entrant(run: Run) -> str:
    """What makes two runs folds of one row."""
    record, checkpoint = run.record, run.record["checkpoint"]
    keys = ("method", "method_options", "backbone", "backbone_options", *WAYS_TO_RUN)
    return fingerprint(
        [record.get(key) for key in (*keys, "ways", "shots", "seed", "dataset", "protocol")],
        record["weights"] if checkpoint is None else _series(checkpoint),  # a file a fold
    )


def _series(checkpoint: Mapping[str, Any]) -> str:
    """One name for the files of several folds; other programs' runs have a path alone."""
    return str(checkpoint.get("series") or checkpoint["path"])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
