"""Progress and result of a pretraining run: a bar on a terminal, plain lines elsewhere."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fss_bench.pretraining.watching import Pretrained, Tick, Watch
from fss_bench.report.steps import duration, step_display


@contextmanager
def pretraining_watch(label: str, quiet: bool) -> Iterator[Watch]:
    """Shows loss, contrastive accuracy, kNN accuracy, images a second and time left, on stderr.

    Args:
        label: what is being trained.
        quiet: show nothing.
    """
    with step_display(label, quiet) as display:
        if display is None:
            yield Watch()
        else:
            yield Watch(
                display.check,
                lambda tick: display.step(tick.step, tick.steps, _text(tick)),
                display.note,
            )


def result_lines(result: Pretrained) -> Iterator[str]:
    """What a finished run gave, where it is, and the command that uses it."""
    figures, folder = result.figures, result.folder
    if not result.trained:
        yield f"{folder.root}: this run is finished; nothing was done (--no-resume starts over)"
    yield (
        f"loss {figures['loss_first']:.3f} in the first epoch, at most "
        f"{figures['loss_highest']:.3f}, {figures['loss_last']:.3f} in the last; contrastive "
        f"accuracy {100 * figures['accuracy_first']:.1f} % and "
        f"{100 * figures['accuracy_last']:.1f} %"
    )
    if "knn" in figures:
        before = figures.get("knn_before")
        start = "" if before is None else f"{100 * before:.1f} % before training, "
        yield f"kNN accuracy {start}{100 * figures['knn']:.1f} % after"
    yield f"{result.record['images']} images, {result.record['skipped']} skipped"
    for file in (folder.weights, folder.log, folder.curves, folder.record):
        yield str(file)
    yield (
        f"fss-bench evaluate panet --backbone {result.record['backbone']} --weights "
        f"{shlex.quote(str(folder.weights))}"
    )


def result_json(result: Pretrained) -> dict[str, Any]:
    """The same as one object."""
    folder = result.folder
    return {
        "weights": str(folder.weights),
        "checkpoint": str(folder.checkpoint),
        "log": str(folder.log),
        "curves": str(folder.curves),
        "record": str(folder.record),
        "backbone": result.record["backbone"],
        "images": result.record["images"],
        "skipped": result.record["skipped"],
        "steps": result.record["steps"],
        "trained": result.trained,
        **result.figures,
    }


def _text(tick: Tick) -> str:
    knn = "" if tick.knn is None else f", kNN {100 * tick.knn:.1f} %"
    return (
        f"epoch {tick.epoch}/{tick.epochs}, loss {tick.loss:.3f}, accuracy "
        f"{100 * tick.accuracy:.1f} %{knn}, {tick.images_per_s:.0f} images/s, "
        f"{duration(tick.seconds_left)} left"
    )
