"""The leaderboard as JSON: comparable groups with their rows; scores are fractions."""

import json
from collections.abc import Sequence
from typing import Any

from fss_bench.leaderboard import Row
from fss_bench.published import PublishedRow
from fss_bench.report.grid import groups
from fss_bench.seed_spread import SeedSpread, seed_spreads


def to_json(rows: Sequence[Row], published: Sequence[PublishedRow] = ()) -> str:
    """Measured groups, and published rows apart: nobody can show that these compare."""
    content = {
        "groups": [_group(group) for group in groups(rows)],
        "published": [_published(row) for row in published],
    }
    return json.dumps(content, indent=2) + "\n"


def _group(group: Sequence[Row]) -> dict[str, Any]:
    record = group[0].any_run.record
    return {
        "dataset": record["dataset"],
        "protocol": record["protocol"],
        "ways": record["ways"],
        "shots": record["shots"],
        "episodes_sha256": group[0].episodes_sha256,
        "rows": [_row(row) for row in group],
        "training_seeds": [_spread(spread) for spread in seed_spreads(group)],
    }


def _row(row: Row) -> dict[str, Any]:
    method, backbone, weights = row.names
    return {
        "rank": row.rank,
        "rank_interval": row.rank_interval,
        "method": method,
        "backbone": backbone,
        "weights": weights,
        "miou": row.miou,
        "miou_ci95": row.miou_ci95,
        "miou_std_of_runs": row.miou_std,
        "fb_iou": row.fb_iou,
        "fb_iou_ci95": row.fb_iou_ci95,
        "source": "measured",
        "folds": {
            str(fold): {
                "run_id": run.record["run_id"],
                "miou": run.metrics.miou,
                "miou_ci95": run.metrics.miou_ci95,
                "fb_iou": run.metrics.fb_iou,
                "per_class": {name: score.iou for name, score in run.metrics.per_class.items()},
                "cost": run.record["cost"],
            }
            for fold, run in row.folds.items()
        },
    }


def _spread(spread: SeedSpread) -> dict[str, Any]:
    return {
        "method": spread.method,
        "backbone": spread.backbone,
        "seeds": spread.seeds,
        "mious": spread.mious,
        "mean": spread.mean,
        "sd": spread.sd,
    }


def _published(row: PublishedRow) -> dict[str, Any]:
    return {
        "method": row.method,
        "backbone": row.backbone,
        "dataset": row.dataset,
        "protocol": row.protocol,
        "ways": row.ways,
        "shots": row.shots,
        "folds": [_fraction(fold) for fold in row.folds],
        "miou": _fraction(row.miou),
        "fb_iou": _fraction(row.fb_iou),
        "source": "published",
        "certainty": row.certainty,
        "folds_certainty": row.folds_certainty,
        "fb_certainty": row.fb_certainty,
        "paper": row.paper,
        "where": row.where,
        "notes": row.notes,
    }


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)
