"""Rows of the leaderboard as plain values for the page's template."""

from collections.abc import Mapping, Sequence
from typing import Any

from fss_bench.claims import claims
from fss_bench.leaderboard import Row
from fss_bench.published import PublishedRow
from fss_bench.report.grid import FOLDS, groups, named_cells, place, setting, titles
from fss_bench.report.page.command import reproduce
from fss_bench.report.page.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Scale,
    Scatter,
)
from fss_bench.report.page.extremes import Extremes, Pictures, all_extremes, percent
from fss_bench.results import Run, fingerprint
from fss_bench.seed_spread import seed_spreads

COSTS = {
    "ms": ("ms_per_episode", "ms an episode"),
    "flops": ("gflops_per_episode", "GFLOPs an episode"),
    "parameters": ("params_m", "parameters, millions"),
}
FILTERS = ("dataset", "protocol", "ways", "shots", "backbone")


def page_data(
    rows: Sequence[Row], published: Sequence[PublishedRow], pictures: Pictures
) -> dict[str, Any]:
    """Everything the template shows."""
    numbers = {id(row): f"r{fingerprint(row.run_ids)[:10]}" for row in rows}
    extremes = all_extremes(groups(rows), pictures)
    found, reported = [], list(published)
    for group in groups(rows):
        beside = [row for row in reported if row.group == setting(group[0])]
        reported = [row for row in reported if row not in beside]
        found.append(_group(group, beside, published, numbers, extremes))
    apart: dict[tuple[str, str, int, int], list[PublishedRow]] = {}
    for row in reported:
        apart.setdefault(row.group, []).append(row)
    return {
        "groups": found,
        "published": [_published_group(group) for group in apart.values()],
        "filters": {name: _choices(found, apart, name) for name in FILTERS},
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
    }


def _choices(
    found: Sequence[Mapping[str, Any]],
    apart: Mapping[tuple[str, str, int, int], Sequence[PublishedRow]],
    name: str,
) -> list[str]:
    if name == "backbone":
        texts = {row["backbone"] for group in found for row in group["rows"]}
        texts |= {row["backbone"] for group in found for row in group["published"]}
        texts |= {row.backbone for rows in apart.values() for row in rows}
    else:
        at = FILTERS.index(name)
        texts = {group[name] for group in found} | {str(key[at]) for key in apart}
    return sorted(texts, key=lambda text: (len(text), text) if text.isdigit() else (99, text))


def _group(
    group: Sequence[Row],
    beside: Sequence[PublishedRow],
    published: Sequence[PublishedRow],
    numbers: Mapping[int, str],
    extremes: Mapping[int, Extremes],
) -> dict[str, Any]:
    title, detail = titles(group[0])
    cell = named_cells(group[0])
    ends = [end for row in group for end in row.miou_ci95 or ()]
    scale = Scale.of([100 * end for end in ends], 2, 118) if ends else None
    return {
        "title": title,
        "detail": detail,
        **{name: cell[name] for name in ("dataset", "protocol", "ways", "shots")},
        "folds": FOLDS[: group[0].dataset_folds],
        "rows": [
            _row(row, group, numbers[id(row)], scale, claims(row, published), extremes[id(row)])
            for row in group
        ],
        "scatters": _scatters([row for row in group if row.complete], numbers),
        "seeds": [
            f"{one.method}, {one.backbone}: {len(one.seeds)} training seeds, mIoU "
            f"{100 * one.mean:.2f}, sd {100 * one.sd:.2f}"
            for one in seed_spreads(group)
        ],
        "published": [_reported(row, group, numbers) for row in beside],
    }


def _row(
    row: Row,
    group: Sequence[Row],
    number: str,
    scale: Scale | None,
    claimed: Sequence[PublishedRow],
    extremes: Extremes,
) -> dict[str, Any]:
    cell = named_cells(row)
    whisker = None
    if scale is not None and row.miou is not None and row.miou_ci95 is not None:
        low, high = row.miou_ci95
        whisker = {"low": scale(100 * low), "high": scale(100 * high), "at": scale(100 * row.miou)}
    return {
        **cell,
        "id": number,
        "place": place(row, group),
        "ranks": "{} to {}".format(*row.rank_interval) if row.rank_interval else "",
        "whisker": whisker,
        "fb_ci": " to ".join(f"{100 * end:.2f}" for end in row.fb_iou_ci95 or ()),
        "fold_scores": [
            {"name": f"fold {fold}", "value": percent(run.metrics.miou)}
            for fold, run in row.folds.items()
        ],
        "class_scores": [
            {"name": name, "value": percent(score.iou), "episodes": score.episodes}
            for run in row.folds.values()
            for name, score in run.metrics.per_class.items()
        ],
        "extremes": extremes.episodes,
        "no_pictures": extremes.no_pictures,
        "runs_made": [_provenance(run) for run in row.folds.values()],
        "rules": _rules(row.any_run.record["protocol"]),
        "claims": [
            {
                "miou": "" if one.miou is None else f"{one.miou:.2f}",
                "difference": ""
                if one.miou is None or row.miou is None
                else f"{100 * row.miou - one.miou:+.2f}",
                "certainty": one.certainties,
                "paper": one.paper,
                "where": one.where,
            }
            for one in claimed
        ],
    }


def _provenance(run: Run) -> dict[str, Any]:
    record = run.record
    checkpoint = record["checkpoint"] or {}
    facts = {
        "run": record["run_id"],
        "mIoU": f"{percent(run.metrics.miou)} ({percent(run.metrics.miou_ci95[0])} to "
        f"{percent(run.metrics.miou_ci95[1])})",
        "FB-IoU": percent(run.metrics.fb_iou),
        "mIoU, 255 as background": percent(run.metrics.miou_255_as_background),
        "episodes": f"{record['episodes']}, sha256 {record['episodes_sha256']}",
        "seed": record["seed"],
        "dataset fingerprint": record["dataset"]["fingerprint"],
        "test images": record["dataset"].get("test_images"),
        "weights": f"{record['weights']['source']}, sha256 {record['weights'].get('sha256')}",
        "checkpoint": f"{checkpoint['path']}, sha256 {checkpoint.get('sha256')}"
        if checkpoint
        else None,
        "code sha256": record["code_sha256"],
        "precision": record["precision"],
        "device": record["cost"]["device"],
        "cost": ", ".join(f"{k} {v}" for k, v in record["cost"].items() if k != "device"),
        "versions": ", ".join(f"{k} {v}" for k, v in record.get("environment", {}).items()),
        "finished": record["finished"],
    }
    shown = {name: str(value) for name, value in facts.items() if value not in (None, "")}
    return {"fold": record["fold"], "facts": shown, "command": reproduce(record)}


def _rules(protocol: Mapping[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return {name: text(value) for name, value in protocol.items()}


def _scatters(rows: Sequence[Row], numbers: Mapping[int, str]) -> list[Scatter]:
    if not rows:
        return []
    ends = [100 * end for row in rows for end in row.miou_ci95 or ()]
    up = Scale.of(ends, HEIGHT - BOTTOM, TOP)
    found = []
    for key, (name, label) in COSTS.items():
        costs = [
            sum(run.record["cost"][name] for run in row.folds.values()) / len(row.folds)
            for row in rows
        ]
        across = Scale.of(costs, LEFT, WIDTH - RIGHT)
        points = []
        for number, (row, cost) in enumerate(zip(rows, costs, strict=True), start=1):
            miou, (low, high) = row.miou or 0.0, row.miou_ci95 or (0.0, 0.0)
            points.append(
                Point(
                    row=numbers[id(row)],
                    name=", ".join(row.names[:2]),
                    number=number,
                    x=across(cost),
                    y=up(100 * miou),
                    low=up(100 * low),
                    high=up(100 * high),
                    text=f"mIoU {percent(miou)}, {cost:.4g} {label}",
                )
            )
        found.append(Scatter(key, label, tuple(points), across.ticks(), up.ticks()))
    return found


def _published_group(rows: Sequence[PublishedRow]) -> dict[str, Any]:
    title, detail = titles(rows[0])
    dataset, protocol, ways, shots = rows[0].group
    return {
        "title": title,
        "detail": detail,
        "dataset": dataset,
        "protocol": protocol,
        "ways": str(ways),
        "shots": str(shots),
        "published": [_reported(row, (), {}) for row in rows],
    }


def _reported(
    row: PublishedRow, group: Sequence[Row], numbers: Mapping[int, str]
) -> dict[str, Any]:
    again = [one for one in group if claims(one, [row]) and one.miou is not None]
    return {
        **named_cells(row),
        "certainty": row.certainties,
        "paper": row.paper,
        "where": row.where,
        "notes": row.notes,
        "measured": [
            {
                "id": numbers[id(one)],
                "miou": percent(one.miou),
                "difference": ""
                if row.miou is None
                else f"{100 * (one.miou or 0.0) - row.miou:+.2f}",
            }
            for one in again
        ],
    }
