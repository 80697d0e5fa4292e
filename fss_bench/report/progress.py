"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from fss_bench.setting import Setting

Update = Callable[[int, int, float], None]
LABEL_LENGTH = 36
GIVEN = ("episodes", "coco_episodes", "short_classes")
"""Rules that tell no pass from another."""


def pass_label(settings: "Sequence[Setting]", method: str = "") -> str:
    """What a pass is about, short enough to stand before a bar; of several methods, which."""
    lead, protocol = settings[0], settings[0].protocol
    changes = [f"{k}={v}" for k, v in protocol.changes.items() if k not in GIVEN]
    which = [protocol.name] if protocol.name != "standard" else []
    if len(settings) > 1:
        which, changes = [f"{len(settings)} protocols"], []
    named = [method] if method else []
    text = " ".join([*named, f"fold {lead.fold} {lead.shots}-shot", *which, *changes])
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"


@contextmanager
def evaluation_progress(label: str, quiet: bool) -> Iterator[Update]:
    """A display of episodes done, running mIoU, episodes a second and time left, on stderr.

    Args:
        label: what is being evaluated.
        quiet: show nothing.
    """
    if quiet:
        yield lambda done, total, miou: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _bar_update(bar, label)
    else:
        yield _line_update(label)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("mIoU {task.fields[miou]:5.2f}  {task.fields[rate]:.1f}/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _bar_update(bar: Progress, label: str) -> Update:
    task = bar.add_task(label, total=None, miou=0.0, rate=0.0)
    rate = _Rate()

    def update(done: int, total: int, miou: float) -> None:
        speed = rate(done)
        bar.update(task, completed=done, total=total, miou=100 * miou, rate=speed)

    return update


def _line_update(label: str) -> Update:
    rate, printed = _Rate(), [0]

    def update(done: int, total: int, miou: float) -> None:
        tenth = done * 10 // total
        speed = rate(done)
        if tenth > printed[0]:
            printed[0] = tenth
            left = (total - done) / speed if speed else 0.0
            print(
                f"{label}: {done}/{total} episodes, mIoU {100 * miou:.2f}, {speed:.1f}/s, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return update


class _Rate:
    """Episodes a second since the first update, so that resumed episodes do not count."""

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None

    def __call__(self, done: int) -> float:
        now = time.monotonic()
        if self._start is None:
            self._start = (done, now)
            return 0.0
        first, then = self._start
        return (done - first) / max(now - then, 1e-9)


@contextmanager
def counting_progress(label: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done on stderr; nothing when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def transfer_progress(
    label: str, unit: str, quiet: bool
) -> Iterator[Callable[[int, int | None], None]]:
    """A display of bytes or files done, on stderr: a bar, or a line for each tenth.

    Args:
        label: what is being done.
        unit: `bytes` or `files`.
        quiet: show nothing.
    """
    if quiet:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield _tenths(label, unit)
        return
    counted = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), *counted)
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(label: str, unit: str) -> Callable[[int, int | None], None]:
    printed = -1

    def update(done: int, total: int | None) -> None:
        nonlocal printed
        tenth = done * 10 // total if total else -1
        if tenth > printed:
            printed = tenth
            print(f"{label}: {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

    return update
