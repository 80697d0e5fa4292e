"""How far a training is: a bar on a terminal, plain lines elsewhere, on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

LINES = 20
"""Plain lines of a run, about."""


class StepDisplay(Protocol):
    """Where steps are shown."""

    def step(self, done: int, total: int, text: str) -> None:
        """Show that so many steps are done."""

    def check(self, done: int, total: int) -> None:
        """Show that so many files are checked."""

    def note(self, text: str) -> None:
        """Show a line."""


@contextmanager
def step_display(label: str, quiet: bool) -> Iterator[StepDisplay | None]:
    """The display that fits stderr; None for `quiet`.

    Args:
        label: what is being trained.
        quiet: show nothing.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        ) as bar:
            yield _Bar(bar, label)
    else:
        yield _Lines(label)


def duration(seconds: float) -> str:
    """Such as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Bar:
    """Tasks of one display: files that are checked, steps that are taken."""

    def __init__(self, bar: Progress, label: str) -> None:
        self.bar, self.label = bar, label
        self._checks: TaskID | None = None
        self._steps: TaskID | None = None

    def step(self, done: int, total: int, text: str) -> None:
        if self._steps is None:
            self._steps = self.bar.add_task(self.label, text="")
        self.bar.update(self._steps, completed=done, total=total, text=text)

    def check(self, done: int, total: int) -> None:
        if self._checks is None:
            self._checks = self.bar.add_task("checking images", text="")
        self.bar.update(self._checks, completed=done, total=total, visible=done < total)

    def note(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


class _Lines:
    def __init__(self, label: str) -> None:
        self.label, self._printed = label, 0

    def step(self, done: int, total: int, text: str) -> None:
        part = done * LINES // total
        if part > self._printed:
            self._printed = part
            self.note(f"{self.label}: step {done}/{total}, {text}")

    def check(self, done: int, total: int) -> None:
        """Plain lines say nothing of it."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
