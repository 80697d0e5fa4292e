"""How far trainings that differ in nothing but their seed lie apart.

That spread is another one than that of episodes: an interval over episodes says how well these
weights are known, not what the next training would give.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from fss_bench.leaderboard import Row, method_label
from fss_bench.results import fingerprint

ALIKE = ("stage", "steps", "chosen_by")
"""Of a training: what must be equal beside the setting and the names."""


@dataclass(frozen=True)
class SeedSpread:
    """Rows of one group whose trainings differ in their seed alone.

    Attributes:
        method, backbone: as the rows have them.
        seeds: of the trainings, ascending.
        mious: of the rows, fractions, in that order.
    """

    method: str
    backbone: str
    seeds: tuple[int, ...]
    mious: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean(self.mious)

    @property
    def sd(self) -> float:
        """Standard deviation over seeds (n - 1)."""
        return stdev(self.mious)


def seed_spreads(group: Sequence[Row]) -> list[SeedSpread]:
    """The spreads among rows that are ranked together, in the order of their best rows."""
    alike: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in group:
        seeds = {_training(run.record).get("seed") for run in row.folds.values()}
        seed = seeds.pop()
        if row.complete and not seeds and seed is not None:
            alike[_key(row)].setdefault(seed, row)  # the best of equal ones is first
    return [
        SeedSpread(
            *next(iter(rows.values())).names[:2],
            tuple(sorted(rows)),
            tuple(rows[seed].miou or 0.0 for seed in sorted(rows)),
        )
        for rows in alike.values()
        if len(rows) > 1
    ]


def _key(row: Row) -> str:
    """Everything of a row that is not its seed."""
    parts = [
        (
            method_label(run.record),
            run.record["backbone"],
            run.record["backbone_options"],
            run.record["checkpoint"]["layout"],
            (run.record["checkpoint"].get("trained_on") or {}).get("dataset"),
            [_training(run.record).get(name) for name in ALIKE],
        )
        for run in row.folds.values()
    ]
    return fingerprint(parts)


def _training(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return (record["checkpoint"] or {}).get("training") or {}
