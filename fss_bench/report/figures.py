"""Figures for papers, as SVG or PNG: accuracy against cost, and class by class."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss_bench.comparison import check_runs, common_classes
from fss_bench.errors import FssBenchError, UnknownNameError, one_line
from fss_bench.files import write_whole
from fss_bench.leaderboard import Row
from fss_bench.report.grid import groups, titles
from fss_bench.results import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {
    "ms_per_episode": ("ms_per_episode", "ms an episode"),
    "gflops": ("gflops_per_episode", "GFLOPs an episode"),
    "params_m": ("params_m", "parameters, millions"),
}
"""Column of the leaderboard -> its name in run.json, and the label of the axis."""
COLOURS = ("#1f6fb2", "#d9772b", "#2e8b57", "#8e44ad", "#b8860b", "#c0392b", "#16808d", "#555555")
MARKERS = "osD^vP*X"
SUFFIXES = (".svg", ".png")


def check_figure(file: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        FssBenchError: another suffix, or no such folder.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise FssBenchError(f"--figure {file}: its suffix must be one of {', '.join(SUFFIXES)}")
    if not file.parent.is_dir():
        raise FssBenchError(f"--figure {file}: folder {file.parent} does not exist: create it")


def write_figure(figure: "Figure", file: Path) -> None:
    """Write it whole; the same figure gives the same bytes.

    Raises:
        FssBenchError: the file cannot be written.
    """
    import matplotlib

    kind, content = file.suffix.lower()[1:], BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fss_bench"}):
        undated = {"Date": None} if kind == "svg" else {}
        figure.savefig(content, format=kind, dpi=160, metadata=undated)
    try:
        write_whole(file, content.getvalue())
    except OSError as error:
        raise FssBenchError(
            f"cannot write {file} ({one_line(error)}): choose another place"
        ) from error


def cost_figure(rows: Sequence[Row], cost: str = "ms_per_episode") -> "Figure":
    """MIoU with its interval against cost, a panel a comparable group.

    Args:
        rows: of the leaderboard; those with missing folds are left out.
        cost: `ms_per_episode`, `gflops` or `params_m`.

    Raises:
        FssBenchError: no complete row, or another cost.
    """
    if cost not in COSTS:
        raise UnknownNameError("cost", cost, COSTS)
    panels = groups([row for row in rows if row.complete])
    if not panels:
        raise FssBenchError("no result with all its folds: evaluate with --fold all")
    figure, axes = _panels(len(panels), COSTS[cost][1])
    names = sorted({entrant_name(row) for panel in panels for row in panel})
    for axis, panel in zip(axes, panels, strict=True):
        axis.set_title("\n".join(titles(panel[0])), fontsize=8, loc="left")
        for row in panel:
            _point(axis, row, _cost(row, cost), names.index(entrant_name(row)))
    handles = {
        text: handle
        for axis in axes
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    handles = dict(sorted(handles.items()))
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    return figure


def class_figure(runs: Sequence[Run]) -> "Figure":
    """What each class gains from the first run to the second, largest gain first.

    Raises:
        FssBenchError: not two runs, or two that do not compare.
    """
    if len(runs) != 2:
        raise FssBenchError(f"--plot classes compares two runs, not {len(runs)}: give --run twice")
    check_runs(*runs)
    first, second = runs
    (shared,) = common_classes([first], [second])
    gains = {
        name: 100 * ((score.iou or 0.0) - (first.metrics.per_class[name].iou or 0.0))
        for name, score in second.metrics.per_class.items()
        if score.class_id in shared
    }
    names = sorted(gains, key=lambda name: (gains[name], name))
    figure = new_figure(6.5, 1.3 + 0.28 * len(names))
    axis = figure.subplots()
    values = [gains[name] for name in names]
    bars = axis.barh(names, values, color=[COLOURS[0] if v >= 0 else COLOURS[1] for v in values])
    axis.bar_label(bars, [f"{value:+.1f}" for value in values], padding=3, fontsize=8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.15)
    labels = [entrant_name(Row({run.record["fold"]: run})) for run in runs]
    axis.set_title(f"{labels[1]}\nless {labels[0]}", fontsize=8, loc="left")
    axis.set_xlabel("IoU, points")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def entrant_name(row: Row) -> str:
    """Method, backbone and weights in one line."""
    return ", ".join(row.names)


def _cost(row: Row, cost: str) -> float:
    values = [run.record["cost"][COSTS[cost][0]] for run in row.folds.values()]
    return float(sum(values) / len(values))


def _point(axis: Any, row: Row, cost: float, number: int) -> None:
    low, high = row.miou_ci95 or (0.0, 0.0)
    miou = row.miou or 0.0
    axis.errorbar(
        cost,
        100 * miou,
        yerr=[[100 * max(miou - low, 0.0)], [100 * max(high - miou, 0.0)]],
        fmt=MARKERS[number % len(MARKERS)],
        color=COLOURS[number % len(COLOURS)],
        capsize=3,
        markersize=6,
        label=entrant_name(row),
    )


def _panels(number: int, label: str) -> "tuple[Figure, list[Any]]":
    columns = min(2, number)
    rows = -(-number // columns)
    figure = new_figure(4.8 * columns, 3.2 * rows + 0.5)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[number:]:
        axis.set_axis_off()
    for axis in axes[:number]:
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylabel("mIoU, %", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(0.12)
    return figure, axes[:number]


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, inches, that no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
