"""Progress and result of a training run: a bar on a terminal, plain lines elsewhere."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fss_bench.report.steps import duration, step_display
from fss_bench.training.watching import Tick, Trained, Watch


@contextmanager
def training_watch(label: str, quiet: bool) -> Iterator[Watch]:
    """Shows loss, best validation mIoU, episodes a second and time left, on stderr.

    Args:
        label: what is being trained.
        quiet: show nothing.
    """
    with step_display(label, quiet) as display:
        if display is None:
            yield Watch()
        else:
            yield Watch(lambda tick: display.step(tick.step, tick.steps, _text(tick)), display.note)


def result_lines(result: Trained) -> Iterator[str]:
    """What a finished run gave, where it is, and the command that uses it."""
    record, figures = result.record, result.record["figures"]
    if not result.trained:
        yield f"{result.folder}: this run is finished; nothing was done (--no-resume starts over)"
    yield f"loss {figures['loss_first']:.3f} at first, {figures['loss_last']:.3f} at last"
    if "miou_best" in figures:
        yield (
            f"validation mIoU {100 * figures['miou_before']:.1f} before training, "
            f"{100 * figures['miou_best']:.1f} at step {figures['best_step']}, which is chosen "
            f"({record['validation']['episodes']} episodes, {record['validation']['kind']} classes)"
        )
    yield str(result.checkpoint)
    yield str(result.folder / "curves.png")
    if record["name"].count("-"):
        return  # a stage before the last is no method yet
    yield (
        f"fss-bench evaluate {record['method']} --dataset {record['dataset'].partition('@')[0]} "
        f"--fold {record['fold']} --checkpoint {shlex.quote(str(result.checkpoint))}"
    )


def result_json(result: Trained) -> dict[str, Any]:
    """The same as one object."""
    return {
        "checkpoint": str(result.checkpoint),
        "folder": str(result.folder),
        "fold": result.record["fold"],
        "stage": result.record["stage"],
        "steps": result.record["recipe"]["steps"],
        "trained": result.trained,
        **result.record["figures"],
    }


def _text(tick: Tick) -> str:
    best = "" if tick.best is None else f", mIoU {100 * tick.best:.1f}"
    return (
        f"loss {tick.loss:.3f}{best}, {tick.episodes_per_s:.1f} episodes/s, "
        f"{duration(tick.seconds_left)} left"
    )
