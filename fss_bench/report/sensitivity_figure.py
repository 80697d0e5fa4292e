"""The figure of what each protocol rule does, for papers; a page's plot: sensitivity_plot.py."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fss_bench.protocols import shown
from fss_bench.report.figures import COLOURS, new_figure
from fss_bench.sensitivity import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sensitivity_figure(effects: Sequence[Effect]) -> "Figure":
    """A panel a method and setting; each rule a dot with its interval.

    Hollow dots are of other episodes than the base's.
    """
    keys = lambda effect: (effect.setting, effect.entrant, effect.base_seed)  # noqa: E731
    panels = [list(group) for _, group in groupby(effects, keys)]
    heights = [1.2 + 0.3 * len(panel) for panel in panels]
    figure = new_figure(7.0, sum(heights))
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, panel)
    axes[-1].set_xlabel("mIoU, points, changed less base (95 % interval)", fontsize=8)
    return figure


def _panel(axis: Any, panel: Sequence[Effect]) -> None:
    dataset, ways, shots, origin = panel[0].setting
    title = f"{', '.join(panel[0].entrant)}\n{dataset}, {ways}-way {shots}-shot, base {origin}"
    axis.set_title(title, fontsize=8, loc="left")
    for height, effect in enumerate(reversed(panel)):
        low, high = effect.difference.ci95
        axis.plot([100 * low, 100 * high], [height] * 2, color=COLOURS[0], linewidth=1.2)
        face = COLOURS[0] if effect.difference.paired else "white"
        dot = {"marker": "o", "color": COLOURS[0], "markerfacecolor": face}
        axis.plot(100 * effect.difference.value, height, **dot)
    axis.set_yticks(range(len(panel)), [_label(effect) for effect in reversed(panel)], fontsize=7)
    axis.set_ylim(-0.7, len(panel) - 0.3)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _label(effect: Effect) -> str:
    further = f", with {', '.join(effect.further)}" if effect.further else ""
    return f"{effect.rule}: {shown(effect.before)} to {shown(effect.after)}{further}"
