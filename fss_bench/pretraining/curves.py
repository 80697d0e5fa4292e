"""What the log of a run says: its figures, and a plot of them."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from fss_bench.errors import ResultsError

Entry = Mapping[str, Any]
BLUE, ORANGE = "#1f6fb2", "#d9772b"
FEW = 30
"""Epochs whose means are shown as points."""
NUMBERS = {
    "step": ("epoch", "loss", "accuracy", "lr", "seconds"),
    "epoch": ("epoch", "loss", "accuracy", "lr", "seconds"),
    "knn": ("epoch", "knn", "seconds"),
}
"""Kind of a line of the log -> what it must hold to be read."""
LABELS = ("loss", "contrastive accuracy, %", "kNN accuracy, %", "learning rate")


def figures_of(entries: Sequence[Entry], log: Path) -> dict[str, Any]:
    """Losses and accuracies of epochs, kNN before and after, seconds; all from the log.

    `loss_highest` is there because MoCo's first epoch is easy while its queue is still random.

    Args:
        entries: its lines.
        log: where they were read.

    Raises:
        ResultsError: no line of it is an epoch's.
    """
    epochs, knn = of_kind(entries, "epoch"), of_kind(entries, "knn")
    if not epochs:
        raise ResultsError(
            f"{log} has no line of an epoch, so that its losses are not known (the weights are "
            "written): put it back, or start over with --no-resume"
        )
    figures: dict[str, Any] = {
        "loss_first": epochs[0]["loss"],
        "loss_highest": max(entry["loss"] for entry in epochs),
        "loss_last": epochs[-1]["loss"],
        "accuracy_first": epochs[0]["accuracy"],
        "accuracy_last": epochs[-1]["accuracy"],
    }
    if knn:
        before = {"knn_before": knn[0]["knn"]} if knn[0]["epoch"] == 0 else {}
        figures |= {**before, "knn": knn[-1]["knn"]}
        figures |= {k: v for k, v in knn[-1].items() if k == "knn_momentum"}
    return {**figures, "seconds": max(entry["seconds"] for entry in (*epochs, *knn))}


def curves_png(entries: Sequence[Entry], title: str) -> bytes:
    """Plot loss, contrastive accuracy, kNN accuracy and learning rate over the epochs as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, epochs, knn = (of_kind(entries, kind) for kind in ("step", "epoch", "knn"))
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(2, 2, sharex=True)
    _steps_and_epochs(axes[0, 0], steps, epochs, "loss", 1)
    _steps_and_epochs(axes[0, 1], steps, epochs, "accuracy", 100)
    _knn(axes[1, 0], knn)
    rates = [entry["lr"] for entry in steps]
    axes[1, 1].plot([0, *_at(steps)] if steps else [], [*rates[:1], *rates], color=BLUE)
    for axis, label in zip(axes.flat, LABELS, strict=True):
        axis.set_title(label, fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes.flat[1:]:  # a loss of 0 is out of reach
        axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def of_kind(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """Lines of the log of one kind, `step`, `epoch` or `knn`; without those that lack a number."""
    return [
        entry
        for entry in entries
        if entry.get("kind") == kind
        and all(isinstance(entry.get(name), int | float) for name in NUMBERS[kind])
    ]


def _at(entries: Sequence[Entry]) -> list[float]:
    return [entry["epoch"] for entry in entries]


def _steps_and_epochs(
    axis: Any, steps: Sequence[Entry], epochs: Sequence[Entry], key: str, scale: float
) -> None:
    """Single steps faintly, means of epochs over them, each at the middle of its epoch."""
    values = [scale * entry[key] for entry in steps]
    axis.plot(_at(steps), values, color=BLUE, alpha=0.3, linewidth=0.8, label="step")
    middle = [epoch - 0.5 for epoch in _at(epochs)]
    marker = "o" if len(epochs) < FEW else None
    means = [scale * entry[key] for entry in epochs]
    axis.plot(middle, means, color=BLUE, marker=marker, markersize=3, label="mean of the epoch")
    axis.legend(fontsize=8, frameon=False)


def _knn(axis: Any, entries: Sequence[Entry]) -> None:
    if not entries:
        axis.text(0.5, 0.5, "not measured (--knn)", ha="center", transform=axis.transAxes)
        return
    for key, label, colour in (("knn", "encoder", BLUE), ("knn_momentum", "momentum", ORANGE)):
        measured = [entry for entry in entries if key in entry]
        if measured:
            values = [100 * entry[key] for entry in measured]
            axis.plot(_at(measured), values, color=colour, marker="o", markersize=3, label=label)
    if entries[0]["epoch"] == 0:
        before = 100 * entries[0]["knn"]
        axis.axhline(before, color="grey", linestyle="--", linewidth=1, label="before training")
    axis.legend(fontsize=8, frameon=False)
