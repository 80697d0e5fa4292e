"""Progress and result of a pretraining run: a bar on a terminal, plain lines elsewhere."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from fss_bench.pretraining.watching import Pretrained, Tick, Watch

LINES = 20
"""Plain lines of a run, about."""


@contextmanager
def pretraining_watch(label: str, quiet: bool) -> Iterator[Watch]:
    """Shows loss, contrastive accuracy, kNN accuracy, images a second and time left, on stderr.

    Args:
        label: what is being trained.
        quiet: show nothing.
    """
    if quiet:
        yield Watch()
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        ) as bar:
            yield _Bar(bar, label).watch()
    else:
        yield _lines(label)


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


class _Bar:
    """Tasks of one display: images that are checked, steps that are taken."""

    def __init__(self, bar: Progress, label: str) -> None:
        self.bar, self.label = bar, label
        self.checks: TaskID | None = None
        self.steps: TaskID | None = None

    def watch(self) -> Watch:
        return Watch(self._check, self._step, self._note)

    def _note(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def _check(self, done: int, total: int) -> None:
        if self.checks is None:
            self.checks = self.bar.add_task("checking images", text="")
        self.bar.update(self.checks, completed=done, total=total, visible=done < total)

    def _step(self, tick: Tick) -> None:
        if self.steps is None:
            self.steps = self.bar.add_task(self.label, text="")
        self.bar.update(self.steps, completed=tick.step, total=tick.steps, text=_text(tick))


def _lines(label: str) -> Watch:
    printed = [0]

    def step(tick: Tick) -> None:
        part = tick.step * LINES // tick.steps
        if part > printed[0]:
            printed[0] = part
            _say(f"{label}: step {tick.step}/{tick.steps}, {_text(tick)}")

    return Watch(None, step, _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _text(tick: Tick) -> str:
    knn = "" if tick.knn is None else f", kNN {100 * tick.knn:.1f} %"
    return (
        f"epoch {tick.epoch}/{tick.epochs}, loss {tick.loss:.3f}, accuracy "
        f"{100 * tick.accuracy:.1f} %{knn}, {tick.images_per_s:.0f} images/s, "
        f"{_duration(tick.seconds_left)} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
