"""What the log of a run says: its figures, and a plot of them."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from fss_bench.errors import ResultsError
from fss_bench.training.tally import Tally

Entry = Mapping[str, Any]
BLUE, ORANGE, GREY = "#1f6fb2", "#d9772b", "#8a8a8a"
NOT_TERMS = {"kind", "step", "lr", "loss", "seconds"}


def figures_of(entries: Sequence[Entry], tally: Tally) -> dict[str, Any]:
    """First and last loss, validation before training, of the last step and of the best, seconds.

    Raises:
        ResultsError: the log has no losses.
    """
    steps, checks = of_kind(entries, "step"), of_kind(entries, "validation")
    if not steps:
        raise ResultsError("the log holds no losses any more: start over with --no-resume")
    figures: dict[str, Any] = {
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "seconds": tally.seconds,
    }
    if checks:
        figures |= {"miou_before": checks[0]["miou"], "miou_last": checks[-1]["miou"]}
    if tally.best is not None:
        figures |= {"best_step": tally.best[0], "miou_best": tally.best[1]}
    return figures


def curves_png(entries: Sequence[Entry], title: str) -> bytes:
    """Loss by terms, validation mIoU and learning rate over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, checks = of_kind(entries, "step"), of_kind(entries, "validation")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    losses, scores, rates = figure.subplots(1, 3, sharex=True)
    _plot_losses(losses, steps)
    _plot_scores(scores, checks)
    rates.plot(_steps(steps), [e["lr"] for e in steps], color=BLUE)
    labels = ("loss", "validation mIoU, %", "learning rate")
    for axis, label in zip((losses, scores, rates), labels, strict=True):
        axis.set_title(label, fontsize=10, loc="left")
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    image = BytesIO()
    figure.savefig(image, dpi=120, format="png")
    return image.getvalue()


def of_kind(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """Lines of the log of one kind: `step` or `validation`."""
    return [entry for entry in entries if entry.get("kind") == kind]


def _steps(entries: Sequence[Entry]) -> list[int]:
    return [entry["step"] for entry in entries]


def _plot_losses(axis: Any, entries: Sequence[Entry]) -> None:
    axis.plot(_steps(entries), [e["loss"] for e in entries], color=BLUE, label="sum")
    terms = [name for name in entries[0] if name not in NOT_TERMS] if entries else []
    for number, name in enumerate(terms if len(terms) > 1 else (), start=1):
        values = [e[name] for e in entries]
        axis.plot(_steps(entries), values, color=f"C{number}", linewidth=0.8, label=name)
    if len(terms) > 1:
        axis.legend(fontsize=8, frameon=False)


def _plot_scores(axis: Any, entries: Sequence[Entry]) -> None:
    if not entries:
        axis.text(0.5, 0.5, "not validated", ha="center", transform=axis.transAxes)
        return
    values = [100 * entry["miou"] for entry in entries]
    axis.plot(_steps(entries), values, color=BLUE, marker="o", markersize=3)
    axis.axhline(values[0], color=GREY, linestyle="--", linewidth=1, label="before training")
    trained = values[1:]
    if trained:
        best = max(range(len(trained)), key=lambda i: (trained[i], -i)) + 1
        axis.plot([entries[best]["step"]], [values[best]], "o", color=ORANGE, label="chosen")
    axis.legend(fontsize=8, frameon=False)
